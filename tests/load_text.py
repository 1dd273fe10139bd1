"""Loads from a text, in a file whose name says nothing of what it is."""

from __future__ import annotations

from pathlib import Path

from equipoise.load import LoadStatistics, read_load


def read(folder: Path, text: str, key: str | None = None) -> LoadStatistics:
    path = folder / "table"
    path.write_text(text)
    return read_load(path, key=key)
