"""How kernels are compiled: native, without the GIL, cached on disk, and never with fast-math.

Fast-math would let the compiler reorder sums, and the plan would depend on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["frozen", "inlined", "native"]


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

    For what inner loops call with a tuple of many arrays: a call would copy the description of each.
    """
    return _compile(function, forceinline=True, no_cpython_wrapper=True)


def _compile(function: Callable[..., Any], **more: Any) -> Callable[..., Any]:
    options: dict[str, Any] = {
        "nogil": True, "no_cfunc_wrapper": True, "fastmath": False, "error_model": "numpy", **more
    }  # fmt: skip
    try:
        compiled: Callable[..., Any] = numba.njit(function, cache=True, **options)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        compiled = numba.njit(function, **options)
    return compiled
