"""Compiled code kept on disk, for numba: found again only if it was made from the very same parts, and is whole.

numba's own cache looks at the file that a function is in, so what is called from other files goes stale; and it loads
whatever it finds, so that a damaged file ends every plan. Here a file is named by the fingerprint of all that went into
the code, and begins with a digest of what follows. Where anything is wrong with it, or it cannot be kept, the function
is compiled all the same, and a warning says so, once.

What of numba is used and not public is on this page: a dispatcher's ``_cache``, the interface of what lies there, and
how compiled code turns into bytes and back. Where a numba has these no longer, nothing is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import warnings
from contextlib import suppress
from typing import Any

import numba

from equipoise.kernels.cache_folders import Folder, choose_folders
from equipoise.kernels.fingerprint import fingerprint
from equipoise.kernels.target import name_of, targets

try:
    from numba.core.caching import CompileResultCacheImpl, NullCache, _Cache
    from numba.core.serialize import dumps
except ImportError:  # another numba
    CompileResultCacheImpl, NullCache, _Cache, dumps = object, (), object, None

__all__ = ["keep"]

DIGEST = hashlib.sha256().digest_size

log = logging.getLogger("equipoise")
_has_warned = False
_has_said = False


def keep(compiled: Any) -> None:
    """Keep on disk what numba compiles of this function; where this numba has no place for that, warn once."""
    if not hasattr(compiled, "py_func"):
        return  # NUMBA_DISABLE_JIT=1: plain Python
    try:
        if not isinstance(compiled._cache, NullCache):
            raise TypeError
        compiled._cache = KernelCache(compiled)
    except (AttributeError, TypeError):  # the place, or what it takes, is another
        _warn(f"this version of equipoise does not know how to keep what numba {numba.__version__} compiles")


class KernelCache(_Cache):  # type: ignore[misc]
    """The kept code of one function. numba asks it before it compiles, and hands it what it has compiled."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher, self._is_enabled = dispatcher, True

    @property
    def cache_path(self) -> str | None:
        """The folder that code is written to, None if there is none."""
        folders = self._folders()
        return str(folders[-1].path) if folders else None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for arguments of these types, or None if it has to be compiled."""
        target_context.refresh()
        try:
            for target in targets(target_context.codegen().magic_tuple()) if self._is_enabled else ():
                data = self._read(self._name(sig, target))
                if data is not None:
                    return _Codec().rebuild(target_context, pickle.loads(data))
        except Exception as error:  # whatever numba or the disk say: compiling will do
            _warn(f"{self._label} could not be loaded: {error}")
        _say_once(target_context.codegen().magic_tuple(), self.cache_path if self._is_enabled else None)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what has been compiled for arguments of these types."""
        try:
            if not self._is_enabled:
                return
            if data.lifted or data.library.has_dynamic_globals:
                raise ValueError("it refers to something by its address")
            self._write(self._name(sig, data.target_context.codegen().magic_tuple()), dumps(_Codec().reduce(data)))
        except Exception as error:  # the code is there, and does without being kept
            _warn(f"{self._label} could not be kept: {error}")

    def enable(self) -> None:
        """Load and keep from now on."""
        self._is_enabled = True

    def disable(self) -> None:
        """Neither load nor keep from now on."""
        self._is_enabled = False

    def flush(self) -> None:
        """Do nothing: what is kept never goes stale."""

    def _name(self, sig: Any, target: Any) -> str:
        key = fingerprint(self._dispatcher, sig, target)
        return f"{self._label.replace('<', '').replace('>', '')}-{key[:32]}-{name_of(target)}.nbc"

    def _read(self, name: str) -> bytes | None:
        """Return what was kept under a name, from the first folder that has it whole."""
        for folder in self._folders():
            try:
                found = folder.read(name)
            except OSError as error:
                _warn(str(error))
                continue
            if found is None:
                continue
            if found[:DIGEST] == _digest(name, found[DIGEST:]):
                return found[DIGEST:]
            _warn(f"{folder.path / name} is damaged and not used")
        return None

    def _write(self, name: str, data: bytes) -> None:
        """Keep ``data`` under a name."""
        folders = self._folders()
        if not folders:
            raise OSError("there is no folder to keep it in; name one with NUMBA_CACHE_DIR")
        folders[-1].write(name, _digest(name, data) + data)
        if folders[0].is_asked_for and len(folders) > 1:
            _warn(f"{folders[0].path} cannot be written, so new code is kept in {folders[-1].path}")

    def _folders(self) -> tuple[Folder, ...]:
        package = os.path.dirname(os.path.abspath(self._dispatcher.py_func.__code__.co_filename))
        folders, trouble = choose_folders(package, numba.config.CACHE_DIR)
        if trouble:
            _warn("; ".join(trouble))
        return folders

    @property
    def _label(self) -> str:
        python = self._dispatcher.py_func
        return f"{python.__module__}.{python.__qualname__}"


class _Codec(CompileResultCacheImpl):  # type: ignore[misc]
    """Only how numba turns compiled code into what can be pickled, and back; not where it would put it."""

    def __init__(self) -> None:
        pass


def _digest(name: str, data: bytes) -> bytes:
    """Return what tells a whole file from a damaged one, and from one that was kept under another name."""
    return hashlib.sha256(name.encode() + data).digest()


def _say_once(target: Any, folder: str | None) -> None:
    """Say once in a process that kernels are being compiled, for what processor, and where they are kept."""
    global _has_said
    if _has_said:
        return
    _has_said = True
    kept = f"once; they are kept in {folder}" if folder else "and cannot be kept: NUMBA_CACHE_DIR names a folder"
    log.warning("compiling kernels for %s, %s. equipoise warmup compiles all of them.", name_of(target), kept)


def _warn(reason: str) -> None:
    """Say once in a process why kernels are compiled that might have been found, or not kept."""
    global _has_warned
    if _has_warned:
        return
    _has_warned = True
    # Where warnings are errors, this one would end a plan that can be made.
    with suppress(RuntimeWarning):
        text = f"{reason.rstrip('.')}. Planning goes on, and may begin with compiling."
        warnings.warn(f"kernel cache: {text}", RuntimeWarning, stacklevel=2)
