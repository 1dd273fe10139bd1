"""JSON: weighed before it is parsed, and no key twice in an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from equipoise.decode.source import read_bytes
from equipoise.errors import FileFormatError, shown
from equipoise.limits import PARSED

__all__ = ["decode_json", "parse_json"]

COSTS = {b",": 48, b'"': 16, b"[": 100, b"{": 100, b":": 200}
"""Bytes that Python takes, at most, for what each of these begins or ends; in texts they count too, and do no harm."""


def decode_json(path: Path, *, may_be_lines: bool = False) -> Any:
    """Return what a JSON file holds, or a ``FileFormatError`` that names the place where it stops being JSON."""
    return parse_json(read_bytes(path, PARSED), str(path), may_be_lines=may_be_lines)


def parse_json(data: bytes, name: str, *, may_be_lines: bool = False) -> Any:
    """Return what JSON text holds; ``name`` says in an error where it came from.

    With ``may_be_lines``, what holds a value a line (JSON Lines) is the list of them.

    Raises
    ------
    FileFormatError
        If it is not JSON or ends before it is complete, if an object has a key twice, if lists nest as deep as only a
        machine nests them, or if all of it would take half a gigabyte.
    """
    cost = len(data) * (1 if data.isascii() else 4) + sum(data.count(sign) * each for sign, each in COSTS.items())
    if cost > PARSED:
        raise FileFormatError(
            f"{name} holds more than is read from JSON: it would take about {cost >> 20:,} MB. Save arrays with "
            "numpy.save."
        )
    text = _decode_text(data, name)
    del data
    are_lines = may_be_lines and _are_lines(text)
    if are_lines:
        text = "[" + ",\n".join(line for line in text.split("\n") if line.strip()) + "]"

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return an object of these pairs, or refuse a key that comes twice."""
        found = dict(pairs)
        if len(found) < len(pairs):
            for key, _ in pairs:
                if key not in found:
                    raise FileFormatError(f"{name} has the key {shown(key)} twice in one object; keep one of them.")
                del found[key]
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"{name}, line {error.lineno}, column {error.colno}"
        if error.pos >= len(text.rstrip()) - are_lines or error.msg.startswith("Unterminated"):
            raise FileFormatError(
                f"{place}: the JSON ends before it is complete; the file looks truncated. Copy or write it again."
            ) from None
        raise FileFormatError(f"{place}: this is not JSON ({error.msg[:1].lower()}{error.msg[1:]}).") from None
    except RecursionError:
        raise FileFormatError(f"{name} nests lists too deeply; three levels are the most for a load.") from None
    except FileFormatError:
        raise
    except ValueError:  # Python's limit on the digits of an int
        raise FileFormatError(f"{name} holds a number with thousands of digits; float64 cannot hold it.") from None


def _are_lines(text: str) -> bool:
    """Whether the first line is a list or an object, whole, and another begins on the next."""
    first, _, rest = text.partition("\n")
    if rest.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        return isinstance(json.loads(first), list | dict)
    except (ValueError, RecursionError):
        return False


def _decode_text(data: bytes, name: str) -> str:
    """Return the text in ``data``, or say which byte is not UTF-8."""
    try:
        return data.decode("utf-8-sig")  # some editors put a byte order mark first
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{name}, byte {error.start}: this is not UTF-8 text; save the file as UTF-8.") from None
