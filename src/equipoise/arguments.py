"""What callers pass, one value at a time: each function returns the value as it should be, or says what it must be."""

from __future__ import annotations

import math
import operator
import os
from pathlib import Path
from typing import Any, TypeVar

from equipoise.errors import InvalidInputError, shown

__all__ = ["as_index", "as_instance", "as_items", "as_names", "as_path", "as_ranks", "count", "finite", "flag", "real"]

T = TypeVar("T")


def as_index(value: Any, otherwise: int | None = None) -> int:
    """Return a whole number of any kind as an int; of what is none, as True is, ``otherwise`` or a ``TypeError``."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except Exception:  # arrays and tensors of several numbers raise what they like
        pass
    if otherwise is None:
        raise TypeError
    return otherwise


def count(value: Any, name: str, least: int = 1, otherwise: str = "", most: int | None = None) -> int:
    """Return ``value`` as an int of at least ``least``, or say what is wrong with it, and what else may be passed.

    >>> count(3.0, "num_ranks")
    Traceback (most recent call last):
    equipoise.errors.InvalidInputError: num_ranks is 3.0; it must be a whole number of at least 1.
    """
    number = as_index(value, least - 1)
    if number < least:
        raise InvalidInputError(f"{name} is {shown(value)}; it must be a whole number of at least {least}{otherwise}.")
    if most is not None and number > most:
        raise InvalidInputError(f"{name} is {shown(value)}; it must be a whole number of at most {most:,}{otherwise}.")
    return number


def real(value: Any, name: str, rule: str = "a number") -> float:
    """Return ``value`` as a float, an infinity or NaN too, or say that it is no number.

    >>> real("3", "timeout")
    Traceback (most recent call last):
    equipoise.errors.InvalidInputError: timeout is '3'; it must be a number.
    """
    try:
        kind = getattr(getattr(value, "dtype", None), "kind", "f")  # numpy has truth values and texts of its own
        if isinstance(value, bool | str | bytes) or kind not in "iuf" or getattr(value, "shape", ()) != ():
            raise TypeError
        return float(value)
    except Exception:  # an int may be too large, and other kinds raise what they like
        raise InvalidInputError(f"{name} is {shown(value)}; it must be {rule}.") from None


def finite(value: Any, name: str, rule: str = "a finite number, not negative") -> float:
    """Return ``value`` as a float that is finite and not negative, or say what is wrong with it."""
    number = real(value, name, rule)
    if not 0 <= number < math.inf:
        raise InvalidInputError(f"{name} is {shown(value)}; it must be {rule}.")
    return number


def as_instance(value: Any, kind: type[T], name: str, instead: str) -> T:
    """Return ``value`` if it is of a kind, or say what it is and what to pass instead.

    >>> as_instance(3, str, "source", "a text")
    Traceback (most recent call last):
    equipoise.errors.InvalidInputError: source is 3; pass a text.
    """
    if not isinstance(value, kind):
        found = shown(value) if isinstance(value, bool | int | float | str) else f"a {type(value).__name__}"
        raise InvalidInputError(f"{name} is {found}; pass {instead}.")
    return value


def as_items(value: Any) -> tuple[Any, ...]:
    """Return what can be gone through as a tuple, or raise ``TypeError``; a text is none, and neither is a table."""
    if isinstance(value, str | bytes) or getattr(value, "ndim", 1) != 1:
        raise TypeError
    try:
        return tuple(value)
    except Exception as error:  # what cannot be gone through raises what it likes
        raise TypeError from error


def as_names(value: Any, name: str) -> tuple[str, ...]:
    """Return what lists texts as a tuple of them, or say what it is instead."""
    try:
        names = as_items(value)
    except TypeError:
        names = (None,)
    if not all(isinstance(each, str) for each in names):
        raise InvalidInputError(f"{name} is {shown(value)}; it must be a tuple of texts.")
    return names


def as_ranks(value: Any, name: str = "lost_ranks") -> tuple[Any, ...]:
    """Return what lists ranks as a tuple, or say that it lists none; which of them are no ranks is not looked at."""
    try:
        return as_items(value)
    except TypeError:
        raise InvalidInputError(f"{name} is {shown(value)}; it must list ranks, such as [0], or be ().") from None


def flag(value: Any, name: str) -> bool:
    """Return ``value``, True or False, as a bool, or say that it is neither."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)  # numpy has truth values of its own
    if not isinstance(value, bool) and not (kind == "b" and value.shape == ()):
        raise InvalidInputError(f"{name} is {shown(value)}; it must be True or False.")
    return bool(value)


def as_path(value: Any, name: str = "path") -> Path:
    """Return ``value`` as a path, or say that it is none."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise InvalidInputError(f"{name} is {shown(value)}; pass a text, or a pathlib.Path.")
    return Path(value)
