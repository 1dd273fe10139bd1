"""Files of strangers: opened only where they are ordinary and not too large, and refused in one sentence.

``-`` is standard input, read once; what gzip packed is unpacked to a file without a name, as far as limits allow.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from equipoise.errors import FileFormatError, InvalidInputError, reason
from equipoise.limits import LARGEST_FILE, LARGEST_INPUT, ONCE_UNPACKED

__all__ = ["STANDARD_INPUT", "opened", "read_bytes", "reading"]

STANDARD_INPUT = Path("-")
PACKED = b"\x1f\x8b"
AT_ONCE = 1 << 20  # bytes


@contextmanager
def opened(path: Path, most: int = LARGEST_FILE) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file for reading; yield its stream, and how many bytes it has.

    Parameters
    ----------
    path : Path
        A symbolic link is followed. ``-`` is standard input. A file that gzip packed is unpacked.
    most : int
        A file of more bytes is refused.

    Raises
    ------
    FileFormatError
        If there is no such file, it is larger, or it is none: a folder, a pipe, a socket or a device, which might never
        end or never begin. The message names the path.
    """
    if path == STANDARD_INPUT:
        content = _standard_input()
        with _unpacked(io.BytesIO(content), len(content), path, most) as found:
            yield found
        return
    try:
        _check_ordinary(os.stat(path).st_mode, path)
        # If a pipe has taken the place of the file since, opening it does not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist. Check the spelling and the folder you are in.") from None
    except FileFormatError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error) from None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        _check_ordinary(status.st_mode, path)
        with _unpacked(stream, status.st_size, path, most) as found:
            yield found


@contextmanager
def _unpacked(stream: IO[bytes], size: int, path: Path, most: int) -> Iterator[tuple[IO[bytes], int]]:
    """Yield the stream and its size, or those of what gzip packed into it."""
    if size > most:
        raise FileFormatError(f"{path} has {size:,} bytes; at most {most:,} are read.")
    if stream.read(len(PACKED)) != PACKED:
        stream.seek(0)
        yield stream, size
        return
    stream.seek(0)
    least, times = ONCE_UNPACKED
    most = min(most, max(least, times * size))
    with tempfile.TemporaryFile() as unpacked, gzip.GzipFile(fileobj=stream) as packed:
        total = 0
        try:
            while part := packed.read(AT_ONCE):
                total += unpacked.write(part)
                if total > most:
                    raise FileFormatError(f"{path} unpacks to more than {most:,} bytes; unpack it first, or split it.")
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise FileFormatError(
                f"{path} is truncated or damaged: what gzip packed does not come out whole. Copy or write it again."
            ) from None
        unpacked.seek(0)
        yield unpacked, total


_input: tuple[object, bytes] | None = None


def _standard_input() -> bytes:
    """Return all of standard input, which can be read only once."""
    global _input
    stream: IO[bytes] = getattr(sys.stdin, "buffer", None) or io.BytesIO()
    if _input is None or _input[0] is not stream:
        if sys.stdin is None or sys.stdin.isatty():
            raise FileFormatError("- is standard input, and nothing is piped into it; name a file, or pipe one in.")
        content: bytes = stream.read(LARGEST_INPUT + 1)
        if len(content) > LARGEST_INPUT:
            raise FileFormatError(f"- has more than {LARGEST_INPUT:,} bytes; save it to a file first.")
        _input = stream, content
        return content
    return _input[1]


def read_bytes(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Return what is in a file; see ``opened``. Of one that grows meanwhile, what it had at first."""
    with opened(path, most) as (stream, size):
        return stream.read(size)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Let whatever stops the reading of ``path`` be one ``FileFormatError`` that names it, in one printable line."""
    try:
        yield
    except FileFormatError as error:
        sentence = str(error)
        if sentence.isprintable():
            raise
        escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence)
        raise FileFormatError("".join(escaped)) from None  # files in a folder are named by strangers too
    except InvalidInputError as error:  # the nouns say what is wrong, and not where it came from
        sentence = str(error)
        raise FileFormatError(sentence if str(path) in sentence else f"{path}: {sentence}") from None
    except MemoryError as error:
        raise FileFormatError(f"{path} needs more memory than there is.") from error
    except (OSError, ValueError, ArithmeticError) as error:
        raise _unreadable(path, error) from error


def _check_ordinary(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise FileFormatError(f"{path} cannot be read: it is a folder; name a file in it.")
    if not stat.S_ISREG(mode):
        raise FileFormatError(
            f"{path} cannot be read: it is not an ordinary file; save it to one, or pipe it in and name it -."
        )


def _unreadable(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{str(path)!r} cannot be read: {reason(error)}.")
