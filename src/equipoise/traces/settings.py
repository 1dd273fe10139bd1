"""What a replay is asked: which planners, with how many slots, how often, and how much may move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from equipoise.arguments import as_instance, as_items, as_names, count
from equipoise.errors import InvalidInputError, UnknownNameError, listed, shown
from equipoise.latency.model import LatencyModel
from equipoise.migration.schedule import LinkSpeeds
from equipoise.problem import Cluster
from equipoise.restarts import check_seed

__all__ = ["HEEDLESS", "MOVING", "Asked", "Setting", "settings_of"]

MOVING = ("stalled", "overlapped")
HEEDLESS = ("none", "first-window", "oracle")  # planners to whom cadence and limit are nothing
MOST_SETTINGS = 4096
DEFAULT_LINKS = LinkSpeeds()


@dataclass(frozen=True, order=True)
class Setting:
    """One way to run: a planner, slots in a layer, windows from plan to plan, and transfers in a layer at most."""

    planner: str
    slots: int
    every: int
    max_transfers: int | None

    def __str__(self) -> str:
        if self.planner in HEEDLESS:
            return f"{self.planner}, {self.slots} slots"
        limit = "" if self.max_transfers is None else f", at most {self.max_transfers} transfers a layer"
        often = "every window" if self.every == 1 else f"every {self.every} windows"
        return f"{self.planner}, {self.slots} slots, {often}{limit}"


@dataclass(frozen=True)
class Asked:
    """What holds for all settings of a replay.

    Attributes
    ----------
    cluster : Cluster
        Ranks and nodes; its slots are those of the settings.
    window : int
        Steps of the trace in a window.
    history : int or None
        Windows that a plan is made from; None are those since the plan before.
    num_expert_groups : int or None
    dispatch : str or None
        A rule of ``equipoise.dispatch.rules``.
    experts_per_token : int or None
    bytes_per_expert : int or None
    links : LinkSpeeds
    latency : LatencyModel or None
    moving : str
        ``stalled``: steps wait while weights move. ``overlapped``: they do not.
    seed : int
    """

    cluster: Cluster
    window: int = 1
    history: int | None = None
    num_expert_groups: int | None = None
    dispatch: str | None = None
    experts_per_token: int | None = None
    bytes_per_expert: int | None = None
    links: LinkSpeeds = DEFAULT_LINKS
    latency: LatencyModel | None = None
    moving: str = "stalled"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("window", "history", "num_expert_groups", "experts_per_token", "bytes_per_expert"):
            value = getattr(self, name)
            if value is not None or name == "window":
                object.__setattr__(self, name, count(value, name, most=2**53))
        object.__setattr__(self, "seed", check_seed(self.seed))
        if not isinstance(self.cluster, Cluster):
            raise InvalidInputError(
                f"cluster is {shown(self.cluster)}; pass a Cluster(num_ranks=..., slots_per_rank=...)."
            )
        if not isinstance(self.links, LinkSpeeds):
            raise InvalidInputError(f"links is {shown(self.links)}; pass a LinkSpeeds(remote=..., ...).")
        if self.latency is not None:
            as_instance(self.latency, LatencyModel, "latency", "a LatencyModel, such as LatencyModel.preset('h200')")
        if not isinstance(self.moving, str) or self.moving not in MOVING:
            raise UnknownNameError(f"moving is {shown(self.moving)}; it must be one of {listed(MOVING)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return what was asked as plain values, but for the links: what a replay that goes on must have in common."""
        return {
            "num_ranks": self.cluster.num_ranks,
            "num_nodes": self.cluster.num_nodes,
            "num_expert_groups": self.num_expert_groups,
            "window": self.window,
            "history": self.history,
            "dispatch": self.dispatch,
            "experts_per_token": self.experts_per_token,
            "bytes_per_expert": self.bytes_per_expert,
            "latency": None if self.latency is None else self.latency.to_dict(),
            "moving": self.moving,
            "seed": self.seed,
        }

    def cluster_of(self, slots: int) -> Cluster:
        """Return the cluster with so many slots in a layer."""
        return Cluster.from_slots(self.cluster.num_ranks, slots, self.cluster.num_nodes)


def settings_of(planners: Any, slots: Any, every: Any, max_transfers: Any, limited: Sequence[str]) -> list[Setting]:
    """Return every combination, each once, in the order given; planners that are not ``limited`` know no limit.

    Raises
    ------
    InvalidInputError
        If a value breaks its rule.
    """
    names = list(dict.fromkeys(as_names(planners, "planners")))
    sizes = _each(slots, "slots", 1)
    cadences = _each(every, "every", 1)
    limits = _each(max_transfers, "max_transfers", 0, none=True)
    found = [
        Setting(name, size, cadence, limit)
        for name, size in product(names, sizes)
        for cadence, limit in product(cadences, limits if name in limited else [None])
    ]
    if not found:
        raise InvalidInputError("no planner is named; name one at least, such as joint-descent.")
    if len(found) > MOST_SETTINGS:
        raise InvalidInputError(f"{len(found):,} settings are asked for; ask for at most {MOST_SETTINGS:,} at once.")
    return found


def _each(value: Any, name: str, least: int, none: bool = False) -> list[Any]:
    """Return one number, or several, as a list of numbers, each once."""
    try:
        values = as_items(value)
    except TypeError:
        values = (value,)
    otherwise = ", or None" if none else ""
    checked = [
        None if none and each is None else count(each, name, least=least, otherwise=otherwise, most=2**31 - 1)
        for each in values
    ]
    if not checked:
        raise InvalidInputError(f"{name} is {shown(value)}; it must hold a number at least.")
    return list(dict.fromkeys(checked))
