"""Long and wide tables: which cell is which count, and what is said where that is open."""

from __future__ import annotations

import importlib.util
import logging
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from equipoise.errors import EquipoiseError, FileFormatError, MissingDependencyError
from equipoise.load import LoadStatistics, read_load
from equipoise.load.columns import columns_of
from equipoise.load.doubts import doubts_about
from load_text import read


def test_long_tables_keep_layer_ids_and_steps(tmp_path: Path) -> None:
    rows = [(step, layer, expert, 100 * step + 10 * layer + expert) for step in (7, 9) for layer in (3, 5)
            for expert in (1, 0)]  # fmt: skip
    load = read(tmp_path, "step,layer,expert,count\n" + "".join("{},{},{},{}\n".format(*row) for row in rows))
    assert load.layer_ids == (3, 5)
    assert load.tokens_per_expert.tolist() == [[[730, 731], [750, 751]], [[930, 931], [950, 951]]]


def test_wide_tables_keep_layer_ids_whatever_the_order_of_lines(tmp_path: Path) -> None:
    load = read(tmp_path, "layer_id\texpert_1\texpert_0\n5\t1\t2\n3\t3\t4\n")
    assert (load.layer_ids, load.load.tolist()) == ((3, 5), [[4, 3], [2, 1]])


def test_wide_tables_of_steps_become_windows(tmp_path: Path) -> None:
    load = read(tmp_path, "step,layer,0,1\n0,3,1,2\n0,4,3,4\n1,3,5,6\n1,4,7,8\n")
    assert load.tokens_per_expert.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    with pytest.raises(FileFormatError, match="2 steps and 2 layers in 3 lines; every step needs every layer"):
        read(tmp_path, "step,layer,0,1\n0,3,1,2\n0,4,3,4\n1,3,5,6\n")


@pytest.mark.parametrize(
    "text",
    [
        "5,1,2,3,\n3,3,4,7,\n",
        "5;1;2;3;\n3;3;4;7;\n",
        "0,1,2,3,\n5,1,2,3,\n3,3,4,7,\n",
        "0,1,2,3\n5,1,2,3,\n3,3,4,7,\n",
        "layer,expert,count\n" + "".join(f"{i // 4},{i % 4},{c},\n" for i, c in enumerate((5, 1, 2, 3, 3, 3, 4, 7))),
    ],
)
def test_a_sign_at_the_end_of_each_line_is_no_column(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text).load.tolist() == [[5, 1, 2, 3], [3, 3, 4, 7]]


def test_remarks_and_empty_lines_stand_where_they_do_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, "\n# recorded\n5,1\n# the next layer\n3,4\n# the end\n\n").load.tolist() == [[5, 1], [3, 4]]
    load = read(tmp_path, "layer,expert,count\n\n0,0,5\n0,1,1\n\n1,0,3\n1,1,4\n")
    assert load.load.tolist() == [[5, 1], [3, 4]]
    with pytest.raises(FileFormatError, match="line 3 has width 3, line 2 has width 2"):
        read(tmp_path, "# recorded\n5,1\n3,4,2\n")


@pytest.mark.parametrize("cell", ["4,253", "4 253", "4'253", "4_253", "4.253,5", "1,234,567", "1.234.567"])
def test_signs_between_thousands_are_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(FileFormatError, match=r"column 2 holds .*; write decimals with a point, and nothing between"):
        read(tmp_path, f"7;{cell}\n5;6\n")


def test_commas_before_decimals_are_read_where_they_cannot_stand_between_thousands(tmp_path: Path) -> None:
    for text in ("4253,5;83\n5;4,253\n", "4,253;83,25\n5;6\n", "4,253\t0,125\n5\t6\n", '"4,253","83,2"\n5,6\n'):
        assert 4.253 in read(tmp_path, text).load
    load = read(tmp_path, "layer;expert;count\n3;0;766,5\n3;1;575\n")
    assert (load.layer_ids, load.load.tolist()) == ((3,), [[766.5, 575]])
    with pytest.raises(FileFormatError, match="line 1, column 1 holds '4253,5'; write decimals with a point"):
        read(tmp_path, "4253,5;1.083\n5;6\n")  # the point may be one between thousands then


def test_points_that_may_stand_between_thousands_are_refused(tmp_path: Path) -> None:
    for text in ("4.253;83\n5;6\n", "4.253;1.083\n1.500;2.600\n", "layer,expert,count\n0,0,4.253\n0,1,83\n"):
        with pytest.raises(FileFormatError, match=r"holds '4.253', which may be 4253; write nothing between thousands"):
            read(tmp_path, text)
    for text in ("4.253;83\n5.5;6\n", "4.253,1.083\n1.500,2.600\n", "4.253,0.083\n1,2\n", "4.253;83\n1500;6\n"):
        assert read(tmp_path, text).load[0, 0] == 4.253


@pytest.mark.parametrize("names", ["layer,expert,0", "layer,expert,", "layer,variable,value", "level_0,layer,expert,n"])
def test_the_names_that_pandas_gives_are_known(tmp_path: Path, names: str) -> None:
    index = "9," if names.startswith("level") else ""
    rows = "".join(f"{index}{layer},{expert},{2 + layer + expert}\n" for layer in (3, 4) for expert in (0, 1))
    load = read(tmp_path, f"{names}\n{rows}")
    assert (load.layer_ids, load.load.tolist()) == ((3, 4), [[5, 6], [6, 7]])


@pytest.mark.parametrize("names", [",,0", "level_0,level_1,0", "__index_level_0__,__index_level_1__,0"])
def test_two_columns_without_a_name_are_not_guessed(tmp_path: Path, names: str) -> None:
    with pytest.raises(FileFormatError, match="2 columns without a name before its counts; call them step and layer"):
        read(tmp_path, f"{names}\n0,0,5\n0,1,6\n1,0,7\n1,1,8\n")
    assert read(tmp_path, ",index,0,1\n0,0,5,6\n1,1,7,8\n").load.tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize(
    "times",
    [
        ("2026-01-31 23:59:59", "2026-02-01T00:00:01.5"),
        ("2026-01-31T23:59:59Z", "2026-02-01T00:00:01Z"),
        ("2026-01-31T23:59:59+02:00", "2026-01-31T22:30:00+00:00"),
        ("09:59:59", "10:00:00"),
        ("1718000000.25", "1718000000.75"),
    ],
)
def test_times_are_steps_in_their_order(tmp_path: Path, times: tuple[str, str]) -> None:
    first, second = times
    load = read(tmp_path, f"timestamp,layer,0,1\n{second},3,7,8\n{first},3,5,6\n")
    assert load.tokens_per_expert.tolist() == [[[5, 6]], [[7, 8]]]
    load = read(tmp_path, f"time,layer,expert,count\n{second},3,0,7\n{first},3,0,5\n{second},3,1,8\n{first},3,1,6\n")
    assert load.tokens_per_expert.tolist() == [[[5, 6]], [[7, 8]]]


def test_experts_that_count_from_one_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load = read(tmp_path, "layer,expert,count\n" + "".join(f"0,{expert},{expert}\n" for expert in (1, 2, 3, 4)))
    assert load.load.tolist() == [[1, 2, 3, 4]]
    assert "names experts 1 to 4, which are read as 0 to 3" in caplog.text


def test_what_is_no_time_is_no_step(tmp_path: Path) -> None:
    for time in ("2026-02-31 23:59:59", "25:00:00", "noon"):
        with pytest.raises(FileFormatError, match=f"line 2, column 1 holds '{time}'; it must be a number"):
            read(tmp_path, f"time,layer,0,1\n{time},3,7,8\n")


def test_a_first_line_of_a_layer_and_counts_is_no_header(tmp_path: Path) -> None:
    load = read(tmp_path, "model.layers.3.mlp,50,10\nmodel.layers.4.mlp,7,3\n")
    assert (load.layer_ids, load.load.tolist()) == ((3, 4), [[50, 10], [7, 3]])


def test_text_of_two_bytes_a_character_says_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes("5,1\n3,4\n".encode("utf-16"))
    with pytest.raises(FileFormatError, match="is UTF-16 text; save it as UTF-8"):
        read_load(tmp_path / "x")


def test_a_key_names_the_column_of_counts(tmp_path: Path) -> None:
    text = "layer,expert,count,tokens\n0,0,1,5\n0,1,2,6\n"
    assert read(tmp_path, text, key="tokens").load.tolist() == [[5, 6]]
    with pytest.raises(FileFormatError, match="no column 'x'; it has 'layer', 'expert', 'count', 'tokens'"):
        read(tmp_path, text, key="x")


def test_columns_that_tell_nothing_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, "layer,expert,count,model\n0,0,1,some-moe\n0,1,2,some-moe\n").load.tolist() == [[1, 2]]


def test_an_index_without_a_name_is_an_index_where_the_experts_say_so(tmp_path: Path) -> None:
    assert read(tmp_path, "0,5,6,7,8\n1,1,2,3,4\n").load.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]


BY_STEP = [[[0, 1, 2], [10, 11, 12]], [[1, 2, 3], [11, 12, 13]]]


@pytest.mark.parametrize(
    "header",
    [
        "layer,0,0,0,1,1,1\nexpert,0,1,2,0,1,2\nstep,,,,,,",
        ",count,count,count,count,count,count\nlayer,0,0,0,1,1,1\nexpert,0,1,2,0,1,2\nstep,,,,,,",
        "expert,0,1,2,0,1,2\nlayer,0,0,0,1,1,1\nstep,,,,,,",
        "layer,0,0,0,1,1,1\nexpert,0,1,2,0,1,2",
        ",layer_0,layer_0,layer_0,layer_1,layer_1,layer_1\n,e0,e1,e2,e0,e1,e2",
        "layer_id,0,0,0,1,1,1\nexpert_id,0,1,2,0,1,2\nstep,,,,,,",
        "step,L0_E0,L0_E1,L0_E2,L1_E0,L1_E1,L1_E2",
        "step,layer_idx_0_expert_id_0,layer_idx_0_expert_id_1,layer_idx_0_expert_id_2,"
        "layer_idx_1_expert_id_0,layer_idx_1_expert_id_1,layer_idx_1_expert_id_2",
        "step," + ",".join(f"model.layers.{i}.mlp.experts.{j}.tokens" for i in (0, 1) for j in (0, 1, 2)),
        "time,expert 0 of layer 0,expert 1 of layer 0,expert 2 of layer 0,expert 0 of layer 1,expert 1 of layer 1,"
        "expert 2 of layer 1",
    ],
)
def test_a_column_for_each_layer_and_expert_makes_rows_steps(tmp_path: Path, header: str) -> None:
    load = read(tmp_path, f"{header}\n0,0,1,2,10,11,12\n1,1,2,3,11,12,13\n")
    assert load.tokens_per_expert.tolist() == BY_STEP
    assert load.layer_ids == (0, 1)


@pytest.mark.parametrize(
    "text",
    [
        ",count,count,count\nexpert,0,1,2\nlayer,,,\n3,5,6,7\n4,8,9,1\n",
        "expert  0  1  2\nlayer\n3 5 6 7\n4 8 9 1\n",
        "expert,3,4\n1,6,9\n0,5,8\n2,7,1\n",
        "layer  3  4\nexpert\n0 5 8\n1 6 9\n2 7 1\n",
        "sep=|\nlayer|0|1|2\n3|5|6|7\n4|8|9|1\n",
    ],
)
def test_pivoted_tables_are_read_by_the_names_of_rows_and_columns(tmp_path: Path, text: str) -> None:
    load = read(tmp_path, text)
    assert (load.layer_ids, load.load.tolist()) == ((3, 4), [[5, 6, 7], [8, 9, 1]])


def test_levels_of_a_header_count_where_there_is_one_layer_or_expert(tmp_path: Path) -> None:
    load = read(tmp_path, "expert,0,1\nlayer,3,3\nstep,,\n0,5,6\n1,7,8\n")
    assert (load.layer_ids, load.tokens_per_expert.tolist()) == ((3,), [[[5, 6]], [[7, 8]]])
    load = read(tmp_path, '{"layer": 3, "0": 5, "1": 6}\n')
    assert (load.layer_ids, load.load.tolist()) == ((3,), [[5, 6]])


def test_rows_of_steps_in_a_header_of_several_lines_keep_both_keys(tmp_path: Path) -> None:
    text = ",,count,count\nexpert,,0,1\nstep,layer,,\n0,3,5,6\n0,4,7,8\n1,3,1,2\n1,4,3,4\n"
    assert read(tmp_path, text).tokens_per_expert.tolist() == [[[5, 6], [7, 8]], [[1, 2], [3, 4]]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",0,0,1,1\n,0,1,0,1\n0,1,2,3,4\n", "a header of 2 lines, and none says what '0', '1' are"),
        ("expert  0  1  2\n0 5 6 7\n1 8 9 1\n", "'expert' before the numbers 0 to 2, which may name its rows or"),
        ("expert,0,1\n0,5,6\n2,8,9\n", "has lines for experts up to 2 and none for expert 1"),
        ("expert,0,1\n0,5,6\n0,8,9\n", "has two lines for expert 0"),
        ("layer,expert,0,1\n0,0,5,6\n", "names the expert both of a row and of a column"),
        ("step,L0_E0,L0_E1,total_1\n0,5,6,7\n", "columns for experts of one layer, as 'L0_E0', beside 'total_1'"),
        ("step,L0_E0,L00_E0\n0,5,6\n", "two columns for layer 0, expert 0"),
        ("step,L0_E0,L0_E1\n0,5,6\n0,7,8\n", "line 3 is a second line of step 0"),
        ("layer,count,count\n3,5,6\n", "two columns called 'count'"),
        ("0,0,1,1\n0,1,0,1\n5,6,7,8\n", "has two lines that number its columns"),
        ("layer,step\n0,0\n", "has no column of counts; its columns are 'layer', 'step'"),
        ("token_id,layer,expert\n0,3,1\n1,3,0\n", "a row for each token that was routed (column 'token_id'); a load"),
        ("request_id,position,layer,expert,weight\n0,0,3,1,1\n", "a row for each token that was routed"),
    ],
)
def test_what_rows_and_columns_are_is_not_guessed(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(FileFormatError, match=re.escape(why)):
        read(tmp_path, text)


def test_what_is_open_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, "layer,expert,count\n0,0,1\n0,1,2\n1,0,3\n")
    assert "no row for 1 of 4 pairs of layer and expert, which count as 0 tokens; experts are 0 to 1" in caplog.text
    read(tmp_path, "0,5,6\n1,1,2\n2,4,4\n")
    assert "the first column, which counts from 0, is read as expert 0" in caplog.text
    read(tmp_path, "1,2,3,4,5,6,7,8\n1,1,2,9,9,9,9,9\n")
    assert "line 1, which counts from 1, is read as a layer" in caplog.text


def test_a_long_table_of_next_to_nothing_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{layer},0,1\n" for layer in range(99))
    with pytest.raises(FileFormatError, match="nearly all of them without a count"):
        read(tmp_path, "layer,expert,count\n0,131071,1\n" + rows.replace("0,0,1\n", "", 1))


@pytest.mark.parametrize("name", ["layer", "Layer ID", "layer_idx", "moe_layer_id", "layerIndex", "LAYER", "l"])
def test_layers_are_known_however_they_are_spelt(name: str) -> None:
    assert columns_of([name])[0].role == "layer"


@pytest.mark.parametrize("name", ["expert", "expert_id", "logical_expert_id", "Expert Idx", "logicalExpertId", "eid"])
def test_experts_are_known_however_they_are_spelt(name: str) -> None:
    assert columns_of([name])[0].role == "expert"


@pytest.mark.parametrize("name", ["count", "tokens", "num_tokens", "Token Count", "logical_count", "load", "hits"])
def test_counts_are_known_however_they_are_spelt(name: str) -> None:
    assert columns_of([name])[0].role == "count"


LOAD = (
    np.random.default_rng(0).multinomial(800, np.linspace(1, 9, 16) / 80, size=(5, 4)) * np.arange(1, 6)[:, None, None]
)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ((1, 2, 0), r"are those of \(layers, experts, steps\)"),
        ((1, 0, 2), r"are those of \(layers, steps, experts\)"),
        ((0, 2, 1), r"are those of \(steps, experts, layers\)"),
        ((2, 1, 0), r"are those of \(experts, layers, steps\)"),
        ((2, 0, 1), r"are those of \(experts, steps, layers\)"),
    ],
)
def test_axes_in_another_order_are_noticed_by_their_sums(axes: tuple[int, ...], said: str) -> None:
    (turned,) = doubts_about(LoadStatistics(LOAD.transpose(axes)))
    assert re.search(said, turned)


def test_loads_as_they_should_be_raise_no_doubt() -> None:
    with_dense_layer = LOAD.copy()
    with_dense_layer[:, 0] = 0
    for load in (LOAD, LOAD[0], with_dense_layer, with_dense_layer[0], LOAD[:, :1], LOAD * 0):
        assert [*doubts_about(LoadStatistics(load))] == []


def test_transposed_loads_and_shapes_of_no_model_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "load.npy", LOAD[0].T)
    read_load(tmp_path / "load.npy")
    assert "its columns sum alike and its rows do not: it looks transposed" in caplog.text
    np.save(tmp_path / "load.npy", np.random.default_rng(0).integers(1, 9, (256, 58)))
    read_load(tmp_path / "load.npy")
    assert "256 layers of 58 experts are more layers than models have" in caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_steps_of_single_tokens_are_a_load_and_patterns_are_none(tmp_path: Path) -> None:
    steps = np.zeros((100, 2, 8), dtype=np.int64)
    for step, row in enumerate(steps.reshape(-1, 8)):
        row[[step % 8, (step + 3) % 8]] = 1
    np.save(tmp_path / "steps.npy", steps)
    assert read_load(tmp_path / "steps.npy").num_windows == 100
    np.save(tmp_path / "steps.npy", steps[:8])
    with pytest.raises(FileFormatError, match="pattern of 0 and 1 that says which of 8 ranks hold an expert"):
        read_load(tmp_path / "steps.npy")
    assert read_load(tmp_path / "steps.npy", may_be_placement=True).num_windows == 8


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_parquet_and_arrow_are_read_as_tables_are(tmp_path: Path, kind: str) -> None:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"layer_id": [3, 3, 4, 4], "expert_id": [0, 1, 0, 1], "count": [5, 6, 7, 8]})
    if kind == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "x")
    else:
        with pyarrow.OSFile(str(tmp_path / "x"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    load = read_load(tmp_path / "x")
    assert (load.layer_ids, load.load.tolist()) == ((3, 4), [[5, 6], [7, 8]])
    when = [datetime(2026, 2, 1), datetime(2026, 2, 1), datetime(2026, 1, 31), datetime(2026, 1, 31)]
    pyarrow.parquet.write_table(table.append_column("time", [when]).drop(["layer_id"]), tmp_path / "x")
    assert read_load(tmp_path / "x").tokens_per_expert.tolist() == [[[7, 8]], [[5, 6]]]
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:40])
    with pytest.raises(EquipoiseError, match="damaged Parquet or Arrow file"):
        read_load(tmp_path / "x")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    with pytest.raises(MissingDependencyError, match="pip install pyarrow"):
        read_load(tmp_path / "x")
