"""How kernels are compiled: native, without the GIL, cached on disk, and never with fast-math.

Fast-math would let the compiler reorder sums, and the plan would depend on the processor.

Compiled code is kept under a name that stands for all sources that went into it. numba by itself looks only at the file
that a function is in: what that calls from other files would go stale, and two machines with the same sources would
plan differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["frozen", "inlined", "native", "spliced"]

HERE = Path(__file__).parent

_folders: dict[str, set[Path]] = {}
"""Of each file with compiled functions: the folders that their code comes from, with constants and what they call."""


def frozen(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return ``array`` as contiguous and read-only, without a copy if it can be.

    For native code, which is compiled once more where arrays may be written.
    """
    view: NDArray[Any] = np.ascontiguousarray(array, dtype).view()
    view.setflags(write=False)
    return view


def native(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` at its first call; ``NUMBA_DISABLE_JIT=1`` runs it as plain Python.

    Where neither the package's folder nor the user's cache can be written, compiled code is not kept:
    numba would refuse to import it.
    """
    return _compile(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` as ``native`` does, as a part of whoever calls it.

    For what inner loops call with a tuple of many arrays: a call would copy the description of each, and count one
    reference more to each, atomically. So these are not counted, and ``function`` must not make arrays.
    """
    return _compile(function, forceinline=True, no_cpython_wrapper=True, _nrt=False)


def spliced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` only as a part of those that call it, once for each call.

    For what has one caller and calls much itself: all of that would be optimised once more at every level of nesting.
    """
    return _compile(function, inline="always")


def _compile(function: Callable[..., Any], **more: Any) -> Callable[..., Any]:
    options: dict[str, Any] = {
        "nogil": True, "no_cfunc_wrapper": True, "fastmath": False, "error_model": "numpy", **more
    }  # fmt: skip
    sources = _digest_sources(function)
    try:
        compiled: Callable[..., Any] = numba.njit(function, cache=True, **options)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return numba.njit(function, **options)  # type: ignore[no-any-return]
    kept = getattr(compiled, "_cache", None)  # there is none where plain Python runs
    if kept is not None:
        file = kept._cache_file
        kept._cache_file = type(file)(
            cache_path=file._cache_path, filename_base=f"{kept._impl.filename_base}.{sources}", source_stamp=sources
        )
    return compiled


def _digest_sources(function: Callable[..., Any]) -> str:
    """Return what stands for the sources of ``function`` and of all compiled functions that it may call."""
    own = function.__code__.co_filename
    folders = _folders.setdefault(own, {HERE, Path(own).parent})
    for value in function.__globals__.values():
        if hasattr(value, "py_func"):
            folders |= _folders.get(value.py_func.__code__.co_filename, set())
    return hashlib.sha256(b"".join(_digest_folder(folder) for folder in sorted(folders))).hexdigest()[:16]


@cache
def _digest_folder(folder: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()
