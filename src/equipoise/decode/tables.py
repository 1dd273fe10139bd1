"""Tables of numbers in documents of nested lists, where one wrong value among thousands must not become a number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import FileFormatError, shown

__all__ = ["number_rows", "numbers", "whole_numbers"]


def whole_numbers(rows: Any, name: str) -> NDArray[np.int64]:
    """Return a list of equally long lists of whole numbers as an array of shape (rows, columns).

    Raises
    ------
    FileFormatError
        If a row is missing, shorter or longer than the first, or holds anything else: a truth value or a text, say,
        which numpy takes for numbers, or one of more than 64 bits. ``name`` says where the table is.

    >>> whole_numbers([[0, 1], [1, True]], "map.json")
    Traceback (most recent call last):
    equipoise.errors.FileFormatError: map.json: row 1 holds True; it must hold integers.
    """
    if not isinstance(rows, list) or not rows:
        raise FileFormatError(f"{name} is {shown(rows)}; it must be a list of lists of whole numbers.")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            raise FileFormatError(f"{name}: row {number} is {shown(row)}; it must be a list of whole numbers.")
        if len(row) != len(rows[0]):
            raise FileFormatError(f"{name} is ragged: row {number} has {len(row)} entries, row 0 has {len(rows[0])}.")
        _check(row, {int}, f"{name}: row {number}", "must hold integers")
    try:
        return np.array(rows, dtype=np.int64)
    except OverflowError:
        raise FileFormatError(f"{name} must hold integers of at most 64 bits.") from None


def numbers(row: Any, name: str) -> NDArray[np.float64]:
    """Return a list of finite numbers as an array, or a ``FileFormatError`` as ``whole_numbers`` raises it."""
    if not isinstance(row, list) or not row:
        raise FileFormatError(f"{name} is {shown(row)}; it must be a list of numbers.")
    _check(row, {int, float}, name, "must hold finite numbers")
    try:
        array = np.array(row, dtype=np.float64)
    except OverflowError:
        array = np.array([np.inf])
    if not np.isfinite(array).all():
        raise FileFormatError(f"{name} must hold finite numbers.")
    return array


def number_rows(rows: Any, name: str) -> NDArray[np.float64]:
    """Return a list of equally long lists of finite numbers as an array, or a ``FileFormatError``.

    >>> number_rows([[0.5, 1], [1, None]], "shares")
    Traceback (most recent call last):
    equipoise.errors.FileFormatError: shares: row 1 holds None; it must hold finite numbers.
    """
    if not isinstance(rows, list) or not rows:
        raise FileFormatError(f"{name} is {shown(rows)}; it must be a list of lists of numbers.")
    arrays = [numbers(row, f"{name}: row {number}") for number, row in enumerate(rows)]
    for number, array in enumerate(arrays):
        if len(array) != len(arrays[0]):
            raise FileFormatError(
                f"{name} is ragged: row {number} has {len(array)} entries, row 0 has {len(arrays[0])}."
            )
    return np.array(arrays)


def _check(row: list[Any], kinds: set[type], name: str, rule: str) -> None:
    if not kinds.issuperset(map(type, row)):
        odd = next(value for value in row if type(value) not in kinds)
        raise FileFormatError(f"{name} holds {shown(odd)}; it {rule}.")
