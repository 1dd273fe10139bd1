"""The same trace out of every kind of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import equipoise as eq
from equipoise.errors import FileFormatError, InvalidInputError
from equipoise.load import read_load
from equipoise.load.recorded_files import name_of, to_bytes

STEPS = np.random.default_rng(3).integers(0, 50, (7, 2, 6))


def counts(trace: eq.Trace) -> np.ndarray:
    return np.concatenate([np.asarray(piece.counts) for piece in trace.pieces()])


def long_csv(path: Path, header: str, with_step: bool = True) -> Path:
    lines = [
        ",".join(map(str, ((step,) if with_step else ()) + (layer, expert, STEPS[step, layer, expert])))
        for step, layer, expert in np.argwhere(STEPS > 0).tolist()
    ]
    path.write_text("\n".join([header, *reversed(lines)]) + "\n")
    return path


def npy(folder: Path) -> Path:
    np.save(folder / "t.npy", STEPS.astype(np.uint16))
    return folder / "t.npy"


def fortran(folder: Path) -> Path:
    np.save(folder / "t.npy", np.asfortranarray(STEPS))
    return folder / "t.npy"


def npz(folder: Path) -> Path:
    np.savez_compressed(folder / "t.npz", counts=STEPS, other=np.zeros(3))
    return folder / "t.npz"


def text(folder: Path) -> Path:
    return long_csv(folder / "t.csv", "step,layer,expert,count")


def stat_dumps(folder: Path) -> Path:
    for number, part in ((2, STEPS[:3]), (10, STEPS[3:])):
        document = {"rank": 0, "logical_count": torch.from_numpy(part.astype(np.int32))}
        torch.save(document, folder / f"expert_distribution_recorder_{number}.5.pt")
    return folder


def single_files(folder: Path) -> Path:
    for number, step in enumerate(STEPS):
        np.save(folder / f"window{number}.npy", step)
    return folder


def recorded(folder: Path) -> Path:
    for number, step in enumerate(STEPS):
        name = name_of(step.shape, 0, number)
        (folder / name).write_bytes(to_bytes(step.astype(float), None, (6, 1, 1, 2), number))
    return folder


KINDS = [npy, fortran, npz, text, stat_dumps, single_files, recorded]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_file_holds_the_same_steps(kind, tmp_path: Path) -> None:
    trace = eq.Trace.read(kind(tmp_path))
    assert (trace.num_steps, trace.num_layers, trace.num_logical_experts) == STEPS.shape
    assert np.array_equal(counts(trace), STEPS)
    assert np.array_equal(counts(trace), STEPS), "a trace can be gone through again"


def test_a_large_array_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.decode.numpy.AT_ONCE", 3 * STEPS[0].nbytes)
    np.save(tmp_path / "t.npy", STEPS)
    for path in (tmp_path / "t.npy", npz(tmp_path)):
        assert [len(piece.counts) for piece in eq.Trace.read(path).pieces()] == [3, 3, 1]


def test_csv_without_steps_is_one_step_and_names_may_stand_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("Num Tokens; Expert ID ;layer_idx\n5;1;3\n3;0;7\n")
    trace = eq.Trace.read(path)
    assert (counts(trace).tolist(), trace.layer_ids) == ([[[0, 5], [3, 0]]], (3, 7))


@pytest.mark.parametrize(("name", "shape"), [("rank{}", (1, 2, 6)), ("layer_{}", (2, 2, 6)), ("step_{}", (2, 2, 6))])
def test_a_folder_is_read_as_its_loads_are(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    for number in (0, 1):
        np.save(tmp_path / f"{name.format(number)}.npy", STEPS[:2, :1] if "layer" in name else STEPS[number])
    trace = eq.Trace.read(tmp_path)
    assert (counts(trace).shape, counts(trace).tolist()) == (shape, read_load(tmp_path).tokens_per_expert.tolist())


def test_layer_ids_beside_the_counts_of_a_trace_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", counts=STEPS, layer_ids=[3, 7])
    assert eq.Trace.read(tmp_path / "t.npz").layer_ids == (3, 7)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("0,0,x,3", "line 3, column 3 holds 'x'"),
        ("0,-1,0,3", "line 3, column 2 is -1"),
        ("0,0,0,nan", "line 3, column 4 is nan"),
        ("0,0,1", "line 3 has width 3"),
        ("0,0,0,2", "line 3 is a second line of layer 0, expert 0, step 0"),
        ("0,0,999999999,1", "names expert 999,999,999"),
    ],
)
def test_a_line_that_breaks_a_rule_is_named(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"step,layer,expert,count\n0,0,0,1\n{line}\n")
    with pytest.raises(FileFormatError, match=sentence):
        eq.Trace.read(path)


TOKENS = np.random.default_rng(5).integers(0, 6, (20, 2, 2)).astype(np.int16)
STEP = np.repeat([0, 3, 4], [8, 5, 7])


def of_tokens(ids: np.ndarray, step: np.ndarray) -> np.ndarray:
    found = [[np.bincount(ids[step == s, layer].ravel(), minlength=6) for layer in range(2)] for s in np.unique(step)]
    return np.array(found)


def test_tokens_are_counted_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.decode.numpy.AT_ONCE", 3 * TOKENS[0].nbytes)
    np.savez(tmp_path / "t.npz", routed_experts=TOKENS, step=STEP, num_experts=6)
    trace = eq.Trace.read(tmp_path / "t.npz")
    assert trace.experts_per_token == 2
    assert np.array_equal(counts(trace), of_tokens(TOKENS, STEP))
    seen = [each for piece in trace.pieces() for each in piece.tokens]
    assert [len(each) for each in seen] == [8, 5, 7]
    assert np.array_equal(np.concatenate(seen), TOKENS)


def test_tokens_of_equal_steps_need_only_their_number(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", TOKENS)
    trace = eq.Trace.read(tmp_path / "t.npy", tokens_per_step=8)
    assert np.array_equal(counts(trace), of_tokens(TOKENS, np.arange(20) // 8))
    np.savez(tmp_path / "t.npz", topk_ids=TOKENS)
    with pytest.raises(FileFormatError, match="does not say which tokens were in one step"):
        eq.Trace.read(tmp_path / "t.npz")


def test_dumps_of_two_models_in_one_folder_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", STEPS)
    np.save(tmp_path / "2.npy", STEPS[:, :1])
    with pytest.raises(FileFormatError, match=r"2.npy has 1 layers of 6 experts and .*1.npy has 2 of 6"):
        eq.Trace.read(tmp_path)


def test_a_negative_load_is_found_when_it_is_read(tmp_path: Path) -> None:
    bad = STEPS.astype(float)
    bad[4, 1, 2] = -1
    np.save(tmp_path / "t.npy", bad)
    with pytest.raises(InvalidInputError, match="step 4, layer 1, expert 2"):
        eq.replay(tmp_path / "t.npy", eq.Cluster(2, 3))


def test_a_trace_says_what_is_wrong_with_it() -> None:
    with pytest.raises(InvalidInputError, match="layer_ids"):
        eq.Trace(STEPS, layer_ids=[3, 3])
    with pytest.raises(InvalidInputError, match="times"):
        eq.Trace(STEPS, times=[3, 2, 1])
    with pytest.raises(InvalidInputError, match="phases"):
        eq.Trace(STEPS, phases=["rest"] * 7)
    with pytest.raises(InvalidInputError, match="experts holds"):
        list(eq.Trace.of_tokens([[[9]]], step=[0], num_logical_experts=4).pieces())
    with pytest.raises(InvalidInputError, match="ascending"):
        eq.Trace.of_tokens([[[1]], [[1]]], step=[1, 0])


def test_sglang_recordings_of_tokens_are_read_token_by_token(tmp_path: Path) -> None:
    table = np.array([[0, 1, 2, 3, 4, 5, 0, 1], [5, 4, 3, 2, 1, 0, 5, 5]])
    draw = np.random.default_rng(0)
    passes = {(forward, rank): draw.integers(-1, 8, (2, 3 + rank, 2)) for forward in (4, 7) for rank in (0, 1)}
    for rank in (0, 1):
        records = [
            {"forward_pass_id": forward, "rank": rank, "gatherer_key": "primary", "topk_ids_of_layer": torch.from_numpy(
                passes[forward, rank].astype(np.int32)), "global_physical_count": torch.zeros(2, 8, dtype=torch.int32)}
            for forward in (4, 7)
        ]  # fmt: skip
        document = {"records": records, "last_physical_to_logical_map": torch.from_numpy(table)}
        torch.save(document, tmp_path / f"expert_distribution_recorder_1.5_{rank}.pt")
    trace = eq.Trace.read(tmp_path)
    assert (trace.num_steps, trace.experts_per_token) == (2, 2)
    tokens = [each for piece in trace.pieces() for each in piece.tokens]
    for step, forward in enumerate((4, 7)):
        ids = np.concatenate([passes[forward, rank] for rank in (0, 1)], axis=1)
        expected = [
            [[table[layer, slot] if slot >= 0 else -1 for slot in ids[layer, token]] for layer in range(2)]
            for token in range(7)
        ]
        assert tokens[step].tolist() == expected
    assert eq.Trace.read(tmp_path / "expert_distribution_recorder_1.5_0.pt").num_steps == 2
