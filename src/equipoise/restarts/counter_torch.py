"""``counter`` on torch tensors: the same words, bit for bit, made on the tensor's own device.

Words are held in int64. Their products may pass 2**63 and wrap, which leaves the low 32 bits right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.restarts.counter import ITEM_STEP, MASK, MIX_1, MIX_2, RESTART_STEP

__all__ = ["mix", "row_key", "uniforms"]


def mix(value: Tensor) -> Tensor:
    """Scramble 32-bit words."""
    value = value ^ (value >> 16)
    value = value.mul_(MIX_1).bitwise_and_(MASK)
    value ^= value >> 15
    value = value.mul_(MIX_2).bitwise_and_(MASK)
    value ^= value >> 16
    return value


def row_key(weight: Tensor, seed: int) -> Tensor:
    """Return one 32-bit word per row of ``weight`` int64 [rows, items]: that of ``counter.row_key``."""
    device = weight.device
    # Filled, not copied from a tensor on the host, for which the device would have to wait.
    low = torch.full((1,), seed & MASK, dtype=torch.int64, device=device)
    word = mix(mix(low) ^ ((seed >> 32) & MASK))
    place = mix((torch.arange(weight.shape[1], device=device) * ITEM_STEP) & MASK)
    content = mix(mix((weight & MASK) ^ place) ^ (weight >> 32))
    return mix((content.sum(dim=1) & MASK) ^ word)


def uniforms(key: Tensor, restarts: Tensor, num_items: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the uniforms in [0, 1) of ``restarts`` [rows or 1, r]: shape (rows, r, items), exact even in float32."""
    stream = mix((key[:, None] + restarts * RESTART_STEP) & MASK)
    item = (torch.arange(num_items, device=key.device) * ITEM_STEP) & MASK
    words = mix((stream[:, :, None] + item) & MASK)
    return (words >> 8).to(dtype) * 2.0**-24
