"""Text to learn from and to serve: Python's own standard library, in three kinds that load experts differently."""

from __future__ import annotations

import os
import pydoc_data.topics
from pathlib import Path

import torch

__all__ = ["KINDS", "batches", "corpus"]

LIBRARY = Path(os.__file__).parent
KINDS = ("code", "documentation", "tables")


def corpus(kind: str) -> torch.Tensor:
    """Return the bytes of one kind of text: int64, about a megabyte."""
    if kind == "code":
        parts = [path.read_bytes() for path in sorted(LIBRARY.glob("[a-d]*.py"))]
    elif kind == "documentation":
        parts = [text.encode() for _, text in sorted(pydoc_data.topics.topics.items())]
    else:
        parts = [path.read_bytes() for path in sorted((LIBRARY / "encodings").glob("cp*.py"))]
    data = b"\n".join(parts)[: 1 << 20]
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).long()


def batches(data: torch.Tensor, size: int, length: int, seed: int):
    """Yield batches of ``size`` pieces of ``length`` bytes, the same for the same seed, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(0, len(data) - length - 1, (size,), generator=generator)
        yield torch.stack([data[start : start + length + 1] for start in starts])
