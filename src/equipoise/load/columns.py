"""What the columns of a table are, by their names: layer, expert, count, step or rank, however engines spell them.

A name is compared without case, blanks and signs, and the number at its end counts by itself: ``layer_id``, ``Layer
ID`` and ``layerIdx`` are layers; ``expert_7``, ``E7`` and ``7`` are the column of expert 7.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["COUNT", "EXPERT", "INDEX", "LAYER", "RANK", "SLOT", "STEP", "Column", "columns_of", "whole_in"]

LAYER, EXPERT, COUNT, STEP, RANK, SLOT, INDEX, DERIVED = (
    "layer", "expert", "count", "step", "rank", "slot", "index", "derived",
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
    INDEX: ("", "index", "id", "idx", "row", "rowid", "unnamed"),
    DERIVED: ("sum", "mean", "max", "min", "std", "average", "balancedness", "skew", "share", "percent", "ratio"),
}  # fmt: skip
_ROLES = {stem + end: role for role, stems in _STEMS.items() for stem in stems for end in _IDS}
_ROLES |= {name: role for role, names in _EXACT.items() for name in names}

_WHOLE = re.compile(r"\d+")
_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>\d{1,9})(\.0*)?\W*", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """A name, what it is called without case and signs, what it stands for, and the number at its end, None if none."""

    name: str
    role: str | None
    number: int | None

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
    if name.lower().startswith("unnamed:") or found is None or bare in _ROLES:
        return Column(name, _ROLES.get("unnamed" if name.lower().startswith("unnamed:") else bare), None)
    stem = re.sub(r"[\W_]", "", found["stem"]).lower()
    return Column(name, _ROLES.get(stem), int(found["number"]))


def whole_in(text: str) -> int | None:
    """Return the one whole number in a text such as ``model.layers.3.mlp``, None if there is none, or several.

    >>> whole_in("model.layers.3.mlp"), whole_in("layer_12"), whole_in("3 of 4")
    (3, 12, None)
    """
    found = _WHOLE.findall(text)
    return int(found[0]) if len(found) == 1 and len(found[0]) < 10 else None
