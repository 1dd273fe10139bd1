"""How kernels are compiled: native, without the GIL, cached on disk, and never with fast-math.

Fast-math would let the compiler reorder sums, and the plan would depend on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["native"]

F = TypeVar("F", bound=Callable[..., Any])


def native(function: F) -> F:
    """Compile ``function`` at its first call; ``NUMBA_DISABLE_JIT=1`` runs it as plain Python."""
    compiled: F = numba.njit(function, nogil=True, cache=True, fastmath=False, error_model="numpy")
    return compiled
