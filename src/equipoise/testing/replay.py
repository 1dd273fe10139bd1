"""A migration made with numbers instead of weights: it follows a schedule and believes nothing that it says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance
from equipoise.migration.schedule import MigrationSchedule
from equipoise.placement import Placement

__all__ = ["replay"]

EMPTY = -1


def replay(schedule: MigrationSchedule) -> Placement:
    """Follow ``schedule`` transfer by transfer and return where it ends.

    Returns
    -------
    Placement
        What ``schedule.target`` asks for, where it asks for something; what slots happen to hold elsewhere.

    Raises
    ------
    AssertionError
        If a transfer reads what is not there or what its round has overwritten, a rank that is lost takes part, a
        limit is exceeded, a spare buffer is taken twice, an expert that was whole somewhere is whole nowhere, or the
        end is not the target. Every cut is looked at: between rounds, and between any two transfers.

    Examples
    --------
    >>> replay(MigrationSchedule(Placement([[0, 1]], 2, 2), Placement([[1, 0]], 2, 2))).physical_to_logical.tolist()
    [[1, 0]]
    """
    as_instance(schedule, MigrationSchedule, "schedule", "a MigrationSchedule(current, target)")
    ranks, width = schedule.num_ranks, schedule.slots_per_rank
    ends = [_replay_layer(schedule, layer) for layer in range(schedule.num_layers)]
    return Placement(np.stack(ends), ranks, schedule.current.num_logical_experts) if width else schedule.target


def _replay_layer(schedule: MigrationSchedule, layer: int) -> NDArray[np.int64]:
    ranks, width, lost = schedule.num_ranks, schedule.slots_per_rank, set(schedule.lost_ranks)
    slots = ranks * width
    held = [EMPTY] * (slots + ranks)
    asked = [EMPTY] * slots
    for placement, table in ((schedule.current, held), (schedule.target, asked)):
        own = placement.physical_to_logical[layer].reshape(placement.num_ranks, -1)
        for rank in range(placement.num_ranks):
            if rank not in lost:
                for slot, expert in enumerate(own[rank].tolist()):
                    table[rank * width + slot] = expert
    here = schedule.layer == layer
    steps = list(
        zip(
            *(getattr(schedule, name)[here].tolist() for name in ("round", "source", "destination", "expert")),
            strict=True,
        )
    )
    _insist([step[0] for step in steps] == sorted(step[0] for step in steps), "rounds must ascend")
    needed = {expert for expert in held if expert != EMPTY}
    for number in range(max((step[0] for step in steps), default=-1) + 1):
        now = [step[1:] for step in steps if step[0] == number]
        _insist(len(now) > 0, f"round {number} of layer {layer} is empty")
        _check_round(now, schedule, layer, number)
        waiting = {held[slot] for slot in range(slots, slots + ranks)} - {EMPTY} - set(held[:slots])
        for source, destination, expert in now:
            _insist(held[source] == expert, f"layer {layer}, round {number}: slot {source} does not hold {expert}")
            if destination >= slots:
                _insist(
                    held[destination] not in waiting, f"layer {layer}, round {number}: spare {destination} is taken"
                )
            held[destination] = expert
            _insist(needed <= set(held), f"layer {layer}, round {number} loses {needed - set(held)}")
    restored = {int(slot): int(expert) for at, slot, expert in schedule.restores if at == layer}
    for slot, expert in restored.items():
        _insist(expert not in needed, f"layer {layer} restores expert {expert}, which a rank holds")
        held[slot] = expert
    wrong = [slot for slot in range(slots) if asked[slot] != EMPTY and held[slot] != asked[slot]]
    if wrong:
        raise AssertionError(f"layer {layer} ends with {held[wrong[0]]} in slot {wrong[0]}, not {asked[wrong[0]]}")
    return np.array(held[:slots], dtype=np.int64)


def _check_round(now: list[tuple[int, int, int]], schedule: MigrationSchedule, layer: int, number: int) -> None:
    """Insist on the limits, and that a round may be made all at once after its copies into spares."""
    ranks, slots = schedule.num_ranks, schedule.num_slots
    rank = [slot // schedule.slots_per_rank for slot in range(slots)] + list(range(ranks))
    where = f"layer {layer}, round {number}"
    sends, receives = [0] * ranks, [0] * ranks
    for source, destination, _ in now:
        for slot in (source, destination):
            _insist(rank[slot] not in schedule.lost_ranks, f"{where} uses rank {rank[slot]}, which is lost")
        if rank[source] != rank[destination]:
            sends[rank[source]] += 1
            receives[rank[destination]] += 1
    _insist(max(sends) <= schedule.max_sends, f"{where}: a rank sends {max(sends)} at once")
    _insist(max(receives) <= schedule.max_receives, f"{where}: a rank receives {max(receives)} at once")
    kinds = [0 if x >= slots else 1 if rank[y] == rank[x] else 2 for y, x, _ in now]
    _insist(kinds == sorted(kinds), f"{where} is out of order")
    into_spare = [(y, x) for y, x, _ in now if x >= slots]
    _insist(all(rank[y] == rank[x] for y, x in into_spare), f"{where}: a spare is filled from another rank")
    rest = [(y, x) for y, x, _ in now if x < slots]
    written = [x for _, x in into_spare + rest]
    _insist(len(written) == len(set(written)), f"{where} writes a slot twice")
    _insist({y for y, _ in rest if y < slots}.isdisjoint(written), f"{where} reads what it writes")
    early = [y for y, x in into_spare if y in {x for _, x in into_spare}]
    _insist(not early, f"{where} fills a spare from one that it fills")


def _insist(holds: bool, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)
