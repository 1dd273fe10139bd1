"""Where compiled code is kept, and which folders can be trusted with it.

What is kept is loaded as a pickle and then run as native code: whoever can write a file there decides what this process
does. So a folder counts only if nobody else can write to it, nor put another one in its place.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from equipoise.errors import InvalidInputError
from equipoise.files import check_writable, write_atomically

__all__ = ["Folder", "choose_folders"]

USERS_OWN = {"win32": ("LOCALAPPDATA", "~/AppData/Local"), "darwin": ("", "~/Library/Caches")}
ELSEWHERE = ("XDG_CACHE_HOME", "~/.cache")  # a variable, and what holds without it


class UntrustedError(OSError):
    """Others could have written what would be run."""


@dataclass(frozen=True)
class Folder:
    """A folder for compiled code.

    Attributes
    ----------
    path : Path
        It need not exist.
    owners : frozenset of int
        Users who may own it, what it is in, and what is in it.
    is_asked_for : bool
        Whether the user named it.
    is_beside_sources : bool
        Whoever can put another folder in the place of this one can do so with the sources.
    """

    path: Path
    owners: frozenset[int]
    is_asked_for: bool = False
    is_beside_sources: bool = False

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file, or None if it is not there; raise OSError if it cannot be read or trusted."""
        path = self.path / name
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(f"{path} is not an ordinary file")
                self._insist_that_only_owners_write(path, found)
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all; raise OSError or InvalidInputError if that cannot be."""
        (self.path / name).unlink(missing_ok=True)  # a damaged one, whose permissions may be damaged too
        write_atomically(self.path / name, data, mode=0o644)

    def make(self) -> None:
        """Make the folder if it is missing, for others to read and for nobody else to write; raise as ``write``."""
        missing = [path for path in self.path.parents if not os.path.exists(path)]
        for path in (*reversed(missing), self.path):
            path.mkdir(mode=0o755, exist_ok=True)
        check_writable(self.path / "kernel")

    def insist_on_trust(self) -> None:
        """Raise UntrustedError if others can write to this folder, or to what it is in, as far as that exists."""
        path = Path(os.path.realpath(self.path))
        for at in (path, *(() if self.is_beside_sources else path.parents)):
            if os.path.exists(at):
                self._insist_that_only_owners_write(at, at.stat(), may_be_sticky=at != path)

    def _insist_that_only_owners_write(self, path: Path, found: os.stat_result, may_be_sticky: bool = False) -> None:
        if not hasattr(os, "geteuid"):
            return
        if found.st_uid not in self.owners:
            raise UntrustedError(f"{path} belongs to another user, number {found.st_uid}, and what is kept is run")
        if _others_can_write(found) and not (may_be_sticky and found.st_mode & stat.S_ISVTX):
            raise UntrustedError(f"others can write to {path}, and what is kept is run; chmod go-w would end that")


@cache
def choose_folders(package: str, asked_for: str) -> tuple[tuple[Folder, ...], tuple[str, ...]]:
    """Choose where the code of one package is kept.

    Parameters
    ----------
    package : str
        The folder of its sources.
    asked_for : str
        What ``NUMBA_CACHE_DIR`` says; "" if it says nothing.

    Returns
    -------
    folders : tuple of Folder
        To look into in this order. The last one takes what is new, and those before it cannot be written.
    trouble : tuple of str
        Why a folder is not used at all, where somebody should mend it.
    """
    folders, trouble = [], []
    for folder in _candidates(package, asked_for):
        try:
            folder.insist_on_trust()
            folder.make()
            folder.insist_on_trust()
        except UntrustedError as error:
            trouble.append(f"{folder.path} is not used: {error}")
        except (OSError, InvalidInputError) as error:
            if os.path.isdir(folder.path):
                folders.append(folder)
            elif folder.is_asked_for:
                trouble.append(f"{folder.path} is not used: {error}")
        else:
            folders.append(folder)
            break
    return tuple(folders), tuple(trouble)


def _candidates(package: str, asked_for: str) -> Iterator[Folder]:
    mine = {os.geteuid(), 0} if hasattr(os, "geteuid") else set()
    if asked_for:
        yield Folder(Path(asked_for).absolute() / "equipoise", frozenset(mine), is_asked_for=True)
    if os.path.isdir(package):  # in an archive it is none
        # Whoever owns the sources decides anyway what runs here.
        owners = frozenset(mine | {os.stat(package).st_uid})
        yield Folder(Path(package).absolute() / "__pycache__", owners, is_beside_sources=True)
    variable, otherwise = USERS_OWN.get(sys.platform, ELSEWHERE)
    own = Path(os.path.expanduser(os.environ.get(variable) or otherwise))  # as it is where there is no home
    if own.is_absolute():
        yield Folder(own / "equipoise", frozenset(mine))


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for whoever writes to it, if it is a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _others_can_write(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_private(found.st_gid, found.st_uid)


def _is_private(group: int, owner: int) -> bool:
    """Return whether a group is one of those that many systems make for each user, with nobody else in it."""
    import grp
    import pwd

    try:
        found, name = grp.getgrgid(group), pwd.getpwuid(owner).pw_name
    except KeyError:
        return False
    return group != 0 and found.gr_name == name and set(found.gr_mem) <= {name}
