"""How good a placement is, each number with its formula.

=================== ============================================== =====================
name                formula, per layer                             best value
=================== ============================================== =====================
rank load           sum over a rank's slots of load / replicas     mean over ranks
balancedness        mean rank load / max rank load                 1
imbalance ratio     max rank load / mean rank load - 1             0
=================== ============================================== =====================

A layer without load is perfectly balanced. Averages over layers say so in their name.
Engines log other numbers: see ``vllm_balancedness`` and ``sglang_utilization``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Metrics", "balancedness", "imbalance_ratio", "sglang_utilization", "vllm_balancedness"]

Floats = NDArray[np.float64]


def balancedness(rank_load: Floats) -> Floats:
    """Return mean / max rank load of each layer, in (0, 1].

    >>> balancedness(np.array([[4.0, 2.0], [0.0, 0.0]])).tolist()
    [0.75, 1.0]
    """
    largest = rank_load.max(axis=1)
    ratio: Floats = np.divide(rank_load.mean(axis=1), largest, out=np.ones_like(largest), where=largest > 0)
    return ratio


def imbalance_ratio(rank_load: Floats) -> Floats:
    """Return max / mean rank load - 1 of each layer, the number that TensorRT-LLM reports.

    >>> imbalance_ratio(np.array([[3.0, 1.0], [0.0, 0.0]])).tolist()
    [0.5, 0.0]
    """
    mean = rank_load.mean(axis=1)
    ratio: Floats = np.divide(rank_load.max(axis=1), mean, out=np.ones_like(mean), where=mean > 0)
    return ratio - 1


def vllm_balancedness(rank_load: Floats) -> float:
    """Return the one number that vLLM logs: sum over layers of the mean / sum over layers of the max."""
    largest = float(rank_load.max(axis=1).sum())
    return float(rank_load.mean(axis=1).sum()) / largest if largest > 0 else 1.0


def sglang_utilization(rank_load: Floats) -> float:
    """Return the one number that SGLang logs: mean over layers of (mean + 1e-5) / (max + 1e-5)."""
    return float(np.mean((rank_load.mean(axis=1) + 1e-5) / (rank_load.max(axis=1) + 1e-5)))


@dataclass(frozen=True, eq=False)
class Metrics:
    """The numbers of one plan, per layer, all derived from its rank loads.

    Attributes
    ----------
    mean_rank_load, max_rank_load : float64 array, shape (num_layers,)
        Tokens per window.
    num_duplicates : int64 array, shape (num_layers,)
        Slots whose rank already holds the same expert in a lower slot.
    """

    mean_rank_load: Floats
    max_rank_load: Floats
    num_duplicates: NDArray[np.int64]

    @property
    def balancedness(self) -> Floats:
        """Mean / max rank load of each layer."""
        return np.divide(
            self.mean_rank_load, self.max_rank_load, out=np.ones_like(self.max_rank_load), where=self.max_rank_load > 0
        )

    @property
    def imbalance_ratio(self) -> Floats:
        """Max / mean rank load - 1 of each layer."""
        return 1.0 / self.balancedness - 1.0

    @property
    def mean_balancedness(self) -> float:
        """Balancedness averaged over the layers."""
        return float(self.balancedness.mean())

    @property
    def worst_balancedness(self) -> float:
        """Balancedness of the worst layer."""
        return float(self.balancedness.min())
