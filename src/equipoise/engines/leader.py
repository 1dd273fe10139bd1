"""Which of the processes that plan for the same model speaks for them, and keeps their loads."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["global_rank", "leads"]


def leads(group: Any = None) -> bool:
    """Whether this process is rank 0 of ``group``, else of torch.distributed; alone, it is.

    ``group`` is an engine's own object with ``rank_in_group``, or None where none is known.
    """
    rank = getattr(group, "rank_in_group", None)
    return int(global_rank() if rank is None else rank) == 0


def global_rank() -> int:
    """Return the rank of this process in torch.distributed, 0 where that is not in use."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return 0
    return int(distributed.get_rank())
