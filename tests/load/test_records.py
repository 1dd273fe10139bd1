"""Tables in JSON: records, columns, what pandas writes, and a document a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from equipoise.errors import FileFormatError
from load_text import read

LONG = [{"layer": i, "expert": j, "count": 10 * i + j} for i in (3, 4) for j in (0, 1)]


@pytest.mark.parametrize(
    "document",
    [
        LONG,
        LONG[::-1],
        [{"layer_id": i, "counts": [10 * i, 10 * i + 1]} for i in (4, 3)],
        [{"layer": i, "expert_0": 10 * i, "expert_1": 10 * i + 1} for i in (3, 4)],
        {name: [row[name] for row in LONG] for name in LONG[0]},
        {name: {str(i): row[name] for i, row in enumerate(LONG)} for name in LONG[0]},
        {"columns": [*LONG[0]], "index": [0, 1, 2, 3], "data": [[*row.values()] for row in LONG]},
        {"schema": {"fields": []}, "data": LONG},
        {f"layer_{i}": {f"expert_{j}": 10 * i + j for j in (0, 1)} for i in (3, 4)},
        {f"e{j}": {f"model.layers.{i}": 10 * i + j for i in (3, 4)} for j in (0, 1)},
        {"layer": [3, 4], "expert_0": [30, 40], "expert_1": [31, 41]},
        {"expert_0": {"4": 40, "3": 30}, "expert_1": {"4": 41, "3": 31}},
        {"columns": [0, 1], "index": [4, 3], "data": [[40, 41], [30, 31]]},
        {"layer_3": [30, 31], "layer_4": [40, 41]},
        {"layer": {"0": 3, "1": 4}, "0": {"0": 30, "1": 40}, "1": {"0": 31, "1": 41}},
        {str(i): row for i, row in enumerate(LONG)},
    ],
)
def test_tables_in_json_are_read_as_those_in_text(tmp_path: Path, document: object) -> None:
    load = read(tmp_path, json.dumps(document))
    assert (load.layer_ids, load.load.tolist()) == ((3, 4), [[30, 31], [40, 41]])


@pytest.mark.parametrize(
    "lines",
    [
        [{"step": step, **row, "count": row["count"] + step} for step in (0, 1) for row in LONG],
        [{"step": step, "logical_count": [[30 + step, 31 + step], [40 + step, 41 + step]]} for step in (1, 0)],
        [{"step": s, "layer": i, "counts": [10 * i + s, 10 * i + 1 + s]} for s in (0, 1) for i in (3, 4)],
        [[[30, 31], [40, 41]], [[31, 32], [41, 42]]],
    ],
)
def test_a_document_a_line_is_a_list_of_them(tmp_path: Path, lines: list[object]) -> None:
    load = read(tmp_path, "\n".join(map(json.dumps, lines)) + "\n\n")
    assert load.tokens_per_expert.tolist() == [[[30, 31], [40, 41]], [[31, 32], [41, 42]]]
    assert read(tmp_path, json.dumps(lines)).tokens_per_expert.tolist() == load.tokens_per_expert.tolist()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            '[{"layer": 0, "expert": 0, "count": 5}, {"layer": 0, "expert": 1}]',
            "record 1 has 'count', record 2 has not",
        ),
        ('[{"layer": 0, "expert": 0, "count": null}]', "row 1: column 'count' holds None; it must be a number"),
        ('[{"layer": 0, "expert": 0, "count": 1' + 400 * "0" + "}]", "row 1: column 'count' is an int of 1329 bits"),
        ('{"layer": [0], "expert": [0, 1], "count": [5, 6]}', "columns of 1, 2 rows; make them one length"),
        ('{"0": [5, 6], "1": [7, 8]}', "write layer_0 if they are layers, expert_0 if experts"),
        ('{"columns": ["layer", "expert", "count"], "data": [[0, 0]]}', "row 1 has 2 numbers for 3 columns"),
        ('{"columns": [0, 1], "index": [[0, 3], [1, 3]], "data": [[5, 6], [7, 8]]}', "call them step and layer"),
        ('{"columns": 3, "data": 4}', "'columns' and 'data' that are no names and rows of numbers"),
        ('[{"layer": 0, "counts": [[5, 6]]}]', "has 'layer' beside all layers of a step"),
        ('[{"layer": 0, "counts": [5], "more": [6]}]', "record 1 holds more than numbers under 'counts', 'more'"),
        ('{"layer": 0, "expert": 0, "count": 5}\n{"layer": 0', "the JSON ends before it is complete"),
    ],
)
def test_a_table_in_json_that_is_none_gets_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(FileFormatError, match=re.escape(why)):
        read(tmp_path, text)


def test_a_key_names_the_records_among_others(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps({"data": LONG, "model": "x"}), key="data").layer_ids == (3, 4)
