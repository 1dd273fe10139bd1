"""What the columns of a table are, by their names: layer, expert, count, step or rank, however engines spell them.

A name is compared without case, blanks and signs, and the number at its end counts by itself: ``layer_id``, ``Layer
ID`` and ``layerIdx`` are layers; ``expert_7``, ``E7`` and ``7`` are the column of expert 7; ``L3_E7`` is that of
expert 7 in layer 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "COUNT",
    "DERIVED",
    "EXPERT",
    "INDEX",
    "LAYER",
    "RANK",
    "SLOT",
    "STEP",
    "TOKEN",
    "Column",
    "columns_of",
    "key_in",
    "whole_in",
]

LAYER, EXPERT, COUNT, STEP, RANK, SLOT, INDEX, DERIVED, TOKEN = (
    "layer", "expert", "count", "step", "rank", "slot", "index", "derived", "token",
)  # fmt: skip

_IDS = ("", "id", "ids", "idx", "index", "no", "nr", "num", "number", "name", "s")
_STEMS = {
    LAYER: ("layer", "moelayer", "layermoe", "decoderlayer", "hiddenlayer", "modellayer", "block", "l"),
    EXPERT: ("expert", "logicalexpert", "logical", "moeexpert", "routedexpert", "e"),
    SLOT: ("physicalexpert", "physical", "slot", "phyexpert", "globalphysicalexpert", "localexpert"),
    STEP: (
        "step", "iteration", "iter", "window", "forwardpass", "forward", "pass", "timestep", "time", "timestamp",
        "batch", "interval", "decodestep", "enginestep",
    ),
    RANK: ("rank", "eprank", "tprank", "dprank", "gpu", "device", "worker", "node"),
}  # fmt: skip
_EXACT = {
    COUNT: (
        "count", "counts", "token", "tokens", "tokencount", "tokencounts", "counttokens", "numtokens", "ntokens",
        "numtoken", "tokennum", "load", "loads", "workload", "logicalcount", "logicalcounts", "hits", "hit", "hitcount",
        "freq", "frequency", "activation", "activations", "activationcount", "numactivations", "selections",
        "selectioncount", "selected", "value", "values", "n", "total", "totaltokens", "totalcount", "expertcount",
        "expertload", "expertcounts", "experttokens", "routed", "routedtokens", "assignments", "numassignments",
        "numroutedtokens", "tokensperexpert", "usage", "usagecount", "calls",
    ),
    EXPERT: ("variable",),  # pandas.melt's
    INDEX: ("", "index", "id", "idx", "row", "rowid", "unnamed"),
    TOKEN: (
        "tokenid", "tokenidx", "tokenindex", "tokenno", "tokenpos", "tokenposition", "position", "positionid", "pos",
        "requestid", "reqid", "sequenceid", "seqid", "sampleid", "promptid",
    ),
    DERIVED: ("sum", "mean", "max", "min", "std", "average", "balancedness", "skew", "share", "percent", "ratio"),
}  # fmt: skip
_ROLES = {stem + end: role for role, stems in _STEMS.items() for stem in stems for end in _IDS}
_ROLES |= {name: role for role, names in _EXACT.items() for name in names}

_WHOLE = re.compile(r"\d+")
_NO_NAME = re.compile(r"unnamed:.*|level_\d{1,2}|__index_level_\d{1,2}__", re.IGNORECASE)  # what pandas calls an index
_TIME = re.compile(
    r"((?P<date>\d{4}-\d\d-\d\d)[T ])?(?P<time>\d\d:\d\d(:\d\d(\.\d{1,6})?)?)\d{0,3}"
    r"(Z|(?P<hours>[+-]\d\d):?(?P<minutes>\d\d))?"
)
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>\d{1,9})(\.0*)?\W*", re.DOTALL)
_CROSSED = re.compile(r"(\D*[^\W\d])[\W_]*(\d{1,9})([\W_]*[^\W\d]\D*?)[\W_]*(\d{1,9})(?P<rest>\D*)")


@dataclass(frozen=True)
class Column:
    """A name, what it stands for, the number at its end, None if none, and the layer of an expert of one layer."""

    name: str
    role: str | None
    number: int | None
    layer: int | None = None

    @property
    def is_key(self) -> bool:
        """Whether its cells say which count a row is, and are none."""
        return self.number is None and self.role in (LAYER, EXPERT, STEP, RANK, SLOT, INDEX)


def columns_of(names: Sequence[str]) -> list[Column]:
    """Return what each name stands for.

    >>> [column.role for column in columns_of(["Layer ID", "expertIdx", "token_count"])]
    ['layer', 'expert', 'count']
    >>> columns_of(["expert_7"])[0].number
    7
    """
    return [_column(name.strip()) for name in names]


def _column(name: str) -> Column:
    found = _NUMBERED.fullmatch(name)
    bare = re.sub(r"[\W_]", "", name).lower()
    if _NO_NAME.fullmatch(name):
        return Column(name, INDEX, None)
    if bare in _ROLES:
        return Column(name, _ROLES[bare], None)
    crossed = _crossed(name)
    if crossed is not None:
        return crossed
    if found is None:
        return Column(name, None, None)
    stem = re.sub(r"[\W_]", "", found["stem"]).lower()
    return Column(name, _ROLES.get(stem), int(found["number"]))


def _crossed(name: str) -> Column | None:
    """Return the column of one expert of one layer, None if the name says no such thing.

    >>> _crossed("model.layers.3.mlp.experts.7.count").layer
    3
    """
    found = _CROSSED.fullmatch(name)
    if found is None or _role_at_end(found["rest"]) not in (INDEX, COUNT):
        return None
    numbers = {_role_at_end(found[at]): int(found[at + 1]) for at in (1, 3)}
    return Column(name, EXPERT, numbers[EXPERT], numbers[LAYER]) if {*numbers} == {LAYER, EXPERT} else None


def _role_at_end(text: str) -> str | None:
    """Return what the last two words of a text stand for, or the last of them."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return _ROLES.get("".join(words[-2:])) or _ROLES.get("".join(words[-1:]))


def key_in(text: str, column: Column) -> float | None:
    """Return the number that a cell of a column of keys stands for: the one in it, or, of a step, its time in seconds.

    >>> step, layer = columns_of(["timestamp", "layer"])
    >>> key_in("1970-01-01 00:01:00.5", step), key_in("layers.3", layer), key_in("00:01", layer)
    (60.5, 3, None)
    """
    number = whole_in(text)
    return _seconds_in(text.strip()) if number is None and column.role == STEP else number


def _seconds_in(text: str) -> float | None:
    """Return a time as ISO 8601 has it, without a date too, as seconds from some moment, None if it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        moment = np.datetime64(f"{found['date'] or '1970-01-01'}T{found['time']}", "us")
    except ValueError:  # the 31st of February
        return None
    hours, minutes = (int(part or 0) for part in (found["hours"], found["minutes"]))
    return moment.astype(np.int64).item() / 1e6 - (60 * hours + (-minutes if hours < 0 else minutes)) * 60


def whole_in(text: str) -> int | None:
    """Return the one whole number in a text such as ``model.layers.3.mlp``, None if there is none, or several.

    >>> whole_in("model.layers.3.mlp"), whole_in("layer_12"), whole_in("3 of 4")
    (3, 12, None)
    """
    found = _WHOLE.findall(text)
    return int(found[0]) if len(found) == 1 and len(found[0]) < 10 else None
