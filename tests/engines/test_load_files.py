"""Loads as engines keep them: samples written by hand, both ways, and hostile dumps."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from equipoise.engines.formats import find_load_format, save_load
from equipoise.errors import FileFormatError, InvalidInputError, MissingDependencyError, UnknownNameError
from equipoise.load import LoadStatistics, read_load

# Two windows, two MoE layers of three experts; the model's layer 0 is dense.
LOAD = LoadStatistics([[[5, 3, 0], [1, 1, 9]], [[2, 0, 4], [0, 7, 0]]], layer_ids=(1, 2))


def tensors(*named):
    """Return the bytes of a safetensors file of int64 vectors, as its description lays them out."""
    header, data = {}, b""
    for name, values in named:
        raw = struct.pack(f"<{len(values)}q", *values)
        header[name] = {"dtype": "I64", "shape": [len(values)], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


META = b'{"num_experts": 3, "num_experts_per_token": 2}\n'
RANK0 = tensors(("0_1", [5, 3, 0]), ("0_2", [1, 1, 9]), ("1_1", [2, 0, 4]), ("1_2", [0, 7, 0]))


def same(a, b):
    return np.array_equal(a.tokens_per_expert, b.tokens_per_expert) and a.layer_ids == b.layer_ids


def folder(path, **files):
    path.mkdir()
    for name, content in files.items():
        (path / name.replace("_", ".", 1)).write_bytes(content)
    return path


def statistics(path, *ranks, meta=META):
    path.mkdir()
    (path / "meta_info.json").write_bytes(meta)
    for rank, content in enumerate(ranks):
        (path / f"rank{rank}.safetensors").write_bytes(content)
    return path


def test_counts_are_json_with_a_row_of_zeros_for_each_dense_layer(tmp_path):
    save_load(LOAD, "sglang-count", tmp_path / "counts.json")
    sample = b'{"logical_count": [[[0, 0, 0], [5, 3, 0], [1, 1, 9]], [[0, 0, 0], [2, 0, 4], [0, 7, 0]]]}\n'
    assert (tmp_path / "counts.json").read_bytes() == sample
    assert read_load(tmp_path / "counts.json").load.tolist() == [[0, 0, 0], [7, 3, 4], [1, 8, 9]]
    save_load(LOAD.window(0), "sglang-count", tmp_path / "counts.json")
    assert (tmp_path / "counts.json").read_bytes() == b'{"logical_count": [[0, 0, 0], [5, 3, 0], [1, 1, 9]]}\n'


def test_lmdeploy_statistics_are_a_json_list_of_every_layer(tmp_path):
    save_load(LOAD, "lmdeploy", tmp_path / "statistics")
    assert (tmp_path / "statistics").read_bytes() == b"[[0, 0, 0], [7, 3, 4], [1, 8, 9]]\n"
    assert read_load(tmp_path / "statistics").load.tolist() == [[0, 0, 0], [7, 3, 4], [1, 8, 9]]


def test_tensorrt_llm_statistics_are_a_folder_with_the_models_layer_ids(tmp_path):
    pytest.importorskip("safetensors")
    save_load(LOAD, "tensorrt-llm-statistics", tmp_path / "statistics", experts_per_token=2)
    assert {file.name: file.read_bytes() for file in (tmp_path / "statistics").iterdir()} == {
        "meta_info.json": META,
        "rank0.safetensors": RANK0,
    }
    assert same(read_load(tmp_path / "statistics"), LOAD)


def test_tensorrt_llm_ranks_are_summed_and_raw_files_passed_over(tmp_path):
    pytest.importorskip("safetensors")
    path = statistics(tmp_path / "statistics", RANK0, RANK0)
    (path / "rank0_raw.safetensors").write_bytes(b"token by token")
    found = read_load(path)
    assert np.array_equal(found.tokens_per_expert, 2 * LOAD.tokens_per_expert)
    assert found.layer_ids == (1, 2)


TENSORRT_LLM = {
    "no experts": ((RANK0,), b"{}", "num_experts is None"),
    "a wrong number of experts": (
        (RANK0,),
        META.replace(b'"num_experts": 3', b'"num_experts": 4'),
        "must hold 4 counts",
    ),
    "a description cut short": ((RANK0,), META[:20], "truncated"),
    "truncated": ((RANK0[:-5],), META, "truncated or damaged"),
    "an empty file": ((b"",), META, "truncated or damaged"),
    "rubbish": ((b"\xff" * 64,), META, "truncated or damaged"),
    "another key": ((tensors(("0_1", [1, 2, 3]), ("total", [1, 2, 3])),), META, "has the key 'total'"),
    "negative": ((tensors(("0_1", [1, 2, -3])),), META, "must hold 3 counts"),
    "a hole": ((tensors(("0_1", [1, 2, 3]), ("0_2", [1, 2, 3]), ("1_1", [1, 2, 3])),), META, "no counts under '1_2'"),
    "ranks that differ": ((RANK0, tensors(("0_1", [1, 2, 3]))), META, "do not both hold '0_2'"),
    "nothing": ((tensors(),), META, "holds no counts"),
    "no rank": ((), META, "needs rank0.safetensors"),
}


@pytest.mark.parametrize("case", TENSORRT_LLM)
def test_a_bad_statistics_folder_gets_one_sentence_that_names_it(case, tmp_path):
    pytest.importorskip("safetensors")
    ranks, meta, sentence = TENSORRT_LLM[case]
    path = statistics(tmp_path / "statistics", *ranks, meta=meta)
    with pytest.raises(FileFormatError, match=sentence) as caught:
        read_load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_types_in_statistics_are_refused(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    path = statistics(tmp_path / "statistics", numpy.save({"0_1": np.ones(3, dtype=np.float32)}))
    with pytest.raises(FileFormatError, match="type float32; it must hold 3 counts"):
        read_load(path)


def test_without_safetensors_a_folder_is_read_and_none_is_written(monkeypatch, tmp_path):
    path = statistics(tmp_path / "statistics", RANK0)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    assert read_load(path).num_layers == 2
    with pytest.raises(MissingDependencyError, match=r"pip install equipoise\[engines\]"):
        save_load(LOAD, "tensorrt-llm-statistics", tmp_path / "other", experts_per_token=2)


def recording(torch, rank=0, passes=(7, 8), **changes):
    """Return what one rank records: four slots for three experts, expert 0 twice."""
    table = torch.tensor([[0, 1, 2, 0], [2, 1, 0, 0]])
    records = [
        {
            "forward_pass_id": i,
            "rank": rank,
            "gatherer_key": "primary",
            "global_physical_count": torch.tensor([[1, 2, 3, 4], [i, 0, 0, rank]], dtype=torch.int32),
        }
        for i in passes
    ]
    return {"records": records, "last_physical_to_logical_map": table, **changes}


def test_a_stat_dump_is_read_and_written(tmp_path):
    torch = pytest.importorskip("torch")
    save_load(LOAD, "sglang-stat", tmp_path / "dump.pt")
    dump = torch.load(tmp_path / "dump.pt")
    assert list(dump) == ["rank", "logical_count", "average_utilization_rate_over_window"]
    assert dump["logical_count"].dtype == torch.int32
    assert dump["logical_count"].tolist() == [[[0, 0, 0], [5, 3, 0], [1, 1, 9]], [[0, 0, 0], [2, 0, 4], [0, 7, 0]]]
    assert (dump["rank"], dump["average_utilization_rate_over_window"]) == (0, None)
    assert read_load(tmp_path / "dump.pt").num_windows == 2
    first = (tmp_path / "dump.pt").read_bytes()
    save_load(LOAD, "sglang-stat", tmp_path / "dump.pt")
    assert (tmp_path / "dump.pt").read_bytes() == first


def test_a_per_pass_dump_is_written_and_read_back(tmp_path):
    torch = pytest.importorskip("torch")
    save_load(LOAD, "sglang-per-pass", tmp_path / "dump.pt")
    dump = torch.load(tmp_path / "dump.pt")
    assert dump["last_physical_to_logical_map"].tolist() == [[0, 1, 2]] * 3
    assert list(dump["records"][1]) == ["forward_pass_id", "rank", "gatherer_key", "global_physical_count"]
    assert dump["records"][1]["global_physical_count"].tolist() == [[0, 0, 0], [2, 0, 4], [0, 7, 0]]
    assert read_load(tmp_path / "dump.pt").tokens_per_expert[:, 1:].tolist() == LOAD.tokens_per_expert.tolist()


def test_counts_by_slot_become_counts_by_expert_summed_over_ranks(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(recording(torch, 0), tmp_path / "time_0.pt")
    assert read_load(tmp_path / "time_0.pt").tokens_per_expert.tolist() == [
        [[5, 2, 3], [0, 0, 7]],
        [[5, 2, 3], [0, 0, 8]],
    ]
    torch.save(recording(torch, 1, passes=(8, 9)), tmp_path / "time_1.pt")
    assert read_load(tmp_path).tokens_per_expert.tolist() == [
        [[5, 2, 3], [0, 0, 7]],
        [[10, 4, 6], [1, 0, 16]],
        [[5, 2, 3], [1, 0, 9]],
    ]


def test_a_per_token_dump_is_read_by_its_counts(tmp_path):
    torch = pytest.importorskip("torch")
    dump = recording(torch)
    for record in dump["records"]:
        record.update(input_ids=[1, 2], topk_ids_of_layer=torch.zeros(2, 2, 8, dtype=torch.int32), misc_objects=[])
    dump["records"].append({"gatherer_key": "debug"})  # another gatherer's counts are not added
    torch.save(dump, tmp_path / "dump.pt")
    assert read_load(tmp_path / "dump.pt").tokens_per_expert[0].tolist() == [[5, 2, 3], [0, 0, 7]]


def broken(name):
    def change(torch, dump):
        record = dump["records"][0]
        {
            "no map": lambda: dump.pop("last_physical_to_logical_map"),
            "an empty slot": lambda: dump["last_physical_to_logical_map"].__setitem__((0, 0), -1),
            "a map of fractions": lambda: dump.update(last_physical_to_logical_map=torch.ones(2, 4)),
            "no records": lambda: dump.update(records=[]),
            "records of numbers": lambda: dump.update(records=[1]),
            "no counts": lambda: record.pop("global_physical_count"),
            "counts of another shape": lambda: record.update(global_physical_count=torch.ones(2, 3, dtype=torch.int32)),
            "counts of fractions": lambda: record.update(global_physical_count=torch.ones(2, 4)),
            "no pass": lambda: record.pop("forward_pass_id"),
            "a pass twice": lambda: dump["records"].append(dict(record)),
            "words for counts": lambda: record.update(global_physical_count="many"),
        }[name]()

    return change


BROKEN = {
    "no map": "has no 'last_physical_to_logical_map'",
    "an empty slot": "must hold the expert of each slot",
    "a map of fractions": "must hold the expert of each slot",
    "no records": "holds no record",
    "records of numbers": "must be a list of objects",
    "no counts": "record 0 has no 'global_physical_count'",
    "counts of another shape": r"in the shape of the placement, \(2, 4\)",
    "counts of fractions": "it must hold counts",
    "no pass": "forward_pass_id is None",
    "a pass twice": "repeats forward pass 7 of rank 0",
    "words for counts": "must hold integers or floats",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_recording_gets_one_sentence_that_names_it(case, tmp_path):
    torch = pytest.importorskip("torch")
    dump = recording(torch)
    broken(case)(torch, dump)
    torch.save(dump, tmp_path / "dump.pt")
    with pytest.raises(FileFormatError, match=BROKEN[case]) as caught:
        read_load(tmp_path / "dump.pt")
    assert str(tmp_path) in str(caught.value)


def test_a_folder_of_something_else_or_of_two_recordings_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(recording(torch, 0), tmp_path / "a.pt")
    moved = recording(torch, 1)
    moved["last_physical_to_logical_map"][0, 3] = 1
    torch.save(moved, tmp_path / "b.pt")
    with pytest.raises(FileFormatError, match="end with different placements"):
        read_load(tmp_path)
    torch.save(torch.zeros(2), tmp_path / "b.pt")
    with pytest.raises(FileFormatError, match="holds neither 'records' nor 'logical_count'"):
        read_load(tmp_path)
    with pytest.raises(FileFormatError, match="leave out key='x'"):
        read_load(tmp_path, key="x")


def test_a_tensor_of_weights_is_read_and_written(tmp_path):
    torch = pytest.importorskip("torch")
    save_load(LOAD, "deepseek-load", tmp_path / "weight.pt")
    assert torch.load(tmp_path / "weight.pt").tolist() == [[7, 3, 4], [1, 8, 9]]
    assert read_load(tmp_path / "weight.pt").load.tolist() == [[7, 3, 4], [1, 8, 9]]


def test_what_a_format_cannot_express_is_refused_with_the_reason(tmp_path):
    half = LoadStatistics([[0.5, 1.0]])
    big = LoadStatistics([[2.0**31, 1.0]])
    with pytest.raises(InvalidInputError, match=r"expert 0 holds 0\.5; SGLang's recordings hold whole numbers"):
        save_load(half, "sglang-stat", tmp_path / "x")
    with pytest.raises(InvalidInputError, match="up to 2147483647"):
        save_load(big, "sglang-per-pass", tmp_path / "x")
    with pytest.raises(InvalidInputError, match="also says experts_per_token"):
        save_load(LOAD, "tensorrt-llm-statistics", tmp_path / "x")
    with pytest.raises(InvalidInputError, match="file exists"):
        save_load(LOAD, "tensorrt-llm-statistics", tmp_path, experts_per_token=2)
    with pytest.raises(UnknownNameError, match="holds no load"):
        find_load_format("omni-infer")
    with pytest.raises(UnknownNameError, match="the experts of every token"):
        find_load_format("sglang-per-token")
    assert not list(tmp_path.iterdir())


def test_a_layer_far_away_is_not_filled_up_to_in_every_window(tmp_path):
    far = LoadStatistics(np.ones((1000, 1, 256)), layer_ids=(60_000,))  # 2 MB, and 123 GB with all layers
    with pytest.raises(InvalidInputError, match="60001 layers"):
        save_load(far, "sglang-count", tmp_path / "x.json")
