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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy
from equipoise.errors import InvalidInputError, shown
from equipoise.limits import MOST_LOADS

__all__ = ["Metrics", "as_layers", "balancedness", "imbalance_ratio", "sglang_utilization", "vllm_balancedness"]

Floats = NDArray[np.float64]


def _as_rank_load(value: Any) -> Floats:
    """Return rank loads, or say what they must be."""
    if (
        not isinstance(value, np.ndarray)
        or value.dtype != np.float64
        or value.ndim != 2
        or not 0 < value.size <= MOST_LOADS
    ):
        raise InvalidInputError(
            f"rank_load is {shown(value)}; it must be a float64 array of shape (layers, ranks), as Placement.rank_load "
            "returns it."
        )
    if not (np.isfinite(value) & (value >= 0)).all():
        raise InvalidInputError("rank_load holds a number that is negative or not finite; rank loads are neither.")
    return value


def as_layers(value: Any, name: str) -> Floats:
    """Return one number for each layer, finite and not negative, as a read-only float64 copy, or say what is wrong."""
    array = np.array(as_numpy(value, name), dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not (np.isfinite(array) & (array >= 0)).all():
        raise InvalidInputError(
            f"{name} is {shown(value)}; it must hold a finite number, not negative, for each layer."
        )
    array.setflags(write=False)
    return array


def balancedness(rank_load: Floats) -> Floats:
    """Return mean / max rank load of each layer, in (0, 1].

    >>> balancedness(np.array([[4.0, 2.0], [0.0, 0.0]])).tolist()
    [0.75, 1.0]
    """
    largest = _as_rank_load(rank_load).max(axis=1)
    ratio: Floats = np.divide(rank_load.mean(axis=1), largest, out=np.ones_like(largest), where=largest > 0)
    return ratio


def imbalance_ratio(rank_load: Floats) -> Floats:
    """Return max / mean rank load - 1 of each layer, the number that TensorRT-LLM reports.

    >>> imbalance_ratio(np.array([[3.0, 1.0], [0.0, 0.0]])).tolist()
    [0.5, 0.0]
    """
    mean = _as_rank_load(rank_load).mean(axis=1)
    ratio: Floats = np.divide(rank_load.max(axis=1), mean, out=np.ones_like(mean), where=mean > 0)
    return ratio - 1


def vllm_balancedness(rank_load: Floats) -> float:
    """Return the one number that vLLM logs: sum over layers of the mean / sum over layers of the max."""
    largest = float(_as_rank_load(rank_load).max(axis=1).sum())
    return float(rank_load.mean(axis=1).sum()) / largest if largest > 0 else 1.0


def sglang_utilization(rank_load: Floats) -> float:
    """Return the one number that SGLang logs: mean over layers of (mean + 1e-5) / (max + 1e-5)."""
    rank_load = _as_rank_load(rank_load)
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

    def __post_init__(self) -> None:
        for name in ("mean_rank_load", "max_rank_load"):
            object.__setattr__(self, name, as_layers(getattr(self, name), name))
        duplicates = as_numpy(self.num_duplicates, "num_duplicates")
        if (
            not self.mean_rank_load.shape == self.max_rank_load.shape == duplicates.shape
            or duplicates.dtype.kind not in "iu"
        ):
            raise InvalidInputError(
                f"mean_rank_load, max_rank_load and num_duplicates have the shapes {self.mean_rank_load.shape}, "
                f"{self.max_rank_load.shape} and {duplicates.shape}; each needs one number a layer, the last an int."
            )
        object.__setattr__(self, "num_duplicates", duplicates)

    @property
    def balancedness(self) -> Floats:
        """Mean / max rank load of each layer."""
        return np.divide(
            self.mean_rank_load, self.max_rank_load, out=np.ones_like(self.max_rank_load), where=self.max_rank_load > 0
        )

    @property
    def imbalance_ratio(self) -> Floats:
        """Max / mean rank load - 1 of each layer."""
        ratio = np.ones_like(self.mean_rank_load)
        return np.divide(self.max_rank_load, self.mean_rank_load, out=ratio, where=self.mean_rank_load > 0) - 1.0

    @property
    def mean_balancedness(self) -> float:
        """Balancedness averaged over the layers."""
        return float(self.balancedness.mean())

    @property
    def worst_balancedness(self) -> float:
        """Balancedness of the worst layer."""
        return float(self.balancedness.min())
