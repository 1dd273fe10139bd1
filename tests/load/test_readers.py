from __future__ import annotations

import importlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.errors import FileFormatError
from equipoise.load import numpy_files, read_load
from load_files import BAD, COUNTS, GOOD, STEPS, text
from made_files import npz, pt
from made_files import saved as npy
from real_loads import real_load


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(content: bytes) -> Path:
        path = tmp_path / "loads"  # no extension: content alone decides
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD.keys())
def test_the_same_counts_come_out_of_every_format(file: Any, content: bytes) -> None:
    path = file(content)
    load = read_load(path)
    assert load.load.tolist() == COUNTS.tolist()
    assert (load.num_windows, load.empty_layers, load.source) == (1, (1,), str(path))


@pytest.mark.parametrize(
    "content",
    [npy(STEPS), npz(a=STEPS), text(STEPS.tolist()), text({"logical_count": STEPS.tolist()}), pt(torch.tensor(STEPS))],
    ids=["npy", "npz", "JSON list", "JSON object", "torch"],
)
def test_steps_become_windows(file: Any, content: bytes) -> None:
    assert read_load(file(content)).tokens_per_expert.tolist() == STEPS.tolist()


@pytest.mark.parametrize("extension", ["npy", "npz", "json", "csv", "pt", "txt"])
def test_the_extension_decides_nothing(tmp_path: Path, extension: str) -> None:
    for i, content in enumerate(GOOD.values()):
        path = tmp_path / f"{i}.{extension}"
        path.write_bytes(content)
        assert read_load(str(path)).load.tolist() == COUNTS.tolist()


@pytest.mark.parametrize(
    "content",
    [
        npz(a=COUNTS, b=STEPS),
        text({"a": COUNTS.tolist(), "b": 1}),
        pt({"a": torch.tensor(COUNTS), "logical_count": torch.ones(1)}),
    ],
    ids=["npz", "JSON", "torch"],
)
def test_a_key_chooses_among_several(file: Any, content: bytes) -> None:
    assert read_load(file(content), key="a").load.tolist() == COUNTS.tolist()


@pytest.mark.parametrize(("content", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_gets_one_sentence_that_names_it(file: Any, content: bytes, sentence: str) -> None:
    path = file(content)
    with pytest.raises(FileFormatError, match=sentence) as caught:
        read_load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (GOOD["npy"], "holds one array without keys; leave out key='a'"),
        (GOOD["CSV"], "leave out key='a'"),
        (GOOD["JSON list"], "leave out key='a'"),
        (GOOD["torch tensor"], "leave out key='a'"),
        (GOOD["JSON object"], "has no key 'a'; its keys are 'logical_count', 'rank'"),
        (GOOD["npz with one array"], "has no key 'a'; its keys are 'anything'"),
    ],
)
def test_a_key_that_is_not_there_is_refused(file: Any, content: bytes, sentence: str) -> None:
    with pytest.raises(FileFormatError, match=sentence):
        read_load(file(content), key="a")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.json", "missing.json does not exist"),
        ("folder", "is a folder; name a file in it"),
        ("pipe", "is not an ordinary file"),
        ("loop", "loop"),
        ("a\0b", "cannot be read|does not exist"),
        ("x" * 300, "cannot be read: file name too long"),
    ],
)
def test_a_path_that_is_no_file_gets_a_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileFormatError, match=sentence):
        read_load(tmp_path / name)


def test_a_file_that_may_not_be_read_gets_a_sentence(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = file(GOOD["npy"])
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileFormatError, match="loads' cannot be read: permission denied"):
        read_load(path)


@pytest.mark.parametrize("name", ["npz compressed", "torch dict", "torch legacy tensor", "torch bfloat16"])
def test_a_load_is_read_without_importing_torch(file: Any, name: str) -> None:
    program = "import sys; from equipoise.load import read_load; read_load(sys.argv[1]); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(file(GOOD[name]))]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_pickle_is_never_run(file: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return importlib.import_module, ("this_module_must_not_be_imported",)

    bomb = np.array([[Bomb()]])
    for content in (pickle.dumps(Bomb()), npy(bomb), npz(load=bomb), pt({"load": Bomb()}), pt(Bomb(), legacy=True)):
        with pytest.raises(FileFormatError):  # running it would raise ModuleNotFoundError
            read_load(file(content))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "loads"


SAMPLES = [
    GOOD[name]
    for name in (
        "npy", "npz with one array", "npz compressed", "JSON object", "CSV with a header", "torch dict",
        "torch legacy dict",
    )
]  # fmt: skip


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=150)
def test_a_truncated_file_is_refused_or_read_whole_rows_only(scratch: Path, content: bytes, data: Any) -> None:
    """CSV cut between lines is a valid shorter CSV; everything else must be refused."""
    scratch.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    try:
        load = read_load(scratch)
    except FileFormatError:
        return
    assert content == GOOD["CSV with a header"]
    assert load.load.tolist()[:-1] == COUNTS.tolist()[: load.num_layers - 1]


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=300)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(scratch: Path, content: bytes, data: Any) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    scratch.write_bytes(bytes(damaged))
    try:
        load = read_load(scratch)
    except FileFormatError:
        return
    assert np.isfinite(load.load).all()


@pytest.mark.parametrize("name", ["deepseek_v3_prefill_in1024.json", "deepseek_v3_decode_in1000out1000.json"])
def test_recorded_deepseek_loads_keep_their_three_dense_layers(name: str) -> None:
    load = read_load(real_load(name))
    assert load.tokens_per_expert.shape == (1, 61, 256)
    assert load.empty_layers == (0, 1, 2)
    assert np.ptp(load.tokens_per_layer[3:]) == 0  # every layer routes every token


def test_recorded_steps_of_gpt_oss_become_windows() -> None:
    assert read_load(real_load("gpt_oss_20b_steps.npz")).tokens_per_expert.shape == (3152, 24, 32)


def test_a_file_of_several_recordings_needs_a_key() -> None:
    path = real_load("deepseek_v2_lite_windows.npz")
    with pytest.raises(FileFormatError, match="'intent', 'law', 'summary', 'translation'"):
        read_load(path)
    assert read_load(path, key="summary").tokens_per_expert.shape == (33, 26, 64)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (STEPS, None),
        (COUNTS, None),
        (np.asfortranarray(STEPS), None),
        (np.where(STEPS == 8, -8, STEPS), "is -8.0 at step 1, layer 2, expert 2"),
        (np.where(COUNTS == 4, np.nan, COUNTS), "is nan at layer 2, expert 2"),
        (np.full((2, 3, 2), 1e308), "of layer 0 sums to more than float64 can hold"),
        (np.array([[1, 2], [1e308, 1e308]]), "of layer 1 sums to more than float64 can hold"),
        (np.ones((1, 1, 1, 1)), r"shape \(1, 1, 1, 1\)"),
    ],
)
def test_a_large_array_is_looked_through_in_parts_before_it_is_read(
    file: Any, monkeypatch: pytest.MonkeyPatch, array: Any, sentence: str | None
) -> None:
    monkeypatch.setattr("equipoise.decode.numpy.LARGE", 0)
    monkeypatch.setattr("equipoise.decode.numpy.AT_ONCE", 1)  # a row at a time
    whole = []
    read = numpy_files.decode_npy
    monkeypatch.setattr(numpy_files, "decode_npy", lambda *asked: whole.append(read(*asked)) or whole[0])
    if sentence is None:
        assert read_load(file(npy(array))).tokens_per_expert.reshape(array.shape).tolist() == array.tolist()
        return
    with pytest.raises(FileFormatError, match=sentence):
        read_load(file(npy(array)))
    assert not whole, "it was read before it was refused"


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"weight": torch.ones(1)}, "its keys are 'weight'"),
        ({"logical_count": torch.ones((1, 1, 1, 1))}, r"logical_count has shape \(1, 1, 1, 1\)"),
        (torch.ones(3), r"the array has shape \(3,\)"),
        (torch.ones((2, 2), dtype=torch.bool), "the array holds booleans"),
    ],
)
def test_what_the_tensors_of_a_file_are_called_and_shaped_refuses_it_before_they_are_read(
    file: Any, monkeypatch: pytest.MonkeyPatch, value: Any, sentence: str, legacy: bool
) -> None:
    monkeypatch.setattr("equipoise.decode.torch.Plain", None)  # what reads them
    with pytest.raises(FileFormatError, match=sentence):
        read_load(file(pt(value, legacy)))


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.tensor(STEPS), None),
        (torch.tensor(STEPS).transpose(1, 2), None),  # no row lies in one piece
        (torch.tensor(STEPS)[1:], None),
        (torch.tensor(STEPS, dtype=torch.bfloat16), None),
        (torch.tensor(-STEPS), "logical_count is -5.0 at step 0, layer 0, expert 0"),
        (torch.tensor(np.where(STEPS == 8, np.nan, STEPS)), "is nan at step 1, layer 2, expert 2"),
    ],
)
def test_a_large_tensor_is_looked_through_in_parts_before_it_is_read(
    file: Any, monkeypatch: pytest.MonkeyPatch, tensor: Any, sentence: str | None
) -> None:
    monkeypatch.setattr("equipoise.decode.torch.LARGE", 0)
    monkeypatch.setattr("equipoise.decode.numpy.AT_ONCE", 1)
    path = file(pt({"logical_count": tensor}))
    if sentence is None:
        assert read_load(path).tokens_per_expert.tolist() == tensor.tolist()
        return
    monkeypatch.setattr("equipoise.decode.torch.Plain", None)
    with pytest.raises(FileFormatError, match=sentence):
        read_load(path)


@pytest.mark.parametrize("kind", ["json", "npz", "pt"])
def test_layer_ids_beside_the_counts_are_kept(tmp_path: Path, kind: str) -> None:
    path, counts = tmp_path / f"x.{kind}", np.array([[5, 1], [7, 3]])
    for ids in ([3, 10], [3]):
        if kind == "json":
            path.write_text(json.dumps({"counts": counts.tolist(), "layer_ids": ids}))
        elif kind == "npz":
            np.savez(path, counts=counts, layer_ids=ids)
        else:
            torch.save({"counts": torch.tensor(counts), "layer_ids": torch.tensor(ids)}, path)
        if len(ids) == 2:
            assert read_load(path).layer_ids == read_load(path, key="counts").layer_ids == (3, 10)
    with pytest.raises(FileFormatError, match=rf"x.{kind}.*layer_ids"):
        read_load(path)


def test_a_safetensors_file_names_the_folder_that_is_meant(tmp_path: Path) -> None:
    header = json.dumps({"0_3": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}).encode()
    content = len(header).to_bytes(8, "little") + header + np.array([5, 1]).tobytes()
    (tmp_path / "rank0.safetensors").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"is a safetensors file; name the folder .* with meta_info.json in it"):
        read_load(tmp_path / "rank0.safetensors")


def test_a_load_without_tokens_raises_no_doubt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8)))
    assert read_load(tmp_path / "x.npy").empty_layers == (0, 1, 2)
    assert not caplog.records


@pytest.mark.parametrize("key", ["layer_{}", "model.layers.{}.mlp.experts", "Layer {}"])
def test_rows_under_the_names_of_layers_are_read(tmp_path: Path, key: str) -> None:
    rows = {key.format(10): [7, 3], key.format(3): [5, 1]}
    (tmp_path / "x.json").write_text(json.dumps(rows))
    torch.save({name: torch.tensor(row) for name, row in rows.items()}, tmp_path / "x.pt")
    for path in (tmp_path / "x.json", tmp_path / "x.pt"):
        load = read_load(path)
        assert (load.layer_ids, load.load.tolist()) == ((3, 10), [[5, 1], [7, 3]])
    for wrong in ({**rows, "total": [1, 2]}, {"3": [5, 1], "4": [7, 3]}, {"layer_3": [5], "layer 3": [7]}):
        (tmp_path / "x.json").write_text(json.dumps(wrong))
        with pytest.raises(FileFormatError, match="holds none of the keys 'logical_count'"):
            read_load(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({"layer_3": [5, 1], "layer_4": [7]}))
    with pytest.raises(FileFormatError, match="layer 1 has width 1, layer 0 has width 2"):
        read_load(tmp_path / "x.json")
