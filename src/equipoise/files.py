"""Files that others may be reading: written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from equipoise.errors import InvalidInputError

__all__ = ["check_writable", "write_atomically"]


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` to ``path`` whole, or leave what was there untouched.

    Parameters
    ----------
    path : path of a file
        It may exist, and then keeps its permissions; a symbolic link is followed. Its folder must exist.
    content : str or bytes
        Text is written as UTF-8, line ends as they are.

    Raises
    ------
    InvalidInputError
        If the folder is missing, ``path`` is a folder or a device, or the system refuses (permission,
        no space). The file is then as it was before, and no other file is left behind.

    Notes
    -----
    A reader sees the old content or the new, never a part: the bytes go to a file beside it, reach the
    disk, and that file takes the name in one step. Not promised: that the new name survives a power
    cut in the same second.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "plan.json"
    >>> write_atomically(target, "{}")
    >>> target.read_text()
    '{}'
    """
    data = content.encode() if isinstance(content, str) else content
    with _refusals(path):
        target, mode, beside, descriptor = _open_beside(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(beside, mode)
            os.replace(beside, target)
        except BaseException:  # an interrupt, too, must not leave the file beside
            with suppress(OSError):
                os.unlink(beside)
            raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a ``path`` that ``write_atomically`` would refuse now, before the work whose result it is to hold.

    Nothing is changed. Not promised: that there will be space, or that the folder stays as it is.

    Raises
    ------
    InvalidInputError
        As ``write_atomically`` does.

    Examples
    --------
    >>> check_writable("no/such/folder/plan.json")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    equipoise.errors.InvalidInputError: no/such/folder/plan.json cannot be written: there is no folder ...
    """
    with _refusals(path):
        _, _, beside, descriptor = _open_beside(path)
        os.close(descriptor)
        os.unlink(beside)


@contextmanager
def _refusals(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system says into one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InvalidInputError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInputError(
            f"{os.fspath(path)!r} cannot be written: {reason[:1].lower()}{reason[1:]}. Nothing was changed."
        ) from error


def _open_beside(path: str | os.PathLike[str]) -> tuple[str, int | None, str, int]:
    """Create a file next to the one to write; return the target, its permissions, and that file's name and number."""
    target = os.path.realpath(path)
    mode = _mode_of(target, path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise InvalidInputError(f"{path} cannot be written: there is no folder {folder}. Create it first.")
    # The name is drawn, not fixed: two writers must not share a half-written file.
    beside = os.path.join(folder, f".equipoise-{secrets.token_hex(8)}.tmp")
    # 0o666 leaves the permissions of a new file to the umask, as open() does.
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    return target, mode, beside, descriptor


def _mode_of(target: str, path: str | os.PathLike[str]) -> int | None:
    """Return the permissions of the file that will be replaced, None for a new one."""
    try:
        found = os.stat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(found):
        raise InvalidInputError(f"{path} cannot be written: it is a folder. Name a file inside it.")
    if not stat.S_ISREG(found):
        raise InvalidInputError(f"{path} cannot be written: it is not an ordinary file. Name another file.")
    return stat.S_IMODE(found)
