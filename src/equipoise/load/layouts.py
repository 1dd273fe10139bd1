"""What each column of a table is, decided from its names alone: keys, counts, or neither; and whether rows are long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.errors import FileFormatError, listed, shown
from equipoise.load.columns import COUNT, DERIVED, EXPERT, INDEX, LAYER, RANK, SLOT, STEP, TOKEN, Column, columns_of
from equipoise.load.documents import no_keys

__all__ = ["Layout", "is_header", "layout_of"]


@dataclass(frozen=True)
class Layout:
    """What each column of a table is: ``keys`` say which counts a row holds, ``values`` are counts.

    ``is_long``: a row is one count; ``is_turned``: a row is an expert, a column a layer.
    """

    columns: tuple[Column, ...]
    keys: tuple[int, ...]
    values: tuple[int, ...]
    is_long: bool = False
    is_turned: bool = False

    def is_in_use(self, column: int) -> bool:
        """Whether the cells of a column must be numbers."""
        return column in self.keys or column in self.values


def is_header(cells: Sequence[float | None]) -> bool:
    """Whether a first line, as numbers and None, names columns: words, or the numbers 0 to E - 1 in any order."""
    if any(cell is None for cell in cells):
        return True
    return len(cells) > 1 and sorted(c for c in cells if c is not None) == list(range(len(cells)))


def layout_of(names: Sequence[str], path: Path, key: str | None = None) -> Layout:
    """Decide from its names what each column of a table is.

    Raises
    ------
    FileFormatError
        If a name comes twice, or no reading of them is safe. The message names the column.
    """
    columns = columns_of(names)
    plain = [column.name for column in columns if column.name]
    twice = next((name for name in plain if plain.count(name) > 1), None) if len(set(plain)) < len(plain) else None
    if twice is not None:
        raise FileFormatError(f"{path} has two columns called {shown(twice)}; keep one of them.")
    roles: dict[str | None, list[int]] = {}
    for i, column in enumerate(columns):
        if column.number is None:
            roles.setdefault(column.role, []).append(i)
    numbered = [i for i, column in enumerate(columns) if column.number is not None]
    if SLOT in roles and len(numbered) < 2:
        raise FileFormatError(
            f"{path} counts by slot (column {shown(columns[roles[SLOT][0]].name)}), which says nothing about experts "
            "without the placement in force; name a file of counts by logical expert."
        )
    if EXPERT in roles and len(numbered) < 2:
        return _long(columns, roles, path, key)
    if EXPERT in roles:
        return _turned(columns, roles, numbered, path)
    return _wide(columns, roles, numbered, path, key)


def _long(columns: list[Column], roles: dict[str | None, list[int]], path: Path, key: str | None) -> Layout:
    for role in (LAYER, EXPERT, STEP, RANK):
        if len(roles.get(role, ())) > 1:
            names = listed(columns[i].name for i in roles[role])
            raise FileFormatError(f"{path} has several columns for the {role}: {names}; keep one of them.")
    counts = roles.get(COUNT, [])
    if TOKEN in roles and not counts and key is None:
        raise FileFormatError(
            f"{path} has a row for each token that was routed (column {shown(columns[roles[TOKEN][0]].name)}); a load "
            "is their number: count the rows of each layer and expert."
        )
    if key is not None:
        counts = [i for i, column in enumerate(columns) if column.name == key]
        if not counts:
            raise FileFormatError(f"{path} has no column {shown(key)}; it has {listed(c.name for c in columns)}.")
    elif not counts:
        # One column that is left over can only be the counts; pandas calls those of a series 0, or nothing.
        counts = [i for i, column in enumerate(columns) if column.role is None or column.number is not None]
        counts = counts or [i for i in roles.get(INDEX, ()) if i == len(columns) - 1]
    if len(counts) != 1:
        names = listed(columns[i].name for i in counts) if counts else listed(c.name for c in columns)
        raise FileFormatError(
            f"{path} names experts, and {'several columns could be' if counts else 'no column is'} their counts: "
            f"{names}. {'Name one of them as key' if counts else 'Call one count'}."
        )
    keys = tuple(roles[role][0] for role in (LAYER, EXPERT, STEP, RANK) if role in roles)
    return Layout(tuple(columns), keys, (counts[0],), is_long=True)


def _turned(columns: list[Column], roles: dict[str | None, list[int]], numbered: list[int], path: Path) -> Layout:
    """Return the layout of a table whose rows are experts, and whose columns layers."""
    keys = roles[EXPERT]
    others = [i for role in (LAYER, STEP, RANK) for i in roles.get(role, ())]
    if len(keys) > 1 or others or {columns[i].role for i in numbered} - {INDEX, LAYER}:
        both = listed(columns[i].name for i in (*keys, *others, numbered[0]))
        raise FileFormatError(
            f"{path} names the expert both of a row and of a column: {both}. Keep one, and one count a row or a column "
            "for each expert."
        )
    return Layout(tuple(columns), tuple(keys), tuple(numbered), is_turned=True)


def _wide(
    columns: list[Column], roles: dict[str | None, list[int]], numbered: list[int], path: Path, key: str | None
) -> Layout:
    if key is not None:
        raise no_keys(path, key)
    bare = roles.get(None, []) + roles.get(COUNT, []) + roles.get(DERIVED, [])
    keys = [i for role in (LAYER, STEP, INDEX) for i in roles.get(role, ())]
    if RANK in roles:
        raise FileFormatError(
            f"{path} has a column {shown(columns[roles[RANK][0]].name)}; a load is the sum over ranks. Sum them first."
        )
    if numbered:
        others = {columns[i].role for i in numbered} & {STEP, RANK, SLOT}
        if others:
            raise FileFormatError(
                f"{path} has a column for each {others.pop()}; a load has a column for each expert, or a row for each "
                "layer and expert."
            )
        crossed = [i for i in numbered if columns[i].layer is not None]
        if crossed and (len(crossed) < len(numbered) or LAYER in roles):
            other = next((i for i in numbered if i not in crossed), roles.get(LAYER, numbered)[0])
            raise FileFormatError(
                f"{path} has columns for experts of one layer, as {shown(columns[crossed[0]].name)}, beside "
                f"{shown(columns[other].name)}; keep one kind."
            )
        odd = [i for i in roles.get(None, ()) if columns[i].name]
        if odd:
            raise FileFormatError(
                f"{path}, line 1, column {odd[0] + 1} holds {shown(columns[odd[0]].name)} beside the numbers of "
                "experts; name it layer or step, or remove it."
            )
        turned = all(columns[i].role == LAYER for i in numbered)
        return Layout(tuple(columns), tuple(keys), tuple(numbered), is_turned=turned)
    if COUNT in roles and (keys or len(bare) == 1):
        raise FileFormatError(
            f"{path} has a column {shown(columns[roles[COUNT][0]].name)} and none that names the expert; "
            f"its columns are {listed(c.name for c in columns)}. Add the expert of each row."
        )
    if not bare:
        raise FileFormatError(f"{path} has no column of counts; its columns are {listed(c.name for c in columns)}.")
    return Layout(tuple(columns), tuple(keys), tuple(sorted(bare)))
