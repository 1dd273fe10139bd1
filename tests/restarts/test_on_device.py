"""Tensors in, tensors out: the same plan as on the host, whatever carries it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import equipoise.eplb as eplb
from equipoise.errors import InvalidInputError

torch = pytest.importorskip("torch", reason="without torch nothing here can be tested")

SMALL = {"restarts": 24, "refined": 6}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def loads(layers: int, experts: int, seed: int) -> Any:
    return np.random.default_rng(seed).lognormal(0, 1, (layers, experts)) * 1e4


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device: device tensors are not tested here")
    return str(request.param)


@pytest.mark.parametrize("shape", [(24, 4), (24, 8), (12, 12), (9, 1)])
def test_packing_tensors_gives_the_plan_of_the_host(shape: tuple[int, int], device: str) -> None:
    weight = loads(3, shape[0], 1)
    on_host = eplb.balanced_packing(weight, shape[1], **SMALL)
    on_device = eplb.balanced_packing(torch.tensor(weight, device=device), shape[1], **SMALL, backend="torch")
    for mine, theirs in zip(on_device, on_host, strict=True):
        assert mine.device.type == device
        assert mine.dtype == torch.int64
        np.testing.assert_array_equal(mine.cpu().numpy(), theirs)


RESHAPES = [
    (16, (24, 1, 1, 4)),
    (16, (24, 4, 2, 4)),
    (16, (24, 3, 2, 4)),
    (8, (32, 1, 1, 8)),
    (8, (8, 1, 1, 8)),
    (6, (12, 1, 1, 2)),
]


@pytest.mark.parametrize(("experts", "args"), RESHAPES)
def test_rebalancing_tensors_gives_the_plan_of_the_host(experts: int, args: tuple[int, ...], device: str) -> None:
    for seed in range(4):
        weight = loads(3, experts, seed) ** (1 + seed)  # ever more skewed, so that duplicates turn up
        settings: dict[str, Any] = {"strategy": "pruned-restarts", **SMALL}
        on_host = eplb.rebalance_experts(weight, *args, **settings)
        on_device = eplb.rebalance_experts(torch.tensor(weight, device=device), *args, **settings, backend="torch")
        for mine, theirs in zip(on_device, on_host, strict=True):
            assert mine.device.type == device
            np.testing.assert_array_equal(mine.cpu().numpy(), theirs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_a_wrong_weight_on_a_device_is_refused_before_anything_is_returned(bad: float, device: str) -> None:
    weight = torch.ones(2, 8, device=device)
    weight[1, 3] = bad
    with pytest.raises(InvalidInputError, match="finite and not negative"):
        eplb.balanced_packing(weight, 4, **SMALL, backend="torch")


def test_a_backend_that_packs_tensors_takes_arrays_too() -> None:
    weight = loads(2, 12, 5)
    plain = eplb.balanced_packing(weight, 3, **SMALL)
    for mine, theirs in zip(eplb.balanced_packing(weight, 3, **SMALL, backend="torch"), plain, strict=True):
        assert isinstance(mine, np.ndarray)
        np.testing.assert_array_equal(mine, theirs)
