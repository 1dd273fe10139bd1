"""What is asked: a load to place on a cluster.

``Cluster`` says what there is to hold experts, ``PlacementProblem`` adds the load and the
expert groups. Both are frozen and checked when built; everything downstream trusts them.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, as_items, count, finite
from equipoise.arrays import CheckedLoad, as_load_and_steps, as_numpy, check_table
from equipoise.errors import IndivisibleError, InfeasibleError, InvalidInputError, counted, shown
from equipoise.forecasting import Forecast
from equipoise.latency import LatencyModel
from equipoise.limits import MOST_SLOTS

log = logging.getLogger("equipoise")
FEWEST_TO_DOUBT = 8  # experts: of fewer, all may well be everywhere

__all__ = ["Cluster", "PlacementProblem", "as_problem", "check_counts", "count", "finite"]


@dataclass(frozen=True)
class Cluster:
    """The EP ranks of one deployment and the slots that each of them has in a layer.

    Parameters
    ----------
    num_ranks : int
        EP ranks, numbered 0 to ``num_ranks - 1``; node ``i`` holds consecutive ranks.
    slots_per_rank : int
        Experts that one rank holds in each layer. Rank ``r`` owns slots
        ``r * slots_per_rank`` to ``(r + 1) * slots_per_rank - 1``.
    num_nodes : int, default 1
        Must divide ``num_ranks``.

    Raises
    ------
    InvalidInputError
        If a count is not a whole number of at least 1, or there are more than 131,072 slots.
    IndivisibleError
        If the ranks do not spread evenly over the nodes.

    Examples
    --------
    >>> Cluster(num_ranks=32, slots_per_rank=9, num_nodes=4).num_slots
    288
    """

    num_ranks: int
    slots_per_rank: int
    num_nodes: int = 1

    def __post_init__(self) -> None:
        for name in ("num_ranks", "slots_per_rank", "num_nodes"):
            object.__setattr__(self, name, count(getattr(self, name), name))
        if self.num_slots > MOST_SLOTS:
            raise InvalidInputError(
                f"{shown(self.num_ranks)} ranks of {shown(self.slots_per_rank)} slots have more than {MOST_SLOTS:,} in "
                "a layer, which is more than is planned for. Use fewer."
            )
        if self.num_ranks % self.num_nodes:
            raise IndivisibleError(
                f"{self.num_ranks} ranks do not spread evenly over {shown(self.num_nodes)} nodes. "
                f"Use a number of ranks that {shown(self.num_nodes)} divides."
            )

    @classmethod
    def from_slots(cls, num_ranks: int, num_slots: int, num_nodes: int = 1) -> Cluster:
        """Build a cluster from the number of slots in a layer, as engines count them.

        >>> Cluster.from_slots(num_ranks=32, num_slots=288)
        Cluster(num_ranks=32, slots_per_rank=9, num_nodes=1)
        """
        num_ranks, num_slots = count(num_ranks, "num_ranks"), count(num_slots, "num_slots", most=MOST_SLOTS)
        if num_slots % num_ranks:
            more = num_ranks - num_slots % num_ranks
            raise IndivisibleError(
                f"{num_slots} slots do not spread evenly over {shown(num_ranks)} ranks. Add {counted(more, 'slot')} or "
                f"use a number of ranks that divides {num_slots}."
            )
        return cls(num_ranks, num_slots // num_ranks, num_nodes)

    @property
    def num_slots(self) -> int:
        """Slots in one layer, counted over all ranks."""
        return self.num_ranks * self.slots_per_rank

    @property
    def ranks_per_node(self) -> int:
        """Ranks that one node holds."""
        return self.num_ranks // self.num_nodes


def check_counts(num_experts: int, cluster: Cluster, num_expert_groups: int | None) -> None:
    """Insist that the slots hold the experts and that the groups, if any, divide them."""
    if cluster.num_slots < num_experts:
        raise InfeasibleError(
            f"{cluster.num_slots} slots cannot hold {num_experts} logical experts, which need one slot each. "
            f"Add at least {num_experts - cluster.num_slots} slots per layer."
        )
    if num_expert_groups is not None and num_experts % num_expert_groups:
        raise IndivisibleError(
            f"{num_experts} logical experts do not form {shown(num_expert_groups)} equal groups. "
            f"Use a number of groups that divides {num_experts}, or None to plan globally."
        )


def _doubt(num_experts: int, cluster: Cluster) -> None:
    """Say so where each rank has room for every expert: the slots of a layer were perhaps given as those of a rank."""
    slots, ranks = cluster.slots_per_rank, cluster.num_ranks
    if ranks > 1 and slots >= num_experts >= FEWEST_TO_DOUBT and slots % ranks == 0:
        log.warning(
            "each of %d ranks has %d slots a layer, room for all %d experts; if a layer has %d slots in all, those are "
            "%d a rank: Cluster.from_slots(%d, %d).",
            ranks, slots, num_experts, slots, slots // ranks, ranks, slots,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class PlacementProblem:
    """A load, the cluster that is to carry it, and the expert groups, if any.

    Parameters
    ----------
    load : array, shape (num_layers, num_logical_experts) or (num_steps, num_layers, num_logical_experts)
        Tokens routed to each logical expert. Integer or float, numpy or torch on any device, or a
        ``LoadStatistics``. Finite and not negative; steps are summed; a layer may be all zeros.
        Kept as a read-only float64 copy of shape (num_layers, num_logical_experts).
        Or a ``Forecast``: then plans are for what may come, and the load is what it expects.
    cluster : Cluster
    num_expert_groups : int or None, default None
        Equal groups of consecutive experts that must stay whole on a node. The problem is
        hierarchical when the number of nodes divides the number of groups; otherwise, and for
        ``None``, every expert may go to every rank.
    latency : LatencyModel or None, default None
        What tokens cost in time. With one, ``equipoise.solve`` minimises the expected time of the busiest rank: which
        replicas are active is part of the plan. None balances tokens.
    routed_per_step : number, sequence of numbers or None, default None
        With ``latency``: routed tokens (tokens times top k) of all ranks in one forward of a layer. Several batch sizes
        get one placement and a table of shares each. Kept as it is, or as an ascending tuple.
    forecast : Forecast or None, default None
        That of which ``load`` is what is expected; set where ``load`` is given as one.

    Raises
    ------
    InvalidInputError
        If the load has another shape, is empty, or holds a NaN, an infinity or a negative number; if the forecast is of
        another load; if one of ``latency`` and ``routed_per_step`` is given without the other, or a batch size is no
        number from 1 to 1e12.
    IndivisibleError
        If the groups do not divide the experts.
    InfeasibleError
        If there are fewer slots than logical experts.

    Examples
    --------
    >>> problem = PlacementProblem([[4, 2, 1, 1]], Cluster(num_ranks=2, slots_per_rank=3))
    >>> problem.num_layers, problem.num_logical_experts, problem.num_redundant_experts
    (1, 4, 2)
    """

    load: NDArray[np.float64]
    cluster: Cluster
    num_expert_groups: int | None = None
    latency: LatencyModel | None = None
    routed_per_step: float | tuple[float, ...] | None = None
    forecast: Forecast | None = None
    steps: NDArray[np.float64] | None = field(init=False, repr=False, default=None)  # where several were summed

    if TYPE_CHECKING:  # any array goes in, float64 comes out

        def __init__(
            self,
            load: Any,
            cluster: Cluster,
            num_expert_groups: int | None = None,
            latency: LatencyModel | None = None,
            routed_per_step: Any = None,
            forecast: Forecast | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.cluster, Cluster):
            raise InvalidInputError(
                f"cluster is {shown(self.cluster)}; pass a Cluster(num_ranks=..., slots_per_rank=...)."
            )
        load = self._set_load()
        if self.num_expert_groups is not None:
            object.__setattr__(self, "num_expert_groups", count(self.num_expert_groups, "num_expert_groups"))
        check_counts(load.shape[1], self.cluster, self.num_expert_groups)
        _doubt(load.shape[1], self.cluster)
        check_table(len(load), self.cluster.num_slots, "the problem")
        if self.latency is not None:
            as_instance(self.latency, LatencyModel, "latency", "a LatencyModel, or None")
        if (self.latency is None) != (self.routed_per_step is None):
            given, other = (
                ("latency", "routed_per_step") if self.latency is not None else ("routed_per_step", "latency")
            )
            raise InvalidInputError(f"{given} is given without {other}; time takes both: pass {other} too.")
        if self.routed_per_step is not None:
            object.__setattr__(self, "routed_per_step", _batches(self.routed_per_step))

    def _set_load(self) -> NDArray[np.float64]:
        """Set and return the load, what is expected of it if that is a forecast; set the steps that were summed."""
        given: Any = self.load
        forecast = given if isinstance(given, Forecast) else self.forecast
        steps = None
        if forecast is None:
            load, steps = as_load_and_steps(given)
        else:
            load = as_instance(forecast, Forecast, "forecast", "what equipoise.forecast(windows) returns").expected
            if given is not forecast and given is not load:
                raise InvalidInputError("load is another than the forecast expects; pass the forecast as load alone.")
        object.__setattr__(self, "load", load)
        object.__setattr__(self, "forecast", forecast)
        object.__setattr__(self, "steps", steps)
        return load

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.load.shape[0])

    @property
    def num_logical_experts(self) -> int:
        """Experts that the router can choose in a layer."""
        return int(self.load.shape[1])

    @property
    def num_redundant_experts(self) -> int:
        """Slots in a layer beyond one for each logical expert."""
        return self.cluster.num_slots - self.num_logical_experts

    def of_layers(self, layers: NDArray[np.int64]) -> PlacementProblem:
        """Return the same question for some of the layers, by number."""
        layers = as_numpy(layers, "layers")
        if (
            layers.ndim != 1
            or layers.dtype.kind not in "iu"
            or not 0 <= layers.min(initial=0) <= layers.max(initial=-1)
        ):
            raise InvalidInputError(f"layers is {shown(layers)}; it must list numbers of layers, at least one.")
        if layers.max() >= self.num_layers:
            raise InvalidInputError(f"layers names {layers.max()}; there are layers 0 to {self.num_layers - 1}.")
        chosen: Any = CheckedLoad(self.load[layers]) if self.forecast is None else self.forecast.of_layers(layers)
        return replace(self, load=chosen, forecast=None)

    @property
    def without_forecast(self) -> PlacementProblem:
        """The same question for the load alone: this one, if it has no forecast."""
        return self if self.forecast is None else replace(self, load=self._checked, forecast=None)

    @property
    def batch_sizes(self) -> tuple[float, ...]:
        """The batch sizes of ``routed_per_step``, ascending; none without a latency model."""
        given = self.routed_per_step
        return () if given is None else given if isinstance(given, tuple) else (given,)

    @property
    def in_tokens(self) -> PlacementProblem:
        """The same question without time: what balances tokens."""
        if self.latency is None:
            return self
        load: Any = self._checked if self.forecast is None else self.forecast
        return replace(self, load=load, forecast=None, latency=None, routed_per_step=None)

    @property
    def _checked(self) -> Any:
        return CheckedLoad(self.load)

    def mean_tokens(self, routed_per_step: float) -> NDArray[np.float64]:
        """Return the mean tokens of each expert in a step [num_layers, num_logical_experts]; none in an empty layer."""
        total = self.load.sum(axis=1, keepdims=True)
        share = np.divide(self.load, total, out=np.zeros_like(self.load), where=total > 0)
        return np.asarray(share * finite(routed_per_step, "routed_per_step"))

    @property
    def is_hierarchical(self) -> bool:
        """Whether groups of experts must stay whole on a node."""
        return (
            self.num_expert_groups is not None
            and self.cluster.num_nodes > 1
            and self.num_expert_groups % self.cluster.num_nodes == 0
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the question: the same on every machine that sees the same load, or windows, and cluster."""
        cluster = self.cluster
        head: tuple[Any, ...] = (
            *self.load.shape, cluster.num_ranks, cluster.slots_per_rank, cluster.num_nodes, self.num_expert_groups
        )  # fmt: skip
        if self.latency is not None:
            head += (*self.latency.constants, *self.batch_sizes)
        digest = hashlib.sha256(repr(head).encode())
        digest.update(np.ascontiguousarray(self.load, "<f8").data)
        if self.forecast is not None:
            digest.update(self.forecast.digest.encode())
        return digest.hexdigest()


MOST_ROUTED = 1e12
MOST_BATCHES = 64


def _batches(value: Any) -> float | tuple[float, ...]:
    """Return one batch size, or several as an ascending tuple."""
    rule = f"a number from 1 to {MOST_ROUTED:g}, or a sequence of them, such as 64 * 32 * 8"
    try:
        sizes: Any = as_items(value)
    except TypeError:
        sizes = (value,)
    if not 0 < len(sizes) <= MOST_BATCHES:
        raise InvalidInputError(f"routed_per_step has {len(sizes)} batch sizes; give 1 to {MOST_BATCHES}.")
    numbers = sorted({finite(size, "routed_per_step", rule) for size in sizes})
    if numbers[0] < 1 or numbers[-1] > MOST_ROUTED:
        raise InvalidInputError(f"routed_per_step is {shown(value)}; it must be {rule}.")
    return tuple(numbers) if len(sizes) > 1 else numbers[0]


def as_problem(value: Any) -> PlacementProblem:
    """Return ``value`` if it is a problem, or say how to pose one."""
    return as_instance(value, PlacementProblem, "problem", "a PlacementProblem(load, cluster)")
