"""YAML, as far as configurations of placements need it: lists and objects of whole numbers and texts.

The rest of YAML makes a few lines into a billion values, or into objects of any kind. So the document is built here,
from what PyYAML sees one piece at a time.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from equipoise.decode.source import read_bytes
from equipoise.errors import FileFormatError, MissingDependencyError, shown
from equipoise.limits import LARGEST_YAML, MOST_DEPTH

__all__ = ["decode_yaml"]

WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
"""What is a whole number however YAML is read: some read 010 as 8, and 1:30 as 90."""


def decode_yaml(path: Path) -> Any:
    """Return what a YAML file holds: whole numbers that are written plainly are ints, all else is texts.

    Raises
    ------
    FileFormatError
        If it is not YAML, holds more than one document, an alias or a tag, has a key twice, or nests deeply.
    MissingDependencyError
        If PyYAML is not installed.
    """
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} looks like YAML, and PyYAML is not installed here. Run pip install equipoise[engines]."
        ) from error
    content = read_bytes(path, LARGEST_YAML)
    try:
        return _build(yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), yaml, str(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, FileFormatError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise FileFormatError(f"{path}{where} is not YAML: {shown(problem)[1:-1]}.") from None


def _build(events: Any, yaml: Any, name: str) -> Any:
    """Return the document that the events tell of."""
    documents: list[Any] = []
    open_: list[Any] = [documents]  # lists, and objects as lists of a key, its value, the next key, ...
    for event in events:
        kind = type(event)
        if kind is yaml.ScalarEvent and event.tag is None:
            plain = event.implicit[0] and WHOLE.fullmatch(event.value)
            open_[-1].append(int(event.value) if plain else event.value)
        elif kind in (yaml.SequenceStartEvent, yaml.MappingStartEvent) and event.tag is None:
            open_.append([])
            if len(open_) > MOST_DEPTH:
                raise FileFormatError(f"{_place(event, name)}: lists nest too deeply; three levels are the most.")
        elif kind is yaml.SequenceEndEvent:
            items = open_.pop()
            open_[-1].append(items)
        elif kind is yaml.MappingEndEvent:
            items = open_.pop()
            open_[-1].append(_object(items[::2], items[1::2], _place(event, name)))
        elif kind is yaml.AliasEvent:
            raise FileFormatError(
                f"{_place(event, name)} is not YAML of plain values: write out what {shown(event.anchor)} stands for."
            )
        elif getattr(event, "tag", None) is not None:
            raise FileFormatError(
                f"{_place(event, name)} is not YAML of plain values: leave out the tag {shown(event.tag)}."
            )
    if len(documents) != 1:
        raise FileFormatError(f"{name} holds {len(documents)} documents; it must hold one.")
    return documents[0]


def _place(event: Any, name: str) -> str:
    return f"{name}, line {event.start_mark.line + 1}"


def _object(keys: list[Any], values: list[Any], place: str) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in zip(keys, values, strict=True):
        if isinstance(key, list | dict):
            raise FileFormatError(f"{place}: {shown(key)} is no key; keys are texts and whole numbers.")
        if key in found:
            raise FileFormatError(f"{place}: the key {shown(key)} stands twice in one object; keep one of them.")
        found[key] = value
    return found
