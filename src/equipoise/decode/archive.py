"""Zip files, which numpy and torch both write: their table of contents, and no more of a member than it may hold."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from equipoise.decode.source import opened
from equipoise.errors import FileFormatError
from equipoise.limits import LARGEST_DIRECTORY, LARGEST_FILE, ONCE_UNPACKED

__all__ = ["Archive", "open_archive"]


class Archive:
    """A zip file that is open.

    Attributes
    ----------
    sizes : dict of str to int
        Its members in their order, no two of one name, and how many bytes each has unpacked.
    """

    def __init__(self, file: zipfile.ZipFile, size: int, path: Path) -> None:
        self._file, self._size = file, size
        self._members = {member.filename: member for member in file.infolist()}
        self.sizes = {name: member.file_size for name, member in self._members.items()}
        if len(self.sizes) < len(file.infolist()):
            raise FileFormatError(f"{path} holds two files of one name; write it again.")
        if sum(member.compress_size for member in file.infolist()) > size:
            raise FileFormatError(f"{path} holds files that lie in one another; it is damaged. Write it again.")

    @contextmanager
    def open(self, name: str, where: str, *, packed: bool = True) -> Iterator[IO[bytes]]:
        """Open a member; ``where`` names it in errors, and ``packed`` says whether it may be.

        Raises
        ------
        FileFormatError
            If it is damaged, packed in a way that is not known, or much larger than what is packed.
        """
        member = self._members[name]
        known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if packed else (zipfile.ZIP_STORED,)
        if member.compress_type not in known or member.flag_bits & 1:
            raise FileFormatError(f"{where} is packed in a way that numpy and torch do not write; use numpy.savez.")
        least, times = ONCE_UNPACKED
        most = max(least, times * member.compress_size) if packed else member.compress_size
        if member.header_offset + member.compress_size > self._size or member.file_size > most:
            raise FileFormatError(
                f"{where} claims {member.file_size:,} bytes packed into {member.compress_size:,}; it is damaged, or "
                "made to fill the memory. Write the file again without compression."
            )
        try:
            with self._file.open(member) as stream:
                yield stream
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError) as error:
            raise FileFormatError(f"{where} is damaged; copy or write the file again.") from error


@contextmanager
def open_archive(path: Path, most: int = LARGEST_FILE) -> Iterator[Archive]:
    """Open a zip file of at most ``most`` bytes, or say that its table of contents is not sound."""
    with opened(path, most) as (stream, size):
        sparing = _Sparing(stream, size)
        try:
            file = zipfile.ZipFile(sparing)
        except _TooMuchError:
            raise FileFormatError(
                f"{path} holds more files than are looked at; its table of contents has more than "
                f"{LARGEST_DIRECTORY:,} bytes."
            ) from None
        except Exception:  # what zipfile raises for damaged bytes is no part of its interface
            raise FileFormatError(
                f"{path} starts as a .npz or torch file and has no sound table of contents at its end; "
                "it is truncated or damaged. Copy or write it again."
            ) from None
        sparing.most = size
        with file:
            yield Archive(file, size, path)


class _TooMuchError(Exception):
    """More is to be read at once than a table of contents may have."""


class _Sparing:
    """A stream from which at most ``most`` bytes are read at once: zipfile reads a table of contents whole."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size, self.most = stream, size, LARGEST_DIRECTORY

    def read(self, size: int = -1) -> bytes:
        """Read as a stream does, or refuse."""
        left = max(self._size - self._stream.tell(), 0)
        wanted = left if size < 0 else min(size, left)
        if wanted > self.most:
            raise _TooMuchError
        return self._stream.read(wanted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
