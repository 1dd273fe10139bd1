"""What came of a replay: a row for each setting, ceilings, series for pictures, and a recommendation."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count
from equipoise.errors import InvalidInputError, listed, shown
from equipoise.traces.recommend import Recommendation
from equipoise.traces.settings import Asked, Setting

__all__ = ["Replay", "Row", "Series"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One setting in numbers; None where it was not asked for or is not known.

    Attributes
    ----------
    planner : str
    slots : int
    every : int
        Windows from plan to plan.
    max_transfers : int or None
        In a layer for each plan, at most.
    balancedness_mean, balancedness_p10, balancedness_worst : float
        Mean, tenth percentile and least over the windows, of the mean over layers of mean / max rank load.
    balancedness_error : float or None
        Standard error of the mean, taking windows for independent; None with fewer than two.
    planned_mean : float
        What the plans in force promised, on what they were made from.
    realised_mean : float or None
        The same as ``balancedness_mean`` for single steps, by the dispatch rule.
    active_experts : float or None
        Replicas with tokens in a step, on the rank that has most, mean over layers and steps.
    transfers_per_window : float or None
        Over all layers; None for the oracle, whose moves are free.
    bytes_per_window, moving_seconds_per_window : float or None
        What these transfers carry and take, with ``bytes_per_expert``.
    microseconds : float or None
        Of a step, summed over layers, the slowest rank of each by the latency model; mean over windows.
    net_microseconds : float or None
        The same with moving paid: where steps wait, what a window's moves take is spread over its steps; where they do
        not, moves cost only what they take longer than the steps.
    """

    planner: str
    slots: int
    every: int
    max_transfers: int | None
    balancedness_mean: float
    balancedness_p10: float
    balancedness_worst: float
    balancedness_error: float | None
    planned_mean: float
    realised_mean: float | None
    active_experts: float | None
    transfers_per_window: float | None
    bytes_per_window: float | None
    moving_seconds_per_window: float | None
    microseconds: float | None
    net_microseconds: float | None

    @property
    def setting(self) -> Setting:
        """The setting that it is of."""
        return Setting(self.planner, self.slots, self.every, self.max_transfers)


@dataclass(frozen=True, eq=False)
class Series:
    """One setting over time.

    Attributes
    ----------
    balancedness, net : float64 array, shape (windows scored,)
        Of each scored window: the mean over layers, and net microseconds a step, NaN without a latency model.
    by_layer : float64 array, shape (stretches, num_layers)
        Mean over the scored windows of each stretch of the trace; NaN where it has none.
    worst : tuple
        Balancedness, window, layer and rank loads of its worst layer; window -1 for the oracle.
    """

    balancedness: Floats
    net: Floats
    by_layer: Floats
    worst: tuple[float, int, int, tuple[float, ...]]


CEILINGS = {"oracle", "sampling", "perfect"}
COUNTS = (
    "num_layers", "num_logical_experts", "num_steps", "num_windows", "windows_done", "windows_scored", "windows_idle"
)  # fmt: skip
KINDS: dict[str, Any] = {
    "source": str, "asked": Asked, "rows": tuple, "ceilings": dict, "recommendation": Recommendation | None,
    "by_batch": tuple, "series": dict, "scored": np.ndarray, "state": dict | None,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Replay:
    """What ``equipoise.replay`` returns.

    Attributes
    ----------
    source : str
        Of the trace.
    num_layers, num_logical_experts, num_steps : int
        Of the trace.
    asked : Asked
    num_windows : int
        Whole windows of the trace.
    windows_done, windows_scored, windows_idle : int
        Walked; scored, which the first is not, because nothing comes before it; and without a token.
    rows : tuple of Row
        One for each setting, in the order asked for.
    ceilings : dict of int to dict of str to float
        By slots: ``oracle``, plans that know the window; ``sampling``, the same plans on another sample of its tokens;
        ``perfect``, which is 1.
    recommendation : Recommendation or None
        None where only the oracle was asked for.
    by_batch : tuple of dict
        With a latency model and experts a token known: ``slots``, ``tokens_per_rank`` and the expected ``microseconds``
        of a step, for what the setting with the best balancedness held at the end, on the last load.
    series : dict of Setting to Series
    scored : int64 array
        The numbers of the scored windows.
    state : dict or None
        What going on takes, where the walk was interrupted.

    Examples
    --------
    >>> import equipoise as eq
    >>> found = eq.replay([[[6, 2, 1, 1]]] * 4, eq.Cluster(num_ranks=2, slots_per_rank=2), planners=["none", "oracle"])
    >>> [(row.planner, row.balancedness_mean) for row in found.rows]
    [('none', 0.625), ('oracle', 0.7142857142857143)]
    """

    source: str
    num_layers: int
    num_logical_experts: int
    num_steps: int
    asked: Asked
    num_windows: int
    windows_done: int
    windows_scored: int
    windows_idle: int
    rows: tuple[Row, ...]
    ceilings: dict[int, dict[str, float]]
    recommendation: Recommendation | None
    by_batch: tuple[dict[str, float], ...]
    series: dict[Setting, Series] = field(repr=False)
    scored: NDArray[np.int64] = field(repr=False)
    state: dict[str, Any] | None = field(repr=False, default=None)

    def __post_init__(self) -> None:
        for name, kind in KINDS.items():
            as_instance(getattr(self, name), kind, name, "what equipoise.replay returns")
        for name in COUNTS:
            object.__setattr__(self, name, count(getattr(self, name), name, least=0))
        if not self.rows or not all(isinstance(row, Row) for row in self.rows):
            raise InvalidInputError(f"rows is {shown(self.rows)}; it must be a tuple of Row, one at least.")
        if not all(isinstance(each, dict) and set(each) == CEILINGS for each in self.ceilings.values()):
            raise InvalidInputError(f"ceilings is {shown(self.ceilings)}; it must name {listed(sorted(CEILINGS))}.")

    @property
    def interrupted(self) -> bool:
        """Whether not all windows were walked."""
        return self.windows_done < self.num_windows

    @property
    def measure(self) -> str:
        """What settings are compared by: ``net_microseconds`` with a latency model, else ``balancedness_mean``."""
        return "balancedness_mean" if self.asked.latency is None else "net_microseconds"

    def ranked(self) -> list[Row]:
        """Return the rows, the best first; the oracle where it belongs. Equal ones keep the order asked for."""
        sign = 1.0 if self.measure == "net_microseconds" else -1.0
        return sorted(self.rows, key=lambda row: sign * getattr(row, self.measure))

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the series, as plain values."""
        return {
            "source": self.source,
            "num_layers": self.num_layers,
            "num_logical_experts": self.num_logical_experts,
            "num_steps": self.num_steps,
            **self.asked.to_dict(),
            "links": asdict(self.asked.links),
            "settings": [list(astuple(row.setting)) for row in self.rows],
            "num_windows": self.num_windows,
            "windows_done": self.windows_done,
            "windows_scored": self.windows_scored,
            "windows_idle": self.windows_idle,
            "interrupted": self.interrupted,
            "measure": self.measure,
            "rows": [asdict(row) for row in self.rows],
            "ceilings": [{"slots": slots, **values} for slots, values in self.ceilings.items()],
            "by_batch": list(self.by_batch),
            "recommendation": None if self.recommendation is None else self.recommendation.to_dict(),
            "state": self.state,
        }

    def to_json(self) -> str:
        """Return ``to_dict`` as JSON in one line."""
        return json.dumps(self.to_dict())

    def summary(self) -> str:
        """Return lines for people: the rows from best to worst, the ceilings, and what is recommended."""
        from equipoise.traces.summary import summary

        return summary(self)

    def _repr_html_(self) -> str:
        from equipoise.traces.page import fragment

        return fragment(self)
