"""Placements as engines keep them: bytes written by hand from each format, both ways, and hostile files."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import numpy as np
import pytest

import equipoise as eq
from equipoise.engines.formats import PLACEMENT_FORMATS, find_placement_format, read_placement, save_placement
from equipoise.engines.layered import LayeredPlacement
from equipoise.errors import FileFormatError, InvalidInputError, MissingDependencyError, UnknownNameError

# Two MoE layers of four experts in six slots on two ranks; the model's layer 0 is dense.
TABLE = [[0, 1, 2, 0, 3, 1], [3, 2, 1, 0, 3, 1]]
PLACEMENT = LayeredPlacement(TABLE, (1, 2), 2)

SGLANG = b'{"physical_to_logical_map": [[0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 3, 1], [3, 2, 1, 0, 3, 1]]}\n'
TENSORRT_LLM = b"""\
num_slots: 6
initial_global_assignments:
  1: [0, 1, 2, 0, 3, 1]
  2: [3, 2, 1, 0, 3, 1]
layer_updates_per_iter: 0
"""
VLLM_ASCEND = (
    b'{"moe_layer_count": 2, "layer_list": ['
    b'{"layer_id": 0, "device_count": 2, "device_list": ['
    b'{"device_id": 0, "device_expert": [0, 1, 2]}, {"device_id": 1, "device_expert": [0, 3, 1]}]}, '
    b'{"layer_id": 1, "device_count": 2, "device_list": ['
    b'{"device_id": 0, "device_expert": [3, 2, 1]}, {"device_id": 1, "device_expert": [0, 3, 1]}]}]}\n'
)
_HEADER = b"{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2, 4), }"
OMNI_INFER = (
    b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + _HEADER.ljust(117) + b"\n"
    + struct.pack("<16i", *(1, 1, 1, 0), *(0, 1, 1, 1), *(1, 1, 0, 1), *(1, 1, 0, 1))
)  # fmt: skip
SAMPLES = {
    "sglang": ("map.json", SGLANG),
    "tensorrt-llm": ("balancer.yaml", TENSORRT_LLM),
    "vllm-ascend": ("map.json", VLLM_ASCEND),
    "omni-infer": ("pattern.npy", OMNI_INFER),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_placement_is_written_byte_for_byte_as_the_format_says(name, tmp_path):
    file, content = SAMPLES[name]
    save_placement(PLACEMENT, name, tmp_path / file)
    assert (tmp_path / file).read_bytes() == content


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_known_by_its_content_and_read_back(name, tmp_path):
    path = tmp_path / "whatever"
    path.write_bytes(SAMPLES[name][1])
    found = read_placement(path)
    expected = {
        "sglang": ([[0, 1, 2, 3, 0, 1], *TABLE], (0, 1, 2), None),
        "tensorrt-llm": (TABLE, (1, 2), None),
        "vllm-ascend": (TABLE, (0, 1), 2),
        "omni-infer": ([[0, 1, 2, 0, 1, 3], [1, 2, 3, 0, 1, 3]], (0, 1), 2),  # a pattern has no order
    }[name]
    assert (found.physical_to_logical.tolist(), found.layer_ids, found.num_ranks) == expected


def test_torch_files_hold_int64_maps_and_are_read_back(tmp_path):
    torch = pytest.importorskip("torch")
    save_placement(PLACEMENT, "sglang-pt", tmp_path / "map.pt")
    assert (
        torch.load(tmp_path / "map.pt")["physical_to_logical_map"].tolist()
        == json.loads(SGLANG)["physical_to_logical_map"]
    )
    assert read_placement(tmp_path / "map.pt").layer_ids == (0, 1, 2)

    save_placement(PLACEMENT, "deepseek", tmp_path / "maps")
    maps = torch.load(tmp_path / "maps")
    assert {key: (x.dtype, x.tolist()) for key, x in maps.items()} == {
        "physical_to_logical_map": (torch.int64, TABLE),
        "logical_to_physical_map": (
            torch.int64,
            [[[0, 3], [1, 5], [2, -1], [4, -1]], [[3, -1], [2, 5], [1, -1], [0, 4]]],
        ),
        "expert_count": (torch.int64, [[2, 2, 1, 1], [1, 2, 1, 2]]),
    }  # fmt: skip
    assert read_placement(tmp_path / "maps").physical_to_logical.tolist() == TABLE
    maps["logical_to_physical_map"] = maps["logical_to_physical_map"].flip(-1)  # any order of replicas is one
    torch.save(maps, tmp_path / "maps")
    assert read_placement(tmp_path / "maps").physical_to_logical.tolist() == TABLE


@pytest.mark.parametrize("change", ["no count", "extra", "count", "places"])
def test_three_tensors_that_contradict_each_other_are_refused(change, tmp_path):
    torch = pytest.importorskip("torch")
    save_placement(PLACEMENT, "deepseek", tmp_path / "maps")
    maps = torch.load(tmp_path / "maps")
    if change == "no count":
        del maps["expert_count"]
    elif change == "extra":
        maps["rank"] = torch.zeros(1)
    elif change == "count":
        maps["expert_count"][0, 0] = 1
    else:
        maps["logical_to_physical_map"][0, 0, 0] = 5
    torch.save(maps, tmp_path / "maps")
    with pytest.raises(FileFormatError, match=r"it must have|does not"):
        read_placement(tmp_path / "maps")


def test_a_plan_is_read_as_a_placement_and_a_load_as_none(tmp_path):
    plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(2, 3)))
    plan.save(tmp_path / "plan.json")
    found = read_placement(tmp_path / "plan.json")
    assert found.num_ranks == 2
    assert np.array_equal(found.physical_to_logical, plan.placement.physical_to_logical)
    for name, content in (("a", '{"logical_count": [[1, 2]]}'), ("b", "[[1, 2]]"), ("c", "1,2\n3,4\n")):
        (tmp_path / name).write_text(content)
        assert read_placement(tmp_path / name) is None
    assert read_placement(tmp_path) is None


def edited(sample, edit):
    document = json.loads(sample)
    edit(document)
    return json.dumps(document).encode()


HOSTILE = {
    "sglang: another key": (edited(SGLANG, lambda d: d.update(rank=0)), "has the key 'rank' beside"),
    "sglang: a ragged map": (edited(SGLANG, lambda d: d["physical_to_logical_map"][1].pop()), "is ragged"),
    "sglang: a fraction": (b'{"physical_to_logical_map": [[0.5, 1]]}', "must hold integers"),
    "sglang: an expert nowhere": (b'{"physical_to_logical_map": [[0, 2]]}', "no slot for expert 1"),
    "sglang: an empty slot": (b'{"physical_to_logical_map": [[0, -1]]}', "slot 1 holds -1"),
    "sglang: a huge number": (b'{"physical_to_logical_map": [[0, 99999999999999999999]]}', "must hold integers"),
    "sglang: truncated": (SGLANG[:40], "truncated"),
    "ascend: no count": (edited(VLLM_ASCEND, lambda d: d.pop("moe_layer_count")), "moe_layer_count is None"),
    "ascend: a wrong count": (edited(VLLM_ASCEND, lambda d: d.update(moe_layer_count=3)), "the list holds 2"),
    "ascend: a wrong count of devices": (
        edited(VLLM_ASCEND, lambda d: d["layer_list"][1].update(device_count=3)),
        "layer 1: device_count is 3, and the list holds 2",
    ),
    "ascend: no experts": (
        edited(VLLM_ASCEND, lambda d: d["layer_list"][0]["device_list"][1].pop("device_expert")),
        "device 1 must have",
    ),
    "ascend: uneven devices": (
        edited(VLLM_ASCEND, lambda d: d["layer_list"][0]["device_list"][1]["device_expert"].pop()),
        "every device as many experts",
    ),
    "ascend: a string": (
        edited(VLLM_ASCEND, lambda d: d["layer_list"][0]["device_list"][1].update(device_expert=["1", 2, 3])),
        "a list device_expert of experts",
    ),
    "ascend: no layers": (edited(VLLM_ASCEND, lambda d: d.update(layer_list=[], moe_layer_count=0)), "at least 1"),
    "trt: another key": (TENSORRT_LLM + b"ep_size: 2\n", "has the key 'ep_size'"),
    "trt: no slots": (TENSORRT_LLM.replace(b"num_slots: 6\n", b""), "num_slots is None"),
    "trt: a short row": (TENSORRT_LLM.replace(b"[0, 1, 2, 0, 3, 1]", b"[0, 1, 2]"), "layer 1 must list 6 experts"),
    "trt: a layer with a name": (TENSORRT_LLM.replace(b"  1:", b"  one:"), "'one' is no layer id"),
    "trt: not YAML": (TENSORRT_LLM.replace(b"[0, 1", b"[[0, 1"), "is not YAML"),
    "trt: code": (TENSORRT_LLM + b"x: !!python/object/apply:os.system [exit]\n", "is not YAML of plain values"),
    "trt: no table": (b"num_slots: 6\ninitial_global_assignments:\n", "must map each layer id"),
    "omni: uneven": (OMNI_INFER[:-4] + struct.pack("<i", 0), "holds 2 experts of layer 1"),
    "omni: truncated": (OMNI_INFER[:-3], "truncated"),
}  # fmt: skip


def bare(document):
    for layer in document["layer_list"]:
        del layer["layer_id"], layer["device_count"]
        for device in layer["device_list"]:
            del device["device_id"]


@pytest.mark.parametrize(
    ("edit", "ids"),
    [
        (bare, (0, 1)),
        (lambda d: [layer.update(layer_id=3 + 2 * i) for i, layer in enumerate(d["layer_list"])], (3, 5)),
        (lambda d: [layer.update(layer_id=7) for layer in d["layer_list"]], (0, 1)),
        (lambda d: d["layer_list"][0]["device_list"][0].update(device_id=1), (0, 1)),
    ],
    ids=["no ids", "the model's ids", "one id for all", "a device's id twice"],
)
def test_an_expert_map_is_read_by_position_as_the_engine_reads_it(edit, ids, tmp_path):
    (tmp_path / "whole").write_bytes(VLLM_ASCEND)
    (tmp_path / "edited").write_bytes(edited(VLLM_ASCEND, edit))
    whole, found = read_placement(tmp_path / "whole"), read_placement(tmp_path / "edited")
    assert found.physical_to_logical.tolist() == whole.physical_to_logical.tolist()
    assert (found.num_ranks, found.layer_ids) == (whole.num_ranks, ids)


def test_a_balancer_is_found_in_the_options_that_it_is_usually_written_in(tmp_path):
    (tmp_path / "alone").write_bytes(TENSORRT_LLM)
    inner = TENSORRT_LLM.decode().replace("\n", "\n    ").rstrip()
    (tmp_path / "options").write_text(f"backend: pytorch\nmoe_config:\n  load_balancer:\n    {inner}\n")
    alone, found = read_placement(tmp_path / "alone"), read_placement(tmp_path / "options")
    assert found.physical_to_logical.tolist() == alone.physical_to_logical.tolist()
    assert found.layer_ids == alone.layer_ids


def test_draft_layers_follow_the_last_one_with_experts_in_order():
    held = LayeredPlacement(np.array([[1, 0, 2, 1]]), (7,), 2).with_draft_layers(2)
    assert held.layer_ids == (7, 8, 9)
    assert held.physical_to_logical.tolist() == [[1, 0, 2, 1], [0, 1, 2, 0], [0, 1, 2, 0]]


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_file_gets_one_sentence_that_names_it(case, tmp_path):
    content, sentence = HOSTILE[case]
    path = tmp_path / "hostile"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=sentence) as caught:
        read_placement(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_cut_anywhere_is_refused_or_is_no_placement(name, tmp_path):
    content = SAMPLES[name][1]
    path = tmp_path / "cut"
    for length in range(len(content) - 2):
        path.write_bytes(content[:length])
        with suppress(FileFormatError):
            found = read_placement(path)
            assert found is None or name == "tensorrt-llm"  # YAML cut after a whole row is YAML


def test_what_a_format_cannot_express_is_refused_with_the_reason(tmp_path):
    twice = LayeredPlacement([[0, 0, 1, 2]], (0,), 2, "the plan")
    for name, file in (("vllm-ascend", "map.json"), ("omni-infer", "map.npy")):
        with pytest.raises(InvalidInputError, match="the plan: layer 0, rank 0 holds expert 0 twice"):
            save_placement(twice, name, tmp_path / file)
        with pytest.raises(InvalidInputError, match="does not say how many ranks its 6 slots are on"):
            save_placement(LayeredPlacement(TABLE, (0, 1)), name, tmp_path / file)
    with pytest.raises(InvalidInputError, match=r"must end in \.json for sglang"):
        save_placement(PLACEMENT, "sglang", tmp_path / "map.txt")
    for name, reason in (
        ("vllm", "set EQUIPOISE_VLLM_PLAN to the plan itself"),
        ("lmdeploy", "holds no placement"),
        ("sglang-per-token", "the experts of every token"),
        ("nowhere", "it must be one of"),
    ):
        with pytest.raises(UnknownNameError, match=reason):
            find_placement_format(name)
    assert not list(tmp_path.iterdir())


def test_ranks_are_named_once():
    assert LayeredPlacement(TABLE, (0, 1)).with_ranks(3).num_ranks == 3
    with pytest.raises(InvalidInputError, match="is for 2 ranks, not 3"):
        PLACEMENT.with_ranks(3)
    with pytest.raises(InvalidInputError, match="do not spread evenly over 4 ranks"):
        LayeredPlacement(TABLE, (0, 1)).with_ranks(4)


def test_without_the_package_that_reads_it_a_file_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    (tmp_path / "balancer.yaml").write_bytes(TENSORRT_LLM)
    with pytest.raises(MissingDependencyError, match=r"pip install equipoise\[engines\]"):
        read_placement(tmp_path / "balancer.yaml")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    for name in ("sglang-pt", "deepseek"):
        with pytest.raises(MissingDependencyError, match=r"pip install equipoise\[torch\]"):
            save_placement(PLACEMENT, name, tmp_path / "map.pt")


def test_every_format_reads_what_it_writes(tmp_path):
    pytest.importorskip("torch")
    straight = LayeredPlacement([[0, 1, 2, 0, 1, 3]], (0,), 2)
    for row in PLACEMENT_FORMATS.values():
        path = tmp_path / f"file{(*row.suffixes, '')[0]}"
        save_placement(straight, row.name, path)
        assert read_placement(path).physical_to_logical.tolist() == straight.physical_to_logical.tolist()


def test_hygons_file_has_the_share_of_each_slot_and_even_ones_for_layers_without(tmp_path):
    torch = pytest.importorskip("torch")
    shares = [[0.75, 0.5, 1, 0.25, 1, 0.5], [0.4, 1, 0.5, 1, 0.6, 0.5]]
    for given, asked in ((None, [[0.5, 0.5, 1, 0.5, 1, 0.5], [0.5, 1, 0.5, 1, 0.5, 0.5]]), (shares, shares)):
        save_placement(LayeredPlacement(TABLE, (1, 2), 2, shares=given), "hygon", tmp_path / "map.pt")
        found = torch.load(tmp_path / "map.pt", weights_only=True)
        assert set(found) == {"physical_to_logical_map", "physical_mass"}
        assert found["physical_to_logical_map"].tolist() == [[0, 1, 2, 3, 0, 1], *TABLE]
        mass = found["physical_mass"].numpy()
        assert mass == pytest.approx(np.array([[0.5, 0.5, 1, 1, 0.5, 0.5], *asked]), abs=1e-6)
        assert (
            read_placement(tmp_path / "map.pt").physical_to_logical.tolist()
            == found["physical_to_logical_map"].tolist()
        )


def test_shares_of_a_plan_go_with_its_layers(tmp_path):
    plan = eq.solve(eq.PlacementProblem([[4, 2, 1, 1], [6, 1, 1, 1]], eq.Cluster(2, 3)), shares="best")
    layered = LayeredPlacement.of_plan(plan)
    assert layered.shares.tolist() == plan.shares.values.tolist()
    assert layered.select(np.array([False, True])).shares.tolist() == plan.shares.values[1:].tolist()
    assert layered.with_draft_layers(1).shares[-1].sum() == 4
    with pytest.raises(InvalidInputError, match="sum to"):
        LayeredPlacement(TABLE, (1, 2), 2, shares=[[1.0] * 6] * 2)
