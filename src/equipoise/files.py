"""Files that others may be reading: written whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from equipoise.errors import InvalidInputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["check_writable", "write_atomically"]


LEFTOVER = re.compile(r"\.equipoise-[0-9a-f]{16}\.tmp")
OLD = 86400.0  # seconds: no save takes as long
TRIES = 5


def write_atomically(path: str | os.PathLike[str], content: str | bytes, mode: int = 0o666) -> None:
    """Write ``content`` to ``path`` whole, or leave what was there untouched.

    Parameters
    ----------
    path : path of a file
        It may exist, and then keeps its permissions; a symbolic link is followed. Its folder must exist.
    content : str or bytes
        Text is written as UTF-8, line ends as they are.
    mode : int, default 0o666
        Permissions of a new file, from which the umask takes some away.

    Raises
    ------
    InvalidInputError
        If the folder is missing, ``path`` is a folder or a device, or the system refuses (permission,
        no space). The file is then as it was before, and no other file is left behind.

    Notes
    -----
    A reader sees the old content or the new, never a part: the bytes go to a file beside it, reach the
    disk, and that file takes the name in one step. Not promised: that the new name survives a power
    cut in the same second. A process that is killed meanwhile leaves the file beside; the next one that writes to
    the folder removes it.

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
        target, permissions = _target_of(path)
        _remove_leftovers(os.path.dirname(target))
        for attempt in range(TRIES):
            try:
                _replace(target, data, mode, permissions)
                break
            except FileNotFoundError:  # the file beside was taken for a leftover before it was locked
                if attempt == TRIES - 1:
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
        beside, descriptor = _open_beside(_target_of(path)[0], 0o666)
        os.close(descriptor)
        with suppress(FileNotFoundError):  # another process may have taken it for a leftover
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


def _target_of(path: str | os.PathLike[str]) -> tuple[str, int | None]:
    """Return the file to write and its permissions, None if it is new."""
    target = os.path.realpath(path)
    permissions = _mode_of(target, path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise InvalidInputError(f"{path} cannot be written: there is no folder {folder}. Create it first.")
    return target, permissions


def _replace(target: str, data: bytes, mode: int, permissions: int | None) -> None:
    """Write a file beside ``target``, locked while this process lives, and let it take the name."""
    beside, descriptor = _open_beside(target, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _lock(descriptor)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            if permissions is not None:
                os.chmod(beside, permissions)
            if fcntl is None:  # Windows renames no open file
                file.close()
            os.replace(beside, target)
    except BaseException:  # an interrupt, too, must not leave the file beside
        with suppress(OSError):
            os.unlink(beside)
        raise


def _open_beside(target: str, mode: int) -> tuple[str, int]:
    """Create a file next to the one to write; return its name and number."""
    # The name is drawn, not fixed: two writers must not share a half-written file.
    beside = os.path.join(os.path.dirname(target), f".equipoise-{secrets.token_hex(8)}.tmp")
    # The permissions of a new file are left to the umask, as open() does.
    return beside, os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)


def _remove_leftovers(folder: str) -> None:
    """Remove the files beside of processes that were killed: those that nobody has locked."""
    with suppress(OSError):  # a folder that may not be listed keeps what it has
        for name in os.listdir(folder):
            if LEFTOVER.fullmatch(name):
                _remove_if_left(os.path.join(folder, name))


def _remove_if_left(beside: str) -> None:
    with suppress(OSError):  # it is gone, or another user's
        descriptor = os.open(beside, os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            locked = _lock(descriptor)
            if locked is None:
                locked = time.time() - os.fstat(descriptor).st_mtime > OLD
            if locked:
                os.unlink(beside)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock an open file; return whether nobody else has, or None where the system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):
        return None
    return True


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
