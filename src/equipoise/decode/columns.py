"""Parquet and Arrow files, read by pyarrow where it is installed: columns of numbers and texts by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from equipoise.decode.source import read_bytes
from equipoise.errors import FileFormatError, MissingDependencyError
from equipoise.limits import LARGEST_COLUMNS, MOST_CELLS

__all__ = ["ARROW", "PARQUET", "decode_columns"]

PARQUET, ARROW = b"PAR1", b"ARROW1"


def decode_columns(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a Parquet or Arrow file by name, each as a list of numbers, texts and None.

    Raises
    ------
    FileFormatError
        If it is damaged, or holds more cells than are read.
    MissingDependencyError
        If pyarrow is not installed.
    """
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is a Parquet or Arrow file, which pyarrow reads, and that is not installed here. Run pip install "
            "pyarrow, or save the table as CSV."
        ) from error
    content = read_bytes(path, LARGEST_COLUMNS)
    try:
        table = _read(pyarrow, content, path)
        return {str(name): column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    except FileFormatError:
        raise
    except Exception as error:  # whatever pyarrow makes of damaged bytes
        raise FileFormatError(f"{path} is a damaged Parquet or Arrow file; copy or write it again.") from error


def _read(pyarrow: Any, content: bytes, path: Path) -> Any:
    source = pyarrow.BufferReader(content)
    if content.startswith(PARQUET):
        file: Any = importlib.import_module("pyarrow.parquet").ParquetFile(source)
        _check(file.metadata.num_rows, file.metadata.num_columns, path)
        return file.read(use_threads=False)
    reader = importlib.import_module("pyarrow.ipc").open_file(source)
    rows = 0
    for number in range(reader.num_record_batches):
        rows += reader.get_batch(number).num_rows
        _check(rows, len(reader.schema), path)
    return reader.read_all()


def _check(rows: int, columns: int, path: Path) -> None:
    if rows * columns > MOST_CELLS // 4:  # each becomes an object of Python's
        raise FileFormatError(
            f"{path} holds {rows:,} rows of {columns:,} columns; at most {MOST_CELLS // 4:,} cells are read. Save the "
            "counts with numpy.save."
        )
