"""All implementations of packing return the reference's plan, bit for bit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import equipoise
from equipoise.errors import InvalidInputError, MissingDependencyError
from equipoise.restarts import Settings, counter, numba, reference

torch = pytest.importorskip("torch", reason="torch is not installed")

from equipoise.restarts import counter_torch  # noqa: E402
from equipoise.restarts import torch as torch_packing  # noqa: E402

WORKER = Path(__file__).with_name("pack_worker.py")
SOURCES = Path(equipoise.__file__).parent.parent


def random_rows(kind, shape, seed):
    """Rows of one kind: those that tie in every way, and those that never do."""
    random = np.random.default_rng(seed)
    rows = {
        "distinct": lambda: random.integers(0, 2**40, shape),
        "few values": lambda: random.integers(0, 4, shape),
        "many ties": lambda: random.integers(0, 30, shape),
        "equal": lambda: np.full(shape, 7),
        "zeros": lambda: np.zeros(shape, dtype=np.int64),
        "one heavy": lambda: np.where(np.arange(shape[1]) == shape[1] // 2, 2**40, random.integers(0, 2, shape)),
        "neighbours": lambda: 2**39 + random.integers(0, 3, shape),
    }
    return rows[kind]().astype(np.int64)


KINDS = ["distinct", "few values", "many ties", "equal", "zeros", "one heavy", "neighbours"]


@st.composite
def instances(draw):
    num_packs, room = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    weight = random_rows(
        draw(st.sampled_from(KINDS)), (draw(st.integers(1, 3)), num_packs * room), draw(st.integers(0, 99))
    )
    chosen = Settings(
        restarts=draw(st.integers(1, 40)),
        refined=draw(st.integers(1, 50)),
        noise=draw(st.sampled_from([0.0, 0.2, 2.0])),
        swaps=draw(st.sampled_from([0, 1, 50])),
        extremes=draw(st.integers(1, 8)),
    )
    return weight, num_packs, chosen, draw(st.sampled_from([0, 3, 2**64 - 1]))


def assert_same(plan, expected):
    for array, other in zip(plan, expected, strict=True):
        array = np.asarray(array)
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, other)


def literal(weight, num_packs, chosen, noise):
    """The strategy for one row, written once more from its description, by exhaustion."""
    items, candidates = range(len(weight)), []
    room = len(weight) // num_packs

    def spread(packs):
        load = [sum(weight[i] for i in pack) for pack in packs]
        return max(load) - min(load)

    for restart in range(chosen.restarts):
        scale = chosen.noise * restart / max(chosen.restarts - 1, 1)
        key = [weight[i] * (1 + scale * noise[restart][i]) for i in items]
        packs = [[] for _ in range(num_packs)]
        for item in sorted(items, key=lambda i: (-key[i], i)):
            open_packs = [p for p in range(num_packs) if len(packs[p]) < room]
            packs[min(open_packs, key=lambda p: (sum(weight[i] for i in packs[p]), p))].append(item)
        candidates.append(packs)

    survivors, seen = [], []
    for packs in sorted(candidates, key=spread):  # stable: ties to the lowest restart
        together = sorted(sorted(weight[i] for i in pack) for pack in packs)
        if together not in seen and len(survivors) < chosen.refined:
            seen.append(together)
            survivors.append(packs)

    for packs in survivors:
        for _ in range(chosen.swaps):
            load = [sum(weight[i] for i in pack) for pack in packs]
            heavy = sorted(range(num_packs), key=lambda p: (-load[p], p))[: chosen.extremes]
            light = sorted(range(num_packs), key=lambda p: (load[p], p))[: chosen.extremes]
            best = (0, None)
            for a in heavy:
                for b in light:
                    for u in sorted(packs[a]):
                        for v in sorted(packs[b]):
                            d = weight[u] - weight[v]
                            gain = d * (load[a] - load[b] - d) if a != b else 0
                            if gain > best[0]:
                                best = (gain, (a, b, u, v))
            if best[1] is None:
                break
            a, b, u, v = best[1]
            packs[a][packs[a].index(u)], packs[b][packs[b].index(v)] = v, u
    return min(survivors, key=spread)


@settings(max_examples=60)
@given(instances())
def test_reference_is_the_strategy_written_down(instance):
    weight, num_packs, chosen, seed = instance
    weight = weight % 1000  # small enough that float64 holds every product the literal program compares
    noise = np.random.default_rng(seed).random((len(weight), chosen.restarts, weight.shape[1]))
    pack_index, rank_in_pack = reference.pack(weight, num_packs, chosen, noise=noise)
    for row in range(len(weight)):
        packs = literal(weight[row].tolist(), num_packs, chosen, noise[row].tolist())
        for number, members in enumerate(packs):
            assert pack_index[row, members].tolist() == [number] * len(members)
            assert rank_in_pack[row, members].tolist() == list(range(len(members)))


@settings(max_examples=100)
@given(instances(), st.integers(1, 4))
def test_numba_returns_the_plan_of_the_reference_on_any_number_of_threads(instance, threads):
    weight, num_packs, chosen, seed = instance
    key = counter.row_key(weight, seed)
    expected = reference.pack(weight, num_packs, chosen, key)
    assert_same(numba.pack(weight, num_packs, chosen, key, threads), expected)


@settings(max_examples=100)
@given(instances(), st.sampled_from([1, 30_000, 2**28]))
def test_torch_returns_the_plan_of_the_reference_in_any_memory(instance, memory_limit):
    weight, num_packs, chosen, seed = instance
    key = counter.row_key(weight, seed)
    expected = reference.pack(weight, num_packs, chosen, key)
    assert_same(torch_packing.pack(weight, num_packs, chosen, key, memory_limit=memory_limit), expected)


@pytest.mark.parametrize(("items", "num_packs"), [(288, 32), (288, 144), (72, 8), (30, 2)])
def test_numba_and_torch_agree_at_real_sizes(items, num_packs):
    weight = random_rows("distinct", (2, items), seed=1)
    chosen, key = Settings(restarts=256, refined=32), counter.row_key(weight, 0)
    expected = numba.pack(weight, num_packs, chosen, key, 2)
    assert_same(torch_packing.pack(torch.from_numpy(weight), num_packs, chosen, key), expected)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_counters_on_tensors_are_those_on_arrays(seed):
    weight = random_rows("distinct", (3, 40), seed=2)
    key = counter.row_key(weight, seed)
    on_tensor = counter_torch.row_key(torch.from_numpy(weight), seed)
    assert on_tensor.tolist() == key.tolist()
    restarts = np.array([0, 1, 77, 2**31 - 1])
    uniforms = counter_torch.uniforms(on_tensor, torch.from_numpy(restarts)[None, :], 40)
    np.testing.assert_array_equal(uniforms.numpy(), counter.uniforms(key, restarts, 40))


# Each case: kind of rows, rows, packs, room, (restarts, refined, noise, swaps, extremes), seed.
CASES = [
    ("distinct", 2, 4, 3, (6, 2, 0.2, 50, 4), 0),
    ("few values", 1, 3, 4, (8, 3, 0.2, 50, 2), 0),
    ("many ties", 1, 5, 2, (5, 9, 2.0, 50, 9), 1),
    ("equal", 1, 3, 2, (4, 2, 0.2, 50, 4), 0),
    ("zeros", 1, 4, 2, (3, 2, 0.2, 50, 4), 0),
    ("one heavy", 1, 4, 3, (4, 2, 0.2, 50, 4), 2),
    ("neighbours", 1, 3, 3, (6, 2, 0.2, 50, 1), 0),
    ("distinct", 1, 1, 5, (3, 2, 0.2, 50, 4), 0),
    ("distinct", 1, 6, 1, (3, 2, 0.2, 50, 4), 0),
    ("distinct", 1, 4, 2, (1, 64, 0.2, 50, 4), 0),
    ("distinct", 2, 3, 3, (6, 2, 0.0, 50, 4), 0),
    ("distinct", 1, 2, 6, (4, 2, 0.2, 0, 4), 0),
    ("distinct", 1, 37, 2, (33, 2, 0.2, 50, 4), 5),
    ("few values", 1, 37, 2, (1, 1, 2.0, 0, 4), 0),  # weights 0 and 1, whose keys are next to each other
]


def plans_elsewhere(backend, cases, folder, **environment):
    """Plans of ``backend`` from a fresh process with the given environment variables."""
    (folder / "cases").write_bytes(
        pickle.dumps(
            [
                (backend, random_rows(kind, (rows, packs * room), seed), packs, chosen, seed)
                for kind, rows, packs, room, chosen, seed in cases
            ]
        )
    )
    path = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-W", "error", str(WORKER), str(folder / "cases"), str(folder / "plans")],
        env={**os.environ, "PYTHONPATH": path, **environment},
        check=True,
        timeout=300,
    )
    return pickle.loads((folder / "plans").read_bytes())


def expected_plan(case):
    kind, rows, packs, room, chosen, seed = case
    weight = random_rows(kind, (rows, packs * room), seed)
    return reference.pack(weight, packs, Settings(*chosen), counter.row_key(weight, seed))


def names(cases):
    return [f"{kind}, {packs} x {room}" for kind, _, packs, room, *_ in cases]


@pytest.fixture(scope="module")
def interpreted_triton(tmp_path_factory):
    pytest.importorskip("triton", reason="triton is not installed")
    return plans_elsewhere("triton", CASES, tmp_path_factory.mktemp("triton"), TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def uncompiled_numba(tmp_path_factory):
    return plans_elsewhere("numba", CASES[:8], tmp_path_factory.mktemp("numba"), NUMBA_DISABLE_JIT="1")


@pytest.mark.parametrize("case", range(len(CASES)), ids=names(CASES))
def test_interpreted_triton_returns_the_plan_of_the_reference(interpreted_triton, case):
    assert_same(interpreted_triton[case], expected_plan(CASES[case]))


@pytest.mark.parametrize("case", range(8), ids=names(CASES[:8]))
def test_uncompiled_numba_returns_the_plan_of_the_reference(uncompiled_numba, case):
    assert_same(uncompiled_numba[case], expected_plan(CASES[case]))


@settings(max_examples=60)
@given(instances())
def test_no_step_makes_the_imbalance_worse(instance):
    weight, num_packs, chosen, seed = instance
    key = counter.row_key(weight, seed)

    def spread(**change):
        pack_index, _ = numba.pack(weight, num_packs, Settings(**{**vars(chosen), **change}), key, 1)
        load = np.stack([np.bincount(p, w, num_packs) for p, w in zip(pack_index, weight, strict=True)])
        return load.max(axis=1) - load.min(axis=1)

    greedy, pruned, refined = spread(restarts=1, refined=1, swaps=0), spread(swaps=0), spread()
    assert (pruned <= greedy).all()
    assert (refined <= pruned).all()


@settings(max_examples=40)
@given(instances())
def test_every_place_is_taken_once(instance):
    weight, num_packs, chosen, seed = instance
    pack_index, rank_in_pack = numba.pack(weight, num_packs, chosen, counter.row_key(weight, seed), 1)
    slot = pack_index * (weight.shape[1] // num_packs) + rank_in_pack
    assert (np.sort(slot, axis=1) == np.arange(weight.shape[1])).all()


def test_a_layer_is_planned_alike_wherever_it_stands():
    weight = random_rows("distinct", (3, 24), seed=4)
    chosen = Settings(restarts=64, refined=8)
    together = torch_packing.pack(weight, 4, chosen, counter.row_key(weight, 0))
    alone = torch_packing.pack(weight[2:], 4, chosen, counter.row_key(weight[2:], 0))
    assert_same([array[2:] for array in together], [array.numpy() for array in alone])


def test_no_global_random_state_is_read_or_written():
    weight = random_rows("distinct", (1, 24), seed=4)
    chosen, key = Settings(restarts=16), counter.row_key(weight, 0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = torch_packing.pack(weight, 4, chosen, key), numba.pack(weight, 4, chosen, key, 2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    torch.manual_seed(5)
    assert_same(torch_packing.pack(weight, 4, chosen, key), first[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not report peak memory so")
def test_memory_of_numba_does_not_grow_with_restarts():
    # VmHWM, not ru_maxrss: a process starts with the latter of its parent, which would hide all growth here.
    program = """
import numpy as np
from equipoise.restarts import counter
from equipoise.restarts import Settings, numba
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
weight = np.random.default_rng(0).integers(0, 2**40, (2, 48))
numba.pack(weight, 8, Settings(100), counter.row_key(weight, 0), 2)
few = peak()
numba.pack(weight, 8, Settings(50_000), counter.row_key(weight, 0), 2)
many = peak()
kept = np.ones((50_000, 48))
print(few, many, peak())
"""
    path = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    few, many, with_candidates = (int(word) for word in done.stdout.split())
    assert with_candidates - many > 10_000  # the measure sees what keeping the candidates of one layer would take
    assert many - few < 4_000


def test_triton_refuses_weights_elsewhere_and_sizes_beyond_the_chip():
    pytest.importorskip("triton", reason="triton is not installed")
    from equipoise.restarts import triton

    weight = torch.ones(1, 2048, dtype=torch.int64)
    key = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(InvalidInputError, match="2048 items in 2 packs are more than"):
        triton.pack(weight, 2, Settings(), key)
    if "TRITON_INTERPRET" not in os.environ:
        with pytest.raises(MissingDependencyError, match="needs a CUDA device, and the weights are on 'cpu'"):
            triton.pack(weight[:, :8], 2, Settings(), key)
