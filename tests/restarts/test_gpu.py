"""The CUDA kernels: compiled for Hopper on any machine, run where there is a device."""

from __future__ import annotations

import os

import numpy as np
import pytest

from equipoise.restarts import Settings, counter, numba

torch = pytest.importorskip("torch", reason="torch is not installed")
triton = pytest.importorskip("triton", reason="triton is not installed")

from equipoise.restarts import counter_torch  # noqa: E402
from equipoise.restarts import torch as torch_packing  # noqa: E402
from equipoise.restarts import triton as triton_packing  # noqa: E402

on_device = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]


@pytest.mark.slow
@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="Triton interprets, and so compiles nothing")
@pytest.mark.parametrize(("items", "num_packs"), [(288, 32), (72, 8)])
def test_kernels_compile_for_hopper_without_spilling_registers(items, num_packs, monkeypatch):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    launched = record_launches(monkeypatch, items, num_packs)
    pointers = {torch.int64: "*i64", torch.int32: "*i32", torch.int16: "*i16", torch.float64: "*fp64"}
    assert [kernel.fn.__name__ for kernel, _, _ in launched] == ["_score", "_refine"]
    for kernel, arguments, options in launched:
        constants = {name: options.pop(name) for name in kernel.arg_names if name in options}
        types = [pointers[a.dtype] if isinstance(a, torch.Tensor) else "i32" for a in arguments]
        signature = dict.fromkeys(kernel.arg_names, "constexpr") | dict(zip(kernel.arg_names, types, strict=False))
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert compiled.asm["sass"].count("\n") > 1000  # some versions of Triton cut the end off a long listing
        assert "STL" not in compiled.asm["sass"]  # a register kept in memory
        assert "DFMA" not in compiled.asm["sass"]  # a product fused with a sum, which rounds otherwise than elsewhere


def record_launches(monkeypatch, items, num_packs):
    """Return (kernel, arguments, options) of the launches that a call of ``pack`` makes."""
    launched = []

    class Recorder(triton.JITFunction):
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return lambda *arguments, **options: launched.append((self.kernel, arguments, options))

    for name in ("_score", "_refine"):
        monkeypatch.setattr(triton_packing, name, Recorder(getattr(triton_packing, name)))
    weight = torch.ones(1, items, dtype=torch.int64)
    monkeypatch.setattr(triton_packing, "prune", lambda imbalance, restart, print_, refined: (
        imbalance[:, :refined], restart[:, :refined], print_[:, :refined]))  # fmt: skip
    monkeypatch.setattr(triton_packing, "select", lambda spread, items_of: (spread, items_of))
    triton_packing._pack_rows(weight, num_packs, Settings(), torch.zeros(1, dtype=torch.int64))
    return launched


def rows(kind, shape, seed):
    random = np.random.default_rng(seed)
    high = {"distinct": 2**40, "many ties": 30, "few values": 3}[kind]
    return random.integers(0, high, shape)


@pytest.fixture(params=["triton", "torch"])
def packing(request):
    return {"triton": triton_packing, "torch": torch_packing}[request.param]


class TestOnDevice:
    pytestmark = on_device

    @pytest.mark.parametrize("kind", ["distinct", "many ties", "few values"])
    @pytest.mark.parametrize(
        ("items", "num_packs"), [(288, 32), (320, 64), (288, 144), (72, 8), (1024, 256), (1024, 2), (30, 30), (7, 1)]
    )
    def test_plan_is_that_of_numba(self, packing, kind, items, num_packs):
        weight = rows(kind, (5, items), seed=items)
        chosen, key = Settings(restarts=300, refined=40), counter.row_key(weight, 7)
        plan = packing.pack(torch.from_numpy(weight).cuda(), num_packs, chosen, torch.from_numpy(key.astype(np.int64)))
        for array, expected in zip(plan, numba.pack(weight, num_packs, chosen, key), strict=True):
            assert array.is_cuda
            np.testing.assert_array_equal(array.cpu().numpy(), expected)

    def test_two_runs_give_the_same_bits(self, packing):
        weight = torch.from_numpy(rows("distinct", (58, 288), seed=0)).cuda()
        key = counter_torch.row_key(weight, 0)
        first, second = (packing.pack(weight, 32, Settings(), key) for _ in range(2))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
    def test_nothing_waits_for_the_device(self, packing):
        weight = torch.from_numpy(rows("distinct", (4, 288), seed=0)).cuda()
        packing.pack(weight, 32, Settings(restarts=64), counter_torch.row_key(weight, 0))  # compiles
        torch.cuda.set_sync_debug_mode("error")
        try:
            packing.pack(weight, 32, Settings(restarts=64), counter_torch.row_key(weight, 0))
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_a_captured_graph_plans_new_loads(self):
        weight = torch.from_numpy(rows("distinct", (4, 288), seed=0)).cuda()
        chosen = Settings(restarts=64)

        def plan():
            return triton_packing.pack(weight, 32, chosen, counter_torch.row_key(weight, 0))

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            plan()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = plan()
        weight.copy_(torch.from_numpy(rows("distinct", (4, 288), seed=1)))
        graph.replay()
        expected = plan()
        assert torch.equal(captured[0], expected[0])
        assert torch.equal(captured[1], expected[1])
