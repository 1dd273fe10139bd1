"""How kernels are compiled: native, without the GIL, cached on disk, and never with fast-math.

Fast-math would let the compiler reorder sums, and the plan would depend on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["native"]


def native(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` at its first call; ``NUMBA_DISABLE_JIT=1`` runs it as plain Python."""
    compiled: Callable[..., Any] = numba.njit(
        function, nogil=True, cache=True, no_cfunc_wrapper=True, fastmath=False, error_model="numpy"
    )
    return compiled
