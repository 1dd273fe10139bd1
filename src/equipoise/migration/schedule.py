"""What moves when: rounds of transfers from one placement to another, in which no expert is ever lost. Arrays only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count, finite
from equipoise.arrays import as_numpy
from equipoise.errors import IndivisibleError, InvalidInputError, InvalidPlacementError, shown
from equipoise.limits import MOST_SLOTS
from equipoise.migration.rounds import COLUMNS, Links, join_layers, schedule_layers
from equipoise.placement import Placement
from equipoise.replan.in_force import check_lost_ranks
from equipoise.threads import blocks, for_each, part

__all__ = ["LinkSpeeds", "MigrationSchedule"]

Ints = NDArray[np.int32]


@dataclass(frozen=True)
class LinkSpeeds:
    """How fast weights travel, for estimates.

    Parameters
    ----------
    local, node, remote : float
        Bytes per second of one copy within a rank, to another rank of the node, and to another node.
    latency : float
        Seconds that a round costs beyond its bytes.
    """

    local: float = 1e12
    node: float = 200e9
    remote: float = 25e9
    latency: float = 50e-6

    def __post_init__(self) -> None:
        for name in ("local", "node", "remote", "latency"):
            value = getattr(self, name)
            number = finite(value, name, "a finite number above 0")
            if number == 0:
                raise InvalidInputError(f"{name} is {shown(value)}; it must be a finite number above 0.")
            object.__setattr__(self, name, number)


@dataclass(frozen=True, eq=False)
class MigrationSchedule:
    """Ordered rounds of transfers that lead from one placement to another, layer by layer.

    Parameters
    ----------
    current, target : Placement
        Of the same layers and experts; rank r is the same rank in both. ``target`` has a slot for every expert. Either
        may have more ranks, more slots a rank, or empty slots; what ``target`` leaves empty is free, not cleared.
    num_nodes : int, default 1
        Of equally many consecutive ranks, counted over the wider of the two.
    lost_ranks : iterable of int, default ()
        Ranks that neither send nor receive. ``target`` must leave their slots empty.
    max_sends, max_receives : int, default 1
        Transfers to and from other ranks that one rank takes part in at once.
    bytes_per_expert : int, default 0
        Size of one expert's weights in one layer.
    threads : int or None, default None
        None uses all processors. It never changes the schedule.

    Attributes
    ----------
    num_ranks, slots_per_rank : int
        The larger of the two placements. Slot ``r * slots_per_rank + s`` is slot s of rank r; if the placements have
        equally many slots a rank, these are their own numbers. Slot ``num_ranks * slots_per_rank + r`` is the spare
        buffer of rank r.
    layer, round, source, destination, expert : int32 arrays, one entry a transfer
        In order: by layer, then round, counted from 0 in each layer. Copies into spare buffers are the first of a
        round, other copies within a rank come next.
    restores : int32 array, shape (number, 3)
        Layer, slot and expert of what no rank holds any more: to be loaded from elsewhere after the last round.

    Raises
    ------
    InvalidPlacementError
        If the placements are of different models, ``target`` lacks an expert or uses a lost rank.
    IndivisibleError
        If the nodes do not divide the ranks.
    InvalidInputError
        If a count or a lost rank is none.

    Notes
    -----
    Transfers may be made one by one in this order, or all of a round at once after its copies into spares: within a
    round nothing else is both read and written. A slot is only overwritten when its expert has another copy that is
    not; so at any cut between rounds, and between any two transfers, every expert that was whole on some rank that is
    left still is: in a slot, or in a spare. An expert that is read from a slot which is itself to be filled goes
    through the spare buffer of its rank, so that lines and circles of experts that wait for each other move in one
    round, as far as limits allow. A spare holds one expert at a time; where a circle does not fit into one round, one
    of its experts waits there.

    A slot is filled from its own rank if that holds the expert, else from a rank of its node that holds it and may
    still send in that round, else from another node: it does not wait for a round in which its node could send. A slot
    that is overwritten in the same round can send only by the spare of its rank, if that is free. Among equals from the
    rank that has sent least, ties to the lowest slot. The ranks with most to receive choose first. Layers come one
    after the other, so a layer takes at least as many rounds as its busiest rank sends or receives, and no fewer are
    saved by another. Not promised: that no schedule has fewer rounds.

    Examples
    --------
    >>> schedule = MigrationSchedule(Placement([[0, 1]], 2, 2), Placement([[1, 0]], 2, 2), bytes_per_expert=10)
    >>> list(zip(schedule.round.tolist(), schedule.source.tolist(), schedule.destination.tolist()))
    [(0, 0, 2), (0, 1, 3), (0, 3, 0), (0, 2, 1)]
    >>> schedule.num_transfers, schedule.num_bytes, schedule.num_rounds.tolist()
    (2, 20, [1])
    """

    current: Placement
    target: Placement
    num_nodes: int = 1
    lost_ranks: Iterable[int] = ()
    max_sends: int = 1
    max_receives: int = 1
    bytes_per_expert: int = 0
    threads: int | None = field(default=None, repr=False)
    num_ranks: int = field(init=False)
    slots_per_rank: int = field(init=False)
    layer: Ints = field(init=False, repr=False)
    round: Ints = field(init=False, repr=False)
    source: Ints = field(init=False, repr=False)
    destination: Ints = field(init=False, repr=False)
    expert: Ints = field(init=False, repr=False)
    restores: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        current, target = self.current, self.target
        for placement, name in ((current, "current"), (target, "target")):
            if not isinstance(placement, Placement):
                raise InvalidInputError(f"{name} is a {type(placement).__name__}; pass a Placement.")
        if (current.num_layers, current.num_logical_experts) != (target.num_layers, target.num_logical_experts):
            raise InvalidPlacementError(
                f"current has {current.num_layers} layers of {current.num_logical_experts} experts, target "
                f"{target.num_layers} of {target.num_logical_experts}; pass placements of the same model."
            )
        ranks = max(current.num_ranks, target.num_ranks)
        slots = max(current.slots_per_rank, target.slots_per_rank)
        nodes = count(self.num_nodes, "num_nodes")
        if ranks % nodes:
            raise IndivisibleError(
                f"{ranks} ranks do not spread evenly over {shown(nodes)} nodes. Use a number of nodes that divides "
                f"{ranks}."
            )
        lost = check_lost_ranks(self.lost_ranks, ranks)
        size = count(self.bytes_per_expert, "bytes_per_expert", least=0, most=2**53)
        old, new = _widen(current, ranks, slots), _widen(target, ranks, slots)
        _check_target(target, new, lost)
        old[:, lost] = -1
        checked = {
            "num_nodes": nodes,
            "lost_ranks": tuple(lost),
            "max_sends": count(self.max_sends, "max_sends", most=MOST_SLOTS),
            "max_receives": count(self.max_receives, "max_receives", most=MOST_SLOTS),
            "bytes_per_expert": size,
            "num_ranks": ranks,
            "slots_per_rank": slots,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._fill(old.reshape(len(old), -1), new.reshape(len(new), -1))

    def _fill(self, old: Ints, new: Ints) -> None:
        layers, slots = old.shape
        table = np.empty((layers, 2 * slots, 4), dtype=np.int32)
        length, restore = np.zeros(layers, dtype=np.int64), np.zeros((layers, slots), dtype=np.bool_)
        most = min(self.max_receives, self.slots_per_rank)
        links = Links(self.num_ranks, self.num_ranks // self.num_nodes, self.max_sends, most)
        experts = self.current.num_logical_experts

        def work(block: slice) -> None:
            """Fill the tables of some layers."""
            schedule_layers(old[block], new[block], experts, links, table[block], length[block], restore[block])

        for_each(work, blocks(layers, self.threads), self.threads)
        columns = np.empty((1 + len(COLUMNS), int(length.sum())), dtype=np.int32)
        part(join_layers)(table, length, columns)
        arrays = dict(zip(("layer", *COLUMNS), columns, strict=True))
        at = np.argwhere(restore).astype(np.int32) if restore.any() else np.empty((0, 2), dtype=np.int32)
        arrays["restores"] = np.column_stack([at, new[at[:, 0], at[:, 1]]]).astype(np.int32)
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return self.current.num_layers

    @property
    def num_slots(self) -> int:
        """Slots of a layer, spare buffers not counted; the first spare has this number."""
        return self.num_ranks * self.slots_per_rank

    @cached_property
    def num_rounds(self) -> NDArray[np.int64]:
        """Rounds of each layer."""
        rounds = np.zeros(self.num_layers, dtype=np.int64)
        np.maximum.at(rounds, self.layer, self.round + 1)
        return rounds

    def rank_of(self, slot: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the rank of each slot or spare buffer."""
        slots = as_numpy(slot, "slot")
        if slots.dtype.kind not in "iu":
            raise InvalidInputError(f"slot is {shown(slot)}; it must hold numbers of slots.")
        slot = slots.astype(np.int64)
        return np.where(slot < self.num_slots, slot // self.slots_per_rank, slot - self.num_slots)

    @cached_property
    def distance(self) -> NDArray[np.int64]:
        """How far each transfer goes: 0 within a rank, 1 within a node, 2 to another node."""
        source, destination = self.rank_of(self.source), self.rank_of(self.destination)
        width = self.num_ranks // self.num_nodes
        return np.where(source == destination, 0, np.where(source // width == destination // width, 1, 2))

    @property
    def num_transfers(self) -> int:
        """Transfers from one rank to another, over all layers."""
        return int((self.distance > 0).sum())

    @property
    def num_bytes(self) -> int:
        """Bytes that travel from one rank to another, over all layers."""
        return self.num_transfers * self.bytes_per_expert

    def seconds(self, links: LinkSpeeds | None = None) -> float:
        """Return an estimate of the time that all rounds take, one after the other.

        A round takes as long as its busiest rank sends or receives, whichever is longer, plus the latency. An
        estimate: links are taken to be idle otherwise, and both directions to be independent.
        """
        links = LinkSpeeds() if links is None else links
        if not isinstance(links, LinkSpeeds):
            raise InvalidInputError(
                f"links is {shown(links)}; pass a LinkSpeeds(remote=..., ...), or None for its defaults."
            )
        if not len(self.layer):
            return 0.0
        each = self.bytes_per_expert / np.array([links.local, links.node, links.remote])[self.distance]
        first = np.cumsum(self.num_rounds) - self.num_rounds
        number = first[self.layer] + self.round
        busy = np.zeros((2, int(self.num_rounds.sum()), self.num_ranks))
        np.add.at(busy[0], (number, self.rank_of(self.source)), each)
        np.add.at(busy[1], (number, self.rank_of(self.destination)), each)
        return float(busy.max(axis=(0, 2)).sum() + links.latency * self.num_rounds.sum())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the schedule: ranks that have the same one make the same transfers."""
        digest = hashlib.sha256(repr((self.num_ranks, self.slots_per_rank, self.num_nodes, self.lost_ranks)).encode())
        for array in (
            self.current.physical_to_logical,
            self.target.physical_to_logical,
            *(getattr(self, name) for name in ("layer", *COLUMNS)),
        ):
            digest.update(repr(array.shape).encode() + array.astype("<i4", copy=False).tobytes())
        return digest.hexdigest()

    def summary(self, links: LinkSpeeds | None = None) -> str:
        """Return a line for people: transfers by distance, rounds, and bytes and the estimated time if they are known.

        ``links`` is as in ``seconds``. Without the bytes of an expert a time would be that of latencies alone.
        """
        size = ""
        if self.bytes_per_expert:
            size = f", {self.num_bytes:,} bytes, about {self.seconds(links):.3g} s"
        by_distance = np.bincount(self.distance, minlength=3)
        return (
            f"{self.num_transfers:,} transfers ({by_distance[1]:,} within a node, {by_distance[2]:,} between nodes) "
            f"and {by_distance[0]:,} copies within ranks, {int(self.num_rounds.sum()):,} rounds{size}"
            + (f"; {len(self.restores):,} to restore" if len(self.restores) else "")
        )


@part
def _widen(placement: Placement, ranks: int, slots: int) -> Ints:
    """Return the slots as [layers, ranks, slots], filled up with -1."""
    wide = np.full((placement.num_layers, ranks, slots), -1, dtype=np.int32)
    own = placement.physical_to_logical.reshape(placement.num_layers, placement.num_ranks, -1)
    wide[:, : placement.num_ranks, : placement.slots_per_rank] = own
    return wide


def _check_target(target: Placement, new: Ints, lost: list[int]) -> None:
    """Insist that every expert has a slot and that lost ranks have none; ``new`` are the slots of ``target``, wide."""
    lacking = target.replica_count == 0
    if lacking.any():
        layer, expert = (int(i) for i in np.argwhere(lacking)[0])
        raise InvalidPlacementError(f"layer {layer} of target has no slot for expert {expert}; every expert needs one.")
    used = new[:, lost] >= 0
    if used.any():
        layer, at, slot = (int(i) for i in np.argwhere(used)[0])
        raise InvalidPlacementError(
            f"layer {layer} of target puts expert {new[layer, lost[at], slot]} on rank {lost[at]}, which is lost; "
            "leave its slots empty."
        )
