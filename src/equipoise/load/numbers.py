"""What number a cell of text is, and what the points and commas in a table are."""

from __future__ import annotations

import re

from equipoise.errors import FileFormatError, shown

__all__ = ["Signs", "number_in"]

_BY_THOUSANDS = re.compile(r"[1-9]\d{0,2}(\.\d{3})?")
_COMMA = re.compile(r"(\d+),(\d+)")


def number_in(cell: str) -> float | None:
    """Return the number that a cell is, None if it is none or has a sign that is no point."""
    if "_" in cell or not cell.isascii():  # float("1_000") and other alphabets' digits are Python's, not a table's
        return None
    try:
        return float(cell)
    except ValueError:
        return None


class Signs:
    """Whether the points and commas in a table stand before decimals, or may stand between thousands: 4.253 beside 83.

    A comma stands before decimals where some cell could not have it between thousands, as 4253,5 or 0,5, and none has a
    point.
    """

    def __init__(self, delimiter: str) -> None:
        self._may_be_thousands = True
        self._has_whole = delimiter == ";"  # where commas are decimal, semicolons are between cells
        self._commas_are_decimal = False
        self._point = self._comma = ""

    @property
    def are_open(self) -> bool:
        """Whether a cell with a point, or without, may tell something."""
        return self._may_be_thousands or not self._point

    def see(self, cell: str, value: float | None, place: str) -> float | None:
        """Return what a cell is, ``value`` if that is known."""
        comma = _COMMA.fullmatch(cell) if value is None else None
        if comma is not None:
            self._comma = self._comma or f"{place} holds {shown(cell)}"
            self._commas_are_decimal |= len(comma[2]) != 3 or len(comma[1]) > 3 or comma[1].startswith("0")
            return float(f"{comma[1]}.{comma[2]}")
        if "." in cell and not self._point:
            self._point = f"{place} holds {shown(cell)}, which may be {cell.replace('.', '')}"
        if not _BY_THOUSANDS.fullmatch(cell) and cell != "0":
            self._may_be_thousands = False
        elif "." not in cell:
            self._has_whole = True
        return value

    def refuse_thousands(self) -> None:
        """Raise ``FileFormatError`` if signs may stand between thousands, and nothing says otherwise."""
        if self._comma and (self._point or not self._commas_are_decimal):
            raise FileFormatError(f"{self._comma}; write decimals with a point, and nothing between thousands.")
        if self._may_be_thousands and self._has_whole and self._point:
            raise FileFormatError(f"{self._point}; write nothing between thousands, and all decimals or none.")
