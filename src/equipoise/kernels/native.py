"""How kernels are compiled: native, without the GIL, cached on disk, and never with fast-math.

Fast-math would let the compiler reorder sums, and the plan would depend on the processor.

Compiled code is kept on disk, see ``cache``; NUMBA_CACHE_DIR names another folder than the package's own.

Compiling is what a first plan waits for, so: kernels hand each other ``np.int64(0)`` and not ``0``, as a literal is a
type of its own, for which all that it is handed to is compiled once more; arrays are copied by loops, as assigning one
to another compiles the text of an error, which takes seconds; and what only kernels call is not ``native``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from equipoise.kernels.cache import keep
from equipoise.kernels.compiler import COMPILER

__all__ = ["allocating", "frozen", "inlined", "internal", "native"]


def frozen(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return ``array`` as contiguous and read-only, without a copy if it can be.

    For native code, which is compiled once more where arrays may be written.
    """
    view: NDArray[Any] = np.ascontiguousarray(array, dtype).view()
    view.setflags(write=False)
    return view


def native(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` at its first call; ``NUMBA_DISABLE_JIT=1`` runs it as plain Python."""
    return _compile(function)


def internal(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` for other kernels alone: what Python calls must be ``native``.

    What turns Python's arguments into native ones and back is then not compiled, which for a tuple of many arrays is
    more than most functions are. Nor are references to arrays counted, so ``function`` must not make any.
    """
    return _compile(function, no_cpython_wrapper=True, _nrt=False)


def allocating(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` as ``internal`` does, and let it make arrays."""
    return _compile(function, no_cpython_wrapper=True)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` as ``native`` does, as a part of whoever calls it.

    For what inner loops call with a tuple of many arrays: a call would copy the description of each.
    """
    return _compile(function, forceinline=True, no_cpython_wrapper=True, _nrt=False)


def _compile(function: Callable[..., Any], **more: Any) -> Callable[..., Any]:
    options: dict[str, Any] = {
        "nogil": True, "no_cfunc_wrapper": True, "fastmath": False, "error_model": "numpy", "_nrt": True, **COMPILER,
        **more,
    }  # fmt: skip
    compiled: Callable[..., Any] = numba.njit(function, **options)
    keep(compiled)
    return compiled
