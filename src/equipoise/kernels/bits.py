"""How many bits tell so many numbers apart: two numbers that share an integer need to know."""

from __future__ import annotations

from typing import Any

from equipoise.kernels.native import internal

__all__ = ["bits_for"]


@internal
def bits_for(numbers: Any) -> Any:
    """Return the bits that tell so many numbers apart."""
    bits = 0
    while (1 << bits) < numbers:
        bits += 1
    return bits
