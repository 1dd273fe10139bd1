"""Loads as engines keep them: the writers beside ``equipoise.load``, which reads them all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import check_loads
from equipoise.engines.layered import fill_layers
from equipoise.engines.sglang_maps import save_torch
from equipoise.engines.tensorrt_llm import whole_counts
from equipoise.load import LoadStatistics

__all__ = ["write_counts", "write_lmdeploy", "write_per_pass", "write_stat", "write_tensor"]


def write_counts(load: LoadStatistics) -> bytes:
    """Return ``{"logical_count": ...}`` as JSON: [L, E], or [steps, L, E] for several windows.

    SGLang's recorder counts every hidden layer, so there is a row of zeros for each layer that has no id.
    """
    windows = _every_layer(load)
    return (json.dumps({"logical_count": _plain(windows if len(windows) > 1 else windows[0])}) + "\n").encode()


def write_stat(load: LoadStatistics) -> bytes:
    """Return what SGLang's recorder dumps in its ``stat`` mode, on rank 0.

    Raises
    ------
    InvalidInputError
        If a count is not whole, or too large for int32.
    """
    whole_counts(load, np.int32, "SGLang's recordings")
    counts = _every_layer(load).astype(np.int32)
    return save_torch(
        lambda torch: {
            "rank": 0,
            "logical_count": torch.from_numpy(counts),
            "average_utilization_rate_over_window": None,
        }
    )


def write_per_pass(load: LoadStatistics) -> bytes:
    """Return what SGLang's recorder dumps in its ``per_pass`` mode: a window is a forward pass of rank 0.

    Counts there are by slot: here expert i is in slot i, and no slot is redundant.

    Raises
    ------
    InvalidInputError
        If a count is not whole, or too large for int32.
    """
    whole_counts(load, np.int32, "SGLang's recordings")
    counts = _every_layer(load).astype(np.int32)
    _, layers, experts = counts.shape

    def build(torch: Any) -> dict[str, Any]:
        """Return what SGLang saves, its arrays as tensors."""
        records = [
            {
                "forward_pass_id": i,
                "rank": 0,
                "gatherer_key": "primary",
                "global_physical_count": torch.from_numpy(window.copy()),
            }
            for i, window in enumerate(counts)
        ]
        return {"records": records, "last_physical_to_logical_map": torch.arange(experts).repeat(layers, 1)}

    return save_torch(build)


def write_lmdeploy(load: LoadStatistics) -> bytes:
    """Return LMDeploy's statistics: a JSON list of every hidden layer's counts, all windows summed."""
    return (json.dumps(_plain(_every_layer(load).sum(axis=0))) + "\n").encode()


def write_tensor(load: LoadStatistics) -> bytes:
    """Return the ``weight`` of the published signature as a torch file: float64 [L, E], MoE layers only."""
    return save_torch(lambda torch: torch.from_numpy(load.load.copy()))


def _every_layer(load: LoadStatistics) -> NDArray[np.float64]:
    check_loads(load.num_windows, load.layer_ids[-1] + 1, load.num_logical_experts, f"{load.source}, with all layers,")
    nothing = np.zeros(load.num_logical_experts)
    return np.stack([fill_layers(window, load.layer_ids, nothing) for window in load.tokens_per_expert])


def _plain(counts: NDArray[np.float64]) -> Any:
    """Return nested lists, of whole numbers where all are whole."""
    whole = bool((counts == np.floor(counts)).all() and counts.max() < 2**53)
    return (counts.astype(np.int64) if whole else counts).tolist()
