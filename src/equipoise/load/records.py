"""Tables in JSON: a list of records, a list for each column, or what pandas writes of a table.

    [{"layer": 3, "expert": 0, "count": 5}, {"layer": 3, "expert": 1, "count": 8}]        records; JSON Lines too
    [{"step": 0, "layer": 3, "counts": [5, 8]}]                                           a list of counts in each
    {"layer": [3, 3], "expert": [0, 1], "count": [5, 8]}                                  columns
    {"layer_3": {"expert_0": 5, "expert_1": 8}}                                           by layer and expert

They become columns with names, which ``tables.py`` reads as it reads all. Which form a document has is in ``FORMS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.errors import FileFormatError, listed, shown
from equipoise.load.column_files import from_columns
from equipoise.load.columns import COUNT, EXPERT, LAYER, RANK, STEP, columns_of
from equipoise.load.documents import from_document
from equipoise.load.folders import joined
from equipoise.load.statistics import LoadStatistics

__all__ = ["from_json"]

Columns = dict[str, list[Any]]


def from_json(document: Any, path: Path, key: str | None = None) -> LoadStatistics:
    """Return the load in a JSON document: a table, or what ``documents.py`` knows.

    Raises
    ------
    FileFormatError
        If it is none, or its numbers break a rule. The message names the column or key, and the row.
    """
    if isinstance(document, Mapping) and key in document and _are_records(document[key]):
        document, key = document[key], None
    if _are_records(document) and any(_is_table(value) for value in document[0].values()):
        return _by_step(document, path, key)
    for form in FORMS:
        if form.matches(document):
            return from_columns(form.columns(document, path), path, key)
    return from_document(document, path, key)


@dataclass(frozen=True)
class Form:
    """A row: what a table looks like, and its columns by name."""

    matches: Callable[[Any], bool]
    columns: Callable[[Any, Path], Columns]


def _are_records(document: Any) -> bool:
    return isinstance(document, list) and bool(document) and all(isinstance(row, Mapping) for row in document)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(cell, list | dict) for cell in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(row, list) for row in value)


def _name_a_table(names: Iterable[Any]) -> bool:
    """Whether names are those of columns: one says expert, or one layer or step and all others are numbers."""
    columns = columns_of([str(name) for name in names])
    keys = [column for column in columns if column.role in (LAYER, STEP) and column.number is None]
    numbers = [column for column in columns if column.number is not None]
    return any(column.role == EXPERT for column in columns) or (
        0 < len(keys) < len(columns) == len(keys) + len(numbers)
    )


def _is_record(document: Any) -> bool:
    """Whether a document is a single record: numbers under the names of columns."""
    return (
        isinstance(document, Mapping)
        and _name_a_table(document)
        and not any(isinstance(value, list | dict) for value in document.values())
    )


def _are_keyed(document: Any) -> bool:
    """Whether records stand under the numbers of their rows."""
    return (
        isinstance(document, Mapping)
        and bool(document)
        and all(str(row).isdecimal() and _is_record(record) for row, record in document.items())
    )


def _by_step(records: list[Mapping[str, Any]], path: Path, key: str | None) -> LoadStatistics:
    """Return the windows of records that hold a load each, by their step if they have one."""
    named = {column.role: column.name for column in columns_of(list(records[0]))}
    odd = next((named[role] for role in (LAYER, RANK) if role in named), None)
    if odd is not None:
        raise FileFormatError(
            f"{path} has {shown(odd)} beside all layers of a step; give each record one step, of all layers and ranks."
        )
    if STEP in named and all(isinstance(row.get(named[STEP]), int | float) for row in records):
        records = sorted(records, key=lambda row: float(row[named[STEP]]))
    return joined([from_document(row, path, key) for row in records], str(path))


def _of_records(records: list[Mapping[str, Any]], path: Path) -> Columns:
    rows = [_spread(row, path, number) for number, row in enumerate(records, start=1)]
    for number, row in enumerate(rows, start=1):
        if row.keys() != rows[0].keys():
            odd = next(iter(rows[0].keys() ^ row.keys()))
            here, there = (number, 1) if odd in row else (1, number)
            raise FileFormatError(
                f"{path}: record {here} has {shown(odd)}, record {there} has not; every record needs the same keys."
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _spread(row: Mapping[str, Any], path: Path, number: int) -> Mapping[str, Any]:
    """Return a record whose list of counts, if it has one, became a column for each expert."""
    lists = [name for name, value in row.items() if isinstance(value, list | dict)]
    if not lists:
        return row
    if len(lists) > 1 or not _is_list(row[lists[0]]):
        raise FileFormatError(
            f"{path}: record {number} holds more than numbers under {listed(lists)}; give it one list, the counts of a "
            "layer, or one number."
        )
    others = {name: value for name, value in row.items() if name != lists[0]}
    return {**others, **{str(expert): count for expert, count in enumerate(row[lists[0]])}}


def _are_columns(document: Any) -> bool:
    return isinstance(document, Mapping) and _name_a_table(document) and all(map(_is_list, document.values()))


def _of_columns(document: Mapping[str, list[Any]], path: Path) -> Columns:
    lengths = {name: len(column) for name, column in document.items()}
    if len(set(lengths.values())) > 1:
        raise FileFormatError(f"{path} has columns of {listed(set(lengths.values()))} rows; make them one length.")
    return dict(document)


def _are_indexed(document: Any) -> bool:
    """Whether columns are objects with the same keys, the numbers of rows, as pandas writes them."""
    return (
        isinstance(document, Mapping)
        and _name_a_table(document)
        and all(isinstance(column, Mapping) for column in document.values())
    )


def _of_indexed(document: Mapping[str, Mapping[str, Any]], path: Path) -> Columns:
    index = [*next(iter(document.values()))]
    for name, column in document.items():
        odd = next(iter(column.keys() ^ set(index)), None)
        if odd is not None:
            raise FileFormatError(f"{path} has row {shown(odd)} in some columns and not in {shown(name)}; add it.")
    return _with_index(index, {name: [column[row] for row in index] for name, column in document.items()})


def _with_index(index: list[Any], columns: Columns) -> Columns:
    """Return columns with the index of their rows before them, of one level or several, if it is of numbers."""
    levels = [*zip(*(row if isinstance(row, list) else [row] for row in index), strict=False)]
    numbers = bool(levels) and all(str(cell).isdecimal() for level in levels for cell in level)
    return {**{f"level_{i}": [*level] for i, level in enumerate(levels)}, **columns} if numbers else columns


def _are_split(document: Any) -> bool:
    return isinstance(document, Mapping) and {"columns", "data"} <= document.keys()


def _of_split(document: Mapping[str, Any], path: Path) -> Columns:
    names, rows = document["columns"], document["data"]
    if not (_is_list(names) and isinstance(rows, list) and rows and all(map(_is_list, rows))):
        raise FileFormatError(f"{path} has 'columns' and 'data' that are no names and rows of numbers; write them so.")
    wrong = next((i for i, row in enumerate(rows, start=1) if len(row) != len(names)), None)
    if wrong is not None:
        raise FileFormatError(f"{path}, row {wrong} has {len(rows[wrong - 1])} numbers for {len(names)} columns.")
    index = document.get("index")
    columns = {str(name): [row[i] for row in rows] for i, name in enumerate(names)}
    return _with_index(index if isinstance(index, list) and len(index) == len(rows) else [], columns)


def _are_tagged(document: Any) -> bool:
    return isinstance(document, Mapping) and {"schema", "data"} <= document.keys() and _are_records(document["data"])


def _are_crossed(document: Any) -> bool:
    """Whether each key names a layer or an expert, and each object under it the experts or the layers."""
    if not isinstance(document, Mapping) or not document:
        return False
    if not all(isinstance(inner, Mapping) and inner for inner in document.values()):
        return False
    outer, inner = (
        {column.role if column.number is not None else None for column in columns_of([*names])}
        for names in (document, next(iter(document.values())))
    )
    return [outer, inner] in ([{LAYER}, {EXPERT}], [{EXPERT}, {LAYER}])


def _of_crossed(document: Mapping[str, Mapping[str, Any]], path: Path) -> Columns:
    outer = columns_of([*document])[0].role
    names = [LAYER, EXPERT] if outer == LAYER else [EXPERT, LAYER]
    rows = [(one, other, count) for one, inner in document.items() for other, count in inner.items()]
    return dict(zip((*names, COUNT), map(list, zip(*rows, strict=True)), strict=True))


FORMS: tuple[Form, ...] = (
    Form(_are_records, _of_records),
    Form(_is_record, lambda document, path: _of_records([document], path)),
    Form(_are_keyed, lambda document, path: _of_records([*document.values()], path)),
    Form(_are_split, _of_split),
    Form(_are_tagged, lambda document, path: _of_records(document["data"], path)),
    Form(_are_columns, _of_columns),
    Form(_are_crossed, _of_crossed),
    Form(_are_indexed, _of_indexed),
)
