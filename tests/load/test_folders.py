"""Several files as one load: in which order, what is summed, and what is missing."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.errors import FileFormatError
from equipoise.load import read_load


def dump(path: Path, value: int, rank: int = 0, shape: tuple[int, ...] = (3, 2, 4)) -> None:
    counts = torch.full(shape, value, dtype=torch.int32)
    torch.save({"rank": rank, "logical_count": counts, "average_utilization_rate_over_window": None}, path)


def record(path: Path, rank: int, passes: tuple[int, ...] = (0, 1)) -> None:
    records = [
        {"forward_pass_id": i, "rank": rank, "global_physical_count": torch.full((1, 4), i + 1, dtype=torch.int32)}
        for i in passes
    ]
    torch.save({"records": records, "last_physical_to_logical_map": torch.tensor([[0, 1, 2, 0]])}, path)


def test_dumps_are_joined_in_the_order_of_their_times(tmp_path: Path) -> None:
    for name, value in (("x_10.5.pt", 3), ("x_9.75.pt", 2), ("x_9.125.pt", 1)):
        dump(tmp_path / name, value)
    assert read_load(tmp_path).tokens_per_expert[:, 0, 0].tolist() == [1] * 3 + [2] * 3 + [3] * 3


def test_dumps_of_several_ranks_or_models_are_refused(tmp_path: Path) -> None:
    dump(tmp_path / "x_1.pt", 1)
    dump(tmp_path / "x_2.pt", 1, rank=1)
    with pytest.raises(FileFormatError, match=r"dumped by rank 1 and x_1.pt by rank 0; each holds the sum"):
        read_load(tmp_path)
    dump(tmp_path / "x_2.pt", 1, shape=(1, 2, 5))
    with pytest.raises(FileFormatError, match=r"is of 2 layers x 5 experts, and x_1.pt of 2 x 4"):
        read_load(tmp_path)


def test_recordings_of_some_ranks_say_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path / "a.pt", 0)
    record(tmp_path / "b.pt", 1, passes=(1,))
    assert read_load(tmp_path).tokens_per_expert.tolist() == [[[2, 1, 1]], [[8, 4, 4]]]
    assert "is what ranks 0 to 1 recorded; if there were more ranks, their files are missing" in caplog.text
    assert "lacks some ranks in 1 of 2 forward passes: 0" in caplog.text
    record(tmp_path / "c.pt", 3)
    with pytest.raises(FileFormatError, match="ranks 0, 1, 3 recorded, and nothing of rank 2"):
        read_load(tmp_path)


def test_two_kinds_of_recordings_in_a_folder_are_refused(tmp_path: Path) -> None:
    record(tmp_path / "a.pt", 0)
    dump(tmp_path / "b.pt", 1)
    with pytest.raises(FileFormatError, match=r"recordings by rank .* and summed dumps"):
        read_load(tmp_path)


def test_files_of_a_folder_are_steps_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    for step in (2, 10, 1):
        np.save(tmp_path / f"step{step}.npy", np.full((2, 3), step))
    (tmp_path / "notes.md").write_text("not a load")
    assert read_load(tmp_path).tokens_per_expert[:, 0, 0].tolist() == [1, 2, 10]
    np.savez(tmp_path / "more.npz", load=np.ones((2, 3)))
    with pytest.raises(FileFormatError, match=r"several kinds, \.npy and \.npz"):
        read_load(tmp_path)


def test_tables_of_ranks_are_summed_first_with_first(tmp_path: Path) -> None:
    for rank, time, value in ((0, 5, 1), (0, 9, 2), (1, 6, 10), (1, 11, 20)):
        rows = "".join(f"{layer},{expert},{value}\n" for layer in (3, 4) for expert in range(4))
        (tmp_path / f"distribution_rank{rank}_timestamp{time}.csv").write_text("layer_id,expert_id,count\n" + rows)
    load = read_load(tmp_path)
    assert (load.layer_ids, load.tokens_per_expert[:, 0, 0].tolist()) == ((3, 4), [11, 22])
    (tmp_path / "distribution_rank1_timestamp6.csv").unlink()
    with pytest.raises(FileFormatError, match="not as many files of each rank"):
        read_load(tmp_path)


def test_several_files_are_joined_in_the_order_given(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("b.npy", "a.npy")]
    for i, path in enumerate(paths):
        np.save(path, np.full((2, 3), i))
    load = read_load(paths)
    assert load.tokens_per_expert[:, 0, 0].tolist() == [0, 1]
    assert load.source == f"{paths[0]}, {paths[1]}"
    np.save(paths[1], np.ones((2, 4)))
    with pytest.raises(FileFormatError, match="only loads of the same layers of one model are joined"):
        read_load(paths)


def test_a_folder_of_ranks_without_their_description_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "rank0.safetensors").write_bytes(b"x")
    with pytest.raises(FileFormatError, match=r"statistics need meta_info.json beside their ranks"):
        read_load(tmp_path)


class Piped:
    """Standard input that holds bytes."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        self.buffer, self._terminal = io.BytesIO(content), terminal

    def isatty(self) -> bool:
        return self._terminal


def test_standard_input_is_read_once_and_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin: Any = Piped(b"layer,expert,count\n0,0,5\n0,1,6\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read_load("-").load.tolist() == read_load("-").load.tolist() == [[5, 6]]


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin: Any = Piped(b"", terminal=True)
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(FileFormatError, match="nothing is piped into it"):
        read_load("-")


@pytest.mark.parametrize("suffix", ["csv", "json", "npy"])
def test_a_folder_with_a_file_for_each_layer_is_one_load(tmp_path: Path, suffix: str) -> None:
    for layer, row in ((10, [7, 3]), (3, [5, 1])):
        path = tmp_path / f"counts_layer_{layer}.{suffix}"
        if suffix == "npy":
            np.save(path, [row])
        else:
            path.write_text(f"{row[0]},{row[1]}\n" if suffix == "csv" else f"[{row}]")
    for load in (read_load(tmp_path), read_load(sorted(tmp_path.iterdir()))):
        assert (load.layer_ids, load.tokens_per_expert.tolist()) == ((3, 10), [[[5, 1], [7, 3]]])


def test_layers_of_different_lengths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "layer_0.csv").write_text("5,1\n")
    (tmp_path / "layer_1.csv").write_text("5,1,2\n")
    with pytest.raises(FileFormatError, match="holds layers with different numbers of steps or experts"):
        read_load(tmp_path)
