"""Files of strangers: opened only where they are ordinary and not too large, and refused in one sentence."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from equipoise.errors import FileFormatError, InvalidInputError, reason
from equipoise.limits import LARGEST_FILE

__all__ = ["opened", "read_bytes", "reading"]


@contextmanager
def opened(path: Path, most: int = LARGEST_FILE) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file for reading; yield its stream, and how many bytes it has.

    Parameters
    ----------
    path : Path
        A symbolic link is followed.
    most : int
        A file of more bytes is refused.

    Raises
    ------
    FileFormatError
        If there is no such file, it is larger, or it is none: a folder, a pipe, a socket or a device, which might never
        end or never begin. The message names the path.
    """
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
        if status.st_size > most:
            raise FileFormatError(f"{path} has {status.st_size:,} bytes; at most {most:,} are read.")
        yield stream, status.st_size


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
        raise FileFormatError(f"{path} cannot be read: it is not an ordinary file; save it to one first.")


def _unreadable(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{str(path)!r} cannot be read: {reason(error)}.")
