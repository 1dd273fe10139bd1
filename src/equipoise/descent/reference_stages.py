"""The stages of joint descent in plain Python: what each looks at, in which order, and what it counts as work.

Of choices that are equally good the first that is looked at is taken, so the order of every loop is part of what is
promised. So is the work, counted in steps, because it decides where a search ends:

    goes_on       1 for asking, and what follows with * before it is part of the question
    swaps         6 a slot, for each rank that the heaviest is compared with
    pairs         * 20 a pair of slots, for each rank that the heaviest is compared with
    level         10 a replica and 10 an expert, to put all replicas in line
                  for each replica of a rank 5, and 3 for each that it is compared with, unless one hits the target
    chains        * 1 for each replica in line below one of the heaviest rank
                  for each replica of the second rank 5, and 5 for each that it is compared with, unless one is enough
    redeal        * a rank, 20 and one a slot, for each round
    squeeze       10 for each slot and each pair of slots of all ranks, and * nothing for each rank that is filled
                  for each rank that it is compared with 3 a slot and 3 a pair of slots, and 5 for each exchange
    trade         * 25 an expert, for each that may lose a slot, and 20 a slot for each trade that is tried
    pairing       * 40 an expert and 40 a rank, for each slot that might be moved
    exact         75 for each count and each rank that is tried
    starts        * 50 a slot, for other counts; * 10 a slot and twice the square of the ranks, for another deal
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.descent.facts import (
    BOUND,
    CHAINS,
    EXACT,
    FLOOR,
    LARGEST,
    MOST,
    NEVER,
    PAIRS,
    REACHED,
    REDEALT,
    SKIPPED,
    STEPS,
    SWAPS,
    TARGET,
    TRADED,
)
from equipoise.descent.tuning import SPREAD_COLDEST, SPREAD_FITTING, SPREAD_HALVES
from equipoise.kernels.separate import reference

__all__ = [
    "Layer",
    "count_least_largest",
    "count_relaxed",
    "deal_again",
    "fold",
    "improve",
    "search_all",
    "search_counts",
    "squeeze",
    "trade",
]

Held = list[list[int]]
"""The experts on each rank."""
Part = tuple[int, ...]
"""One place of a rank, or two: what is exchanged at once."""


def replica_cost(load: int, count: int) -> int:
    """Return what one of ``count`` replicas of an expert costs the rank that holds it: an even share of its load."""
    return load // count


@dataclass
class Layer:
    """One layer while it is planned. Experts are numbered by descending load, equal ones by name.

    ``weight``, the loads of the experts; ``facts`` and ``stop``, see the folder's contract. ``held``, the placement
    that is being improved, the replicas of each rank ascending by load; ``load``, what each rank carries;
    ``replicas``, the counts, and ``each``, the load of one replica of each expert; ``best``, the best placement so far.
    """

    weight: list[int]
    num_ranks: int
    slots: int
    facts: list[int]
    stop: NDArray[np.bool_]
    held: Held = field(default_factory=list)
    load: list[int] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    each: list[int] = field(default_factory=list)
    best: Held = field(default_factory=list)

    def set_counts(self, replicas: list[int]) -> None:
        """Set the counts; whoever calls this places them next."""
        self.replicas = replicas
        self.each = [replica_cost(load, count) for load, count in zip(self.weight, replicas, strict=True)]

    def place(self, held: Held) -> None:
        """Set the placement; ranks that are not in order are sorted, those of equal load stay as they are."""
        self.held = [sorted(rank, key=lambda e: self.each[e]) for rank in held]
        self.load = [sum(self.each[e] for e in rank) for rank in held]

    def restore(self, held: Held) -> None:
        """Go back to a placement and its counts."""
        everyone = [e for rank in held for e in rank]
        self.set_counts([everyone.count(e) for e in range(len(self.weight))])
        self.place(held)

    def apart(self, held: Held) -> Held:
        """Return the placement with experts that share a rank with themselves moved apart."""
        table = np.array(held, np.int32)
        reference.separate(table, np.array(self.weight, np.int64))
        moved: Held = table.tolist()
        return moved

    def order(self) -> list[int]:
        """Return the ranks by load, those of equal load by number."""
        return sorted(range(self.num_ranks), key=lambda g: (self.load[g], g))

    def busiest(self) -> int:
        """Return the load of the busiest rank now."""
        return max(self.load)

    def keep(self) -> bool:
        """Keep the placement if it is better than the best so far; return whether it was."""
        better = self.busiest() < self.facts[REACHED]
        if better:
            self.facts[REACHED] = self.busiest()
            self.best = [list(rank) for rank in self.held]
        return better

    def spend(self, steps: int) -> None:
        """Count work."""
        self.facts[STEPS] += steps

    def goes_on(self, steps: int = 0) -> bool:
        """Count work, and one step for asking; return whether more may be spent."""
        facts = self.facts
        facts[STEPS] += steps + 1
        if self.stop[0]:
            facts[MOST] = min(facts[MOST], facts[STEPS])
        return facts[STEPS] < facts[MOST]

    def skips(self, stage: int) -> bool:
        """Whether this stage is to be left out."""
        return bool(self.facts[SKIPPED] >> stage & 1)

    def parts(self, g: int, size: int) -> list[tuple[int, Part]]:
        """Return the load and the places of every replica of rank ``g``, or of every pair, ascending."""
        value = [self.each[e] for e in self.held[g]]
        if size == 1:
            return [(v, (i,)) for i, v in enumerate(value)]
        return sorted((value[i] + value[j], (i, j)) for j in range(self.slots) for i in range(j))

    def may_exchange(self, g: int, u: Part, h: int, v: Part) -> bool:
        """Whether ranks ``g`` and ``h`` may exchange these, so that no rank gets an expert that it holds."""
        mine, theirs = self.held[g], self.held[h]
        return all(mine[i] not in theirs for i in u) and all(theirs[j] not in mine for j in v)

    def exchange(self, g: int, u: Part, h: int, v: Part) -> None:
        """Exchange the replicas at places ``u`` of rank ``g`` and at places ``v`` of rank ``h``."""
        mine, theirs = self.held[g], self.held[h]
        for i, j in zip(u, v, strict=True):
            mine[i], theirs[j] = theirs[j], mine[i]
        for rank in (g, h):
            self.held[rank].sort(key=lambda e: self.each[e])
            self.load[rank] = sum(self.each[e] for e in self.held[rank])


# Replica counts. ----------------------------------------------------------------------------------------------------


def set_target(layer: Layer, max_gap: float) -> None:
    """Set the best counts, and t*, the lower bound, and the busiest rank that is near enough to it."""
    facts = layer.facts
    layer.set_counts(count_least_largest(layer.weight, layer.num_ranks, layer.slots))
    facts[LARGEST] = max(-(-load // count) for load, count in zip(layer.weight, layer.replicas, strict=True))
    facts[BOUND] = max(-(-sum(layer.weight) // layer.num_ranks), facts[LARGEST], facts[FLOOR])
    facts[TARGET] = int(facts[BOUND] * (1.0 + max_gap * (1.0 - 1e-9)))


def count_least_largest(weight: list[int], num_ranks: int, slots: int) -> list[int]:
    """Return the counts whose largest replica is least (d'Hondt's): slots go to the largest replica, one by one.

    Without any load, slots are spread evenly.
    """
    experts, num_slots = len(weight), num_ranks * slots
    if weight[0] == 0:
        return [num_slots // experts + (e < num_slots % experts) for e in range(experts)]
    replicas = [1] * experts
    give_to_largest(weight, num_slots - experts, num_ranks, replicas)
    return replicas


def give_to_largest(weight: list[int], left: int, most: int, replicas: list[int]) -> None:
    """Give ``left`` slots to the expert with the largest replicas, one by one; all to the first where all are full."""
    for _ in range(left):
        replicas[_most(weight, replicas, most, lambda load, count: load / count)] += 1


def _most(weight: list[int], replicas: list[int], most: int, worth: Any) -> int:
    open_ = [e for e in range(len(weight)) if replicas[e] < most]
    return max(open_, key=lambda e: (worth(weight[e], replicas[e]), -e), default=0)


def count_relaxed(layer: Layer, largest: float, target: int, rule: int) -> list[int]:
    """Return counts for which no replica exceeds ``largest``; what is left is spent by ``rule``, one of SPREAD_*."""
    weight, most, experts = layer.weight, layer.num_ranks, range(len(layer.weight))
    replicas = [max(1, min(math.ceil(weight[e] / largest), most)) for e in experts]
    left = layer.num_ranks * layer.slots - sum(replicas)
    if rule == SPREAD_HALVES:
        for _ in range(left):
            replicas[_most(weight, replicas, most, lambda load, count: load / (count * (count + 1.0)))] += 1
        return replicas
    second = [e for e in experts if replicas[e] == 1 and most > 1]
    if rule == SPREAD_COLDEST:
        second.reverse()
    if rule == SPREAD_FITTING:
        heaviest = max(weight[e] / replicas[e] for e in experts)
        second = [e for e in second if weight[e] <= 2 * (target - heaviest)]
    for e in second[: max(left, 0)]:
        replicas[e] = 2
        left -= 1
    give_to_largest(weight, left, most, replicas)
    return replicas


# The first deal. ----------------------------------------------------------------------------------------------------


def fold(layer: Layer) -> None:
    """Deal all replicas, the largest first, in rounds: each round every rank gets one, the lightest the largest.

    A rank that would get an expert again changes with the nearest rank of the round that suits both, which can only be
    needed for an expert whose replicas run on from the round before.
    """
    each, ranks = layer.each, range(layer.num_ranks)
    queue = [e for e in sorted(range(len(each)), key=lambda e: (-each[e], e)) for _ in range(layer.replicas[e])]
    held: Held = [[] for _ in ranks]
    load, clean, last = [0] * layer.num_ranks, True, -1
    for start in range(0, len(queue), layer.num_ranks):
        order = sorted(ranks, key=lambda g: (load[g], g))
        dealt = queue[start : start + layer.num_ranks]
        carried = [i for i in ranks if dealt[: i + 1] == [last] * (i + 1)]
        last = dealt[-1]
        for i in carried:
            if dealt[i] in held[order[i]]:
                clean &= _change_in_round(held, order, dealt, i)
        for g, e in zip(order, dealt, strict=True):
            held[g].insert(0, e)
            load[g] += each[e]
    layer.place(held if clean else layer.apart(held))


def _change_in_round(held: Held, order: list[int], dealt: list[int], i: int) -> bool:
    """Let the rank at ``i`` in the round change what it is dealt with the nearest that can; return whether one can."""
    for off in range(1, len(order)):
        for j in (i + off, i - off):
            if not 0 <= j < len(order) or dealt[j] == dealt[i]:
                continue
            if dealt[i] not in held[order[j]] and dealt[j] not in held[order[i]]:
                dealt[i], dealt[j] = dealt[j], dealt[i]
                return True
    return False


# Levelling. ---------------------------------------------------------------------------------------------------------

MANY = 128  # ranks; with so many, or three slots a rank, dealing again comes first
MOST_PAIRED = 256  # slots of a rank; with more, pairs are not exchanged


def improve(layer: Layer, target: int, cutoff: int) -> None:
    """Level the ranks until none is above the target or nothing helps the heaviest; cheap means come first.

    Gives up once neither swaps nor pairs bring the heaviest rank below ``cutoff``.
    """
    facts, slots = layer.facts, layer.slots
    if (slots == 3 or layer.num_ranks >= MANY) and not layer.skips(REDEALT):
        redeal(layer, target)
    while True:
        if slots > 3:
            descend(layer, target)
        if layer.busiest() <= target or not layer.goes_on():
            return
        if 3 < slots <= MOST_PAIRED and not layer.skips(PAIRS) and swap_pairs(layer, target):
            facts[PAIRS] += 1
            continue
        if slots > 3 and layer.busiest() >= cutoff:
            return
        if level(layer, target, cutoff) == 0:
            return


def descend(layer: Layer, target: int) -> None:
    """Swap replicas of the heaviest rank as long as that helps and it is above ``target``."""
    while layer.busiest() > target and layer.goes_on():
        found = _find_swap(layer, target)
        if found is None:
            return
        layer.exchange(*found)
        layer.facts[SWAPS] += 1


def _find_swap(layer: Layer, target: int) -> tuple[int, Part, int, Part] | None:
    """Return the swap of the heaviest rank that leaves the heavier of both lightest; the first to the target will do.

    No rank so heavy that even half of the difference would not do is looked at, nor any heavier.
    """
    *others, g = layer.order()
    mine = layer.parts(g, 1)
    top = best = layer.load[g]
    found = None
    for h in others:
        bottom = layer.load[h]
        if best <= bottom + (top - bottom + 1) // 2:
            break
        layer.spend(6 * layer.slots)
        for d, u, v in _near_half(mine, layer.parts(h, 1), top - bottom):
            heavier = max(top - d, bottom + d)
            if d > 0 and heavier < best and layer.may_exchange(g, u, h, v):
                best, found = heavier, (g, u, h, v)
                if best <= target:
                    return found
    return found


def swap_pairs(layer: Layer, target: int) -> bool:
    """Exchange two replicas of the heaviest rank for two of another; return whether there was such an exchange."""
    *others, g = layer.order()
    mine = layer.parts(g, 2)
    top = best = layer.load[g]
    found = None
    for h in others:
        bottom = layer.load[h]
        if best <= target or best <= bottom + (top - bottom + 1) // 2 or not layer.goes_on(20 * len(mine)):
            break
        for d, u, v in _near_half(mine, layer.parts(h, 2), top - bottom):
            heavier = max(top - d, bottom + d)
            if d > 0 and heavier < best and layer.may_exchange(g, u, h, v):
                best, found = heavier, (g, u, h, v)
    if found is None:
        return False
    layer.exchange(*found)
    return True


def _near_half(
    mine: list[tuple[int, Part]], theirs: list[tuple[int, Part]], difference: int
) -> Iterator[tuple[int, Part, Part]]:
    """Yield what an exchange moves, and both parts: for each of mine the two of theirs that come nearest to half."""
    loads = [v for v, _ in theirs]
    for u, part in mine:
        j = bisect_left(loads, u - difference // 2)
        for k in (j, j - 1):
            if 0 <= k < len(theirs):
                yield u - loads[k], part, theirs[k][1]


FIRST = 16  # first swaps of each replica that a chain begins with
FAR = 8  # a rank stuck above the cutoff by one part in so many of what that is above the target is given up


class Line:
    """All replicas, ascending by load, those of one expert side by side: what swaps are searched in.

    ``expert`` and ``owner`` of each replica, those of one expert to begin with by rank; ``first``, where the replicas
    of each expert begin.
    """

    def __init__(self, layer: Layer) -> None:
        owners: Held = [[] for _ in layer.weight]
        for g, rank in enumerate(layer.held):
            for e in rank:
                owners[e].append(g)
        self.expert: list[int] = []
        self.owner: list[int] = []
        self.first: dict[int, int] = {}
        for e in sorted(range(len(owners)), key=lambda e: (layer.each[e], e)):
            self.first[e] = len(self.expert)
            self.expert += [e] * len(owners[e])
            self.owner += owners[e]

    def below(self, e: int) -> range:
        """Return the places of all that stands before expert ``e``, the nearest first."""
        return range(self.first[e] - 1, -1, -1)

    def swap(self, layer: Layer, g: int, i: int, q: int) -> None:
        """Swap what rank ``g`` has at place ``i`` with the replica at ``q`` in line."""
        p, h = self.owner.index(g, self.first[layer.held[g][i]]), self.owner[q]
        layer.exchange(g, (i,), h, (layer.held[h].index(self.expert[q]),))
        self.owner[p], self.owner[q] = h, g


def level(layer: Layer, target: int, cutoff: int) -> int:
    """Swap, and where no swap is left chain swaps, until no rank is above ``target`` or the heaviest is stuck.

    Tries no chains for a heaviest rank of ``cutoff`` or more. Returns how often something was swapped.
    """
    facts = layer.facts
    layer.spend(10 * (layer.num_ranks * layer.slots + len(layer.weight)))
    line = Line(layer)
    before = facts[SWAPS] + facts[CHAINS]
    while True:
        _swap_all(layer, line, target, cutoff)
        if not target < layer.busiest() < cutoff or layer.skips(CHAINS) or not _chain(layer, line, target):
            return facts[SWAPS] + facts[CHAINS] - before
        facts[CHAINS] += 1


def _swap_all(layer: Layer, line: Line, target: int, cutoff: int) -> None:
    """Swap until no rank above ``target`` has a swap left: the heaviest first, then the next, and then all again.

    Gives up where the heaviest is stuck well above ``cutoff``.
    """
    swaps = before = 0
    at = last = layer.num_ranks - 1
    while layer.goes_on():
        g = layer.order()[at]
        if at == 0 or layer.load[g] <= target:
            if swaps == before:
                return
            before, at = swaps, last
            continue
        found = _find_in_line(layer, line, g, target)
        if found is not None:
            line.swap(layer, g, *found)
            swaps += 1
            layer.facts[SWAPS] += 1
        elif at == last and layer.load[g] >= cutoff + (cutoff - target) // FAR:
            return
        else:
            at -= 1


def _find_in_line(layer: Layer, line: Line, g: int, target: int) -> tuple[int, int] | None:
    """Return (place on rank ``g``, place in line) of the swap that leaves the heavier of both ranks lightest.

    The first that brings both to the target will do.
    """
    held, load, each = layer.held, layer.load, layer.each
    top = best = load[g]
    least = min(load)
    found = None
    for i in reversed(range(layer.slots)):
        e, looked = held[g][i], 0
        for q in line.below(e):
            looked += 1
            f, h = line.expert[q], line.owner[q]
            d = each[e] - each[f]
            if least + d >= best:
                break
            heavier = max(top - d, load[h] + d)
            if heavier < best and e not in held[h] and f not in held[g]:
                best, found = heavier, (i, q)
                if best <= target:
                    return found
        layer.spend(3 * looked + 5)
    return found


def _chain(layer: Layer, line: Line, target: int) -> bool:
    """Swap the heaviest rank with another that gets too heavy, which then swaps with a third.

    Of the chains that leave all three below the heaviest load, the one that leaves them lightest, or the first that
    brings them to the target. Returns whether there was one.
    """
    held, load, each = layer.held, layer.load, layer.each
    g = layer.order()[-1]
    top = best = load[g]
    least = min(load)
    found = None
    for i, e in enumerate(held[g]):
        tried = 0
        for q in line.below(e):
            f, k = line.expert[q], line.owner[q]
            lighter = top - (each[e] - each[f])
            if best <= target or tried == FIRST or lighter < least:
                break
            if lighter >= best or k == g or e in held[k] or f in held[g]:
                continue
            tried += 1
            reached, y, r = _find_second(layer, line, g, e, q, max(lighter, target), best)
            if reached < best:
                best, found = reached, (i, q, k, y, r)
        if not layer.goes_on(line.first[e]):
            break
    if found is None:
        return False
    i, q, k, y, r = found
    line.swap(layer, g, i, q)
    line.swap(layer, k, held[k].index(y), r)
    return True


def _find_second(layer: Layer, line: Line, g: int, e: int, q: int, enough: int, best: int) -> tuple[int, int, int]:
    """Return (heaviest of the three ranks, expert, place in line) of the best second swap of a chain.

    Rank k, which gets ``e`` from rank ``g`` for what is at ``q`` in line, gives one of its experts for a third rank's.
    The first that leaves no more than ``enough`` will do; nothing found is ``best`` itself.
    """
    held, load, each = layer.held, layer.load, layer.each
    least = min(load)
    f, k = line.expert[q], line.owner[q]
    over = load[k] + each[e] - each[f]
    then = at = -1
    for y in held[k]:
        y, looked = e if y == f else y, 0
        for r in line.below(y):
            looked += 1
            w, h = line.expert[r], line.owner[r]
            d = each[y] - each[w]
            if least + d >= best:
                break
            heavier = max(over - d, load[h] + d)
            if heavier >= best or h in (g, k) or w == e or y in held[h] or w in held[k]:
                continue
            best, then, at = max(heavier, enough), y, r
            if heavier <= enough:
                return best, then, at
        layer.spend(5 * looked + 5)
    return best, then, at


ROUNDS = 9
MIXED = 3  # rounds to begin with that take different places from neighbouring ranks
IDLE = 3  # rounds in a row that do not lower the heaviest rank
ENOUGH = 3  # above the target, in mean room below it


def redeal(layer: Layer, target: int) -> None:
    """Take one replica from every rank and deal them again, the largest to the rank with least left, and so on.

    At most ``ROUNDS`` times; the heaviest rank is never heavier for it. Replicas stay where they are put on a rank
    until the end.
    """
    ranks, slots = range(layer.num_ranks), layer.slots
    heaviest = layer.busiest()
    enough = target + ENOUGH * (target - sum(layer.load) // layer.num_ranks)
    number = idle = 0
    while heaviest > enough and number < ROUNDS and idle < IDLE and layer.goes_on(layer.num_ranks * (slots + 20)):
        if number < MIXED:
            places = [(number + g) % slots for g in ranks]
        elif number % 2 == 0:
            places = [(number // 2 + (g >> number % 4)) % slots for g in ranks]
        else:
            places = [number // 2 % slots for g in ranks]
        after = _deal_one(layer, places, heaviest)
        idle = 0 if after < heaviest else idle + 1
        layer.facts[REDEALT] += after < heaviest
        heaviest = after
        number += 1
    layer.place(layer.held)


def _deal_one(layer: Layer, places: list[int], heaviest: int) -> int:
    """Deal again what lies at these places, unless no rank gets lighter than ``heaviest``; return the heaviest rank."""
    each, ranks = layer.each, range(layer.num_ranks)
    taken = [layer.held[g][places[g]] for g in ranks]
    left = [layer.held[g][: places[g]] + layer.held[g][places[g] + 1 :] for g in ranks]
    rest = sorted((layer.load[g] - each[taken[g]], g) for g in ranks)
    dealt = [taken[g] for g in sorted(ranks, key=lambda g: (-each[taken[g]], -g))]
    after = max(load + each[e] for (load, _), e in zip(rest, dealt, strict=True))
    if after < heaviest and any(e in left[g] for (_, g), e in zip(rest, dealt, strict=True)):
        after = _part(rest, left, dealt, each)
    if after >= heaviest:
        return heaviest
    for (load, g), e in zip(rest, dealt, strict=True):
        layer.held[g][places[g]], layer.load[g] = e, load + each[e]
    return after


def _part(rest: list[tuple[int, int]], left: Held, dealt: list[int], each: list[int]) -> int:
    """Let ranks that would get an expert twice change with the nearest that they can, those that come later first.

    Returns the heaviest rank, or NEVER where there is none to change with. A later one may get an expert twice: it is
    mended in its turn.
    """
    after = 0
    for k, (load, g) in enumerate(rest):
        if dealt[k] in left[g]:
            for j in (*range(k + 1, len(rest)), *range(k - 1, -1, -1)):
                other, h = rest[j]
                if dealt[j] not in left[g] and (j > k or dealt[k] not in left[h]):
                    dealt[k], dealt[j] = dealt[j], dealt[k]
                    after = max(after, other + each[dealt[j]] if j < k else 0)
                    break
            else:
                return NEVER
        after = max(after, load + each[dealt[k]])
    return after


# Squeezing. ---------------------------------------------------------------------------------------------------------

WASTE = 3  # what room left on a full rank costs, where load that its partner has too much costs one


def squeeze(layer: Layer, target: int) -> bool:
    """Fill ranks until none is above ``target``, or none can be; return whether that succeeded.

    The heaviest rank is brought just below the target and then left alone, full; then the heaviest of the others.
    """
    pairs = layer.slots * (layer.slots - 1) // 2
    layer.spend(layer.num_ranks * 10 * (layer.slots + pairs))
    room = sum(target - load for load in layer.load)  # of all ranks that are not full
    full: set[int] = set()
    while room >= 0 and layer.goes_on():
        g = next(g for g in reversed(layer.order()) if g not in full)
        if layer.load[g] <= target:
            return True
        found = _fill(layer, target, g, full, room)
        if found is None:
            return False
        layer.exchange(g, *found)
        full.add(g)
        room -= target - layer.load[g]
    return False


def _fill(layer: Layer, target: int, g: int, full: set[int], room: int) -> tuple[Part, int, Part] | None:
    """Return (part of ``g``, rank, part of that) of the exchange that brings ``g`` below ``target`` and costs least.

    Of each part of a rank's, the heaviest part of the other that leaves ``g`` low enough is looked at first, then
    lighter ones, which waste more, until one may be exchanged.
    """
    need = layer.load[g] - target
    best = WASTE * (room + 1)
    found = None
    for h in layer.order():
        if max(layer.load[h] + need - target, 0) >= best:
            break
        if h == g or h in full:
            continue
        for size in (1, 2):
            mine, theirs = layer.parts(g, size), layer.parts(h, size)
            layer.spend(3 * len(mine))
            loads = [v for v, _ in theirs]
            for u, part in reversed(mine):
                for k in reversed(range(bisect_right(loads, u - need))):
                    waste = u - loads[k] - need
                    cost = WASTE * waste + max(layer.load[h] + need + waste - target, 0)
                    layer.spend(5)
                    if cost >= best:
                        break
                    if layer.may_exchange(g, part, h, theirs[k][1]):
                        best, found = cost, (part, h, theirs[k][1])
                        break
    return found


def deal_again(layer: Layer, target: int, p: int, q: int) -> None:
    """Take the replicas at places ``p`` and ``q`` from all ranks, and deal them again to fill rank after rank.

    The rank with least room for them comes first, and takes the two, one of each place, that fill it best without
    passing ``target``; the last of both where no two fit.
    """
    each, ranks = layer.each, range(layer.num_ranks)
    first, second = (
        [layer.held[g][at] for g in sorted(ranks, key=lambda g: (-each[layer.held[g][at]], -g))] for at in (p, q)
    )
    load = [layer.load[g] - each[layer.held[g][p]] - each[layer.held[g][q]] for g in ranks]
    held, clean = [list(rank) for rank in layer.held], True
    for g in sorted(ranks, key=lambda g: (-load[g], -g)):
        left = [e for i, e in enumerate(held[g]) if i not in (p, q)]
        found = _fullest(each, left, target - load[g], first, second)
        clean &= found is not None
        i, j = (len(first) - 1, len(second) - 1) if found is None else found
        held[g][p], held[g][q] = first.pop(i), second.pop(j)
    layer.place(held if clean else layer.apart(held))


def _fullest(
    each: list[int], left: list[int], room: int, first: list[int], second: list[int]
) -> tuple[int, int] | None:
    """Return which of the first and second replicas fill ``room`` best: for each first, the largest second that fits.

    Where a rank may not take that one, no other is looked for.
    """
    best, found = room + 1, None
    loads = [-each[f] for f in second]  # ascending
    for i, e in enumerate(first):
        j = bisect_left(loads, each[e] - room)
        if j == len(second):
            continue
        f = second[j]
        rest = room - each[e] - each[f]
        if rest < best and e != f and e not in left and f not in left:
            best, found = rest, (i, j)
    return found


# Trades. ------------------------------------------------------------------------------------------------------------

TRIED = 4  # trades of each step that are tried
TENURE = 5  # steps for which an expert that gained a slot must not lose one, nor one that lost gain

Trade = tuple[int, int, int]
"""Who loses a slot, who gains it, and on which rank."""


def trade(layer: Layer, target: int, near: int, most: int) -> None:
    """Trade slots between experts until no rank is above ``target`` or ``most`` trades were tried.

    Of each step, the trades that look best are tried and levelled, and the one that is best then is gone on with, even
    where it is worse than before. What comes below ``near`` is squeezed; 0 for nothing.
    """
    facts, current = layer.facts, layer.best
    gained, lost = dict[int, int](), dict[int, int]()  # the step when each expert last did
    layer.restore(current)
    tried = step = 0
    while facts[REACHED] > target and tried < most and layer.goes_on():
        found = _find_trades(
            layer,
            target,
            {e for e, then in gained.items() if step < then + TENURE},
            {e for e, then in lost.items() if step < then + TENURE},
        )
        if not found:
            return
        least, chosen, after = math.inf, found[0], current
        for loser, gainer, h in found:
            layer.restore(current)
            layer.spend(20 * layer.num_ranks * layer.slots)
            changed = [list(rank) for rank in layer.held]
            changed[h][changed[h].index(loser)] = gainer
            layer.restore(changed)
            improve(layer, target, 0)
            left = _excess(layer.load, target)
            if left < least:
                least, chosen, after = left, (loser, gainer, h), [list(rank) for rank in layer.held]
            facts[TRADED] += layer.keep()
            if target < layer.busiest() <= near and squeeze(layer, target):
                layer.keep()
            if facts[REACHED] <= target:
                return
        tried += len(found)
        lost[chosen[0]] = gained[chosen[1]] = step
        current = after
        layer.restore(current)
        step += 1


def _find_trades(layer: Layer, target: int, fresh: set[int], poor: set[int]) -> list[Trade]:
    """Return the trades that leave the least excess, the best first: the squared load above the target, summed.

    An expert gains where it lies on a rank above the target, any does where the loser is on the heaviest rank; not
    those in ``poor``, as nobody in ``fresh`` loses. Of each two experts one rank is looked for: that where the slot is
    best given away. Sums of floats are in a fixed order.
    """
    weight, replicas, load, held = layer.weight, layer.replicas, layer.load, layer.held
    heaviest = layer.order()[-1]
    where: Held = [[g for g, rank in enumerate(held) for f in rank if f == e] for e in range(len(weight))]
    wanted = {e for g, rank in enumerate(held) if load[g] > target for e in rank}
    found: list[tuple[float, Trade]] = []
    before = _excess(load, target)
    for b in range(len(weight)):
        if replicas[b] < 2 or b in fresh or weight[b] > target * (replicas[b] - 1):
            continue
        if not layer.goes_on(25 * len(weight)):
            break
        less = replica_cost(weight[b], replicas[b])
        grown = replica_cost(weight[b], replicas[b] - 1) - less  # how much its other replicas get heavier
        without = before
        for h in where[b]:
            without += _squared(load[h] + grown, target) - _squared(load[h], target)
        for a in range(len(weight)):
            if a == b or replicas[a] >= layer.num_ranks or a in poor:
                continue
            if a not in wanted and heaviest not in where[b]:
                continue
            own, once = replica_cost(weight[a], replicas[a] + 1), replica_cost(weight[a], replicas[a])
            after = without
            for h in where[a]:
                there = load[h] + (grown if h in where[b] else 0)
                after += _squared(there + own - once, target) - _squared(there, target)
            given = [
                (after + _squared(load[h] - less + own, target) - _squared(load[h] + grown, target), h)
                for h in where[b]
                if a not in held[h]
            ]
            if given:
                least, h = min(given)
                insort(found, (least, (b, a, h)), key=lambda each: each[0])
                del found[TRIED:]
    return [change for _, change in found]


def _squared(load: int, target: int) -> float:
    over = float(max(load - target, 0))
    return over * over


def _excess(load: list[int], target: int) -> float:
    total = 0.0
    for each in load:
        total += _squared(each, target)
    return total


# Two slots a rank. --------------------------------------------------------------------------------------------------

GRID = 96
DOWN = 0.5  # of the way from the heaviest pair reached to what cannot be: the next T
LOOKS = 24  # receivers that a move is chosen from
FORBIDDEN = 1000  # a replica above T itself weighs as much as that many deficits
CLIP = 4000  # a deficit counts at most so much


def pair(layer: Layer, replicas: list[int]) -> int:
    """Put the largest replica with the smallest, and so on; return the heaviest pair."""
    layer.set_counts(replicas)
    each = layer.each
    queue = [e for e in sorted(range(len(each)), key=lambda e: (each[e], e)) for _ in range(replicas[e])]
    layer.held = [[queue[-1 - g], queue[g]] for g in range(layer.num_ranks)]
    return max(each[large] + each[small] for large, small in layer.held)


def search_counts(layer: Layer, replicas: list[int], max_gap: float, tries: int) -> tuple[list[int], int]:
    """Improve the counts as far as the search gets, at most ``tries`` values of T; return them and the slots moved."""
    bound = layer.facts[BOUND]
    reached, failed, moved = float(pair(layer, replicas)), float(bound), 0
    for _ in range(tries):
        if reached <= bound * (1.0 + max_gap) or reached <= failed * 1.001 or not layer.goes_on():
            break
        goal = reached - DOWN * (reached - failed)
        trial, moves = _reach(layer, goal, replicas)
        heaviest = float(pair(layer, trial))
        if heaviest < reached:
            reached, replicas = heaviest, trial
            moved += moves
        if heaviest > goal * (1.0 + 1.0 / GRID):
            failed = max(failed, min(goal, reached))
    return replicas, moved


def _reach(layer: Layer, goal: float, replicas: list[int]) -> tuple[list[int], int]:
    """Move slots until every theta has company for T = ``goal``, or no move helps; return the counts and the moves.

    Each move is the one after which the sum of squared deficits is least, of those that are looked at.
    """
    weight, most = layer.weight, 2 * layer.num_ranks
    replicas = list(replicas)
    for moves in range(most):
        now = [_adds(load, count, goal) for load, count in zip(weight, replicas, strict=True)]
        deficit = sum(_on_grid(step) for step in now)
        if _squared_deficit(deficit) == 0 or not layer.goes_on(40 * (len(weight) + layer.num_ranks)):
            return replicas, moves
        move = _best_move(layer, goal, replicas, now, deficit)
        if move is None:
            return replicas, moves
        gainer, loser = move
        replicas[gainer] += 1
        replicas[loser] -= 1
    return replicas, most


def _best_move(
    layer: Layer, goal: float, replicas: list[int], now: list[tuple[int, int]], deficit: Any
) -> tuple[int, int] | None:
    """Return who should get a replica and who give one, or None where that would not help; ties go to the lowest.

    Receivers are looked at in the order of what they could reach with a giver that leaves least at every theta.
    """
    experts = range(len(replicas))

    def change(e: int, count: int) -> Any:
        return _on_grid(_adds(layer.weight[e], count, goal)) - _on_grid(now[e])

    givers = [(b, change(b, replicas[b] - 1)) for b in experts if replicas[b] > 1]
    least = np.minimum.reduce([np.zeros(GRID, np.int64), *(given for _, given in givers)])
    best, found = _squared_deficit(deficit), None
    receivers = []
    last = None
    for a in experts:
        steps = now[a], _adds(layer.weight[a], replicas[a] + 1, goal)
        if replicas[a] >= layer.num_ranks or steps == last:
            continue  # experts of about one load change the same, and the first of them will do
        last = steps
        gained = change(a, replicas[a] + 1)
        if ((deficit > 0) & (gained < 0)).any():
            receivers.append((_squared_deficit(deficit + gained + least), a, deficit + gained))
    receivers = sorted((hope, a, after) for hope, a, after in receivers if hope < best)[:LOOKS]
    for hope, a, trial in receivers:
        if hope > best:
            break
        for b, given in givers:
            after = _squared_deficit(trial + given)
            if b != a and (after < best or (after == best and found is not None and a < found[0])):
                best, found = after, (a, b)
    return found


def _adds(load: int, count: int, goal: float) -> tuple[int, int]:
    """Return what ``count`` replicas add to the deficit: from which theta on, and how much.

    Theta number t is (t + 1) / GRID of half the goal. From its own size on, a small replica is company; a large one
    lacks company wherever what it leaves below the goal is too little.
    """
    each, per_theta = load / count, 2.0 * GRID / goal
    if 2.0 * each <= goal:
        return max(math.ceil(each * per_theta) - 1, 0), -count
    if each <= goal:
        return math.floor((goal - each) * per_theta), count
    return 0, count * FORBIDDEN


def _on_grid(step: tuple[int, int]) -> NDArray[np.int64]:
    at, height = step
    return np.where(np.arange(GRID) >= at, height, 0)


def _squared_deficit(deficit: Any) -> int:
    return int((np.clip(deficit, 0, CLIP) ** 2).sum())


# Few slots. ---------------------------------------------------------------------------------------------------------

STEP = 75  # what one count or one rank that is tried counts


def search_all(layer: Layer, steps: int) -> None:
    """Try all counts and all placements until the best meets the target, or ``steps`` were made."""
    facts = layer.facts
    steps = max(min(steps, (facts[MOST] - facts[STEPS]) // STEP), 0)
    tree = _Tree(layer, facts[REACHED], steps)
    tree.count([], layer.num_ranks * layer.slots)
    layer.spend(STEP * (steps - tree.left))
    facts[EXACT] += tree.limit < facts[REACHED]
    facts[REACHED] = tree.limit


class _Tree:
    """Depth first; ``limit``, what the busiest rank must stay below, and ``left``, the steps that may be made."""

    def __init__(self, layer: Layer, limit: int, left: int) -> None:
        self.layer, self.limit, self.left = layer, limit, left

    def step(self) -> bool:
        if self.left <= 0 or self.limit <= self.layer.facts[TARGET]:
            return False
        self.left -= 1
        return True

    def count(self, replicas: list[int], left: int) -> None:
        """Try all counts of the next expert; ``left`` slots are for it and those after it."""
        weight, ranks = self.layer.weight, self.layer.num_ranks
        load, after, number = weight[len(replicas)], len(weight) - 1 - len(replicas), 0
        while self.step():
            number += 1
            rest = left - number
            if number > ranks or rest < after:
                return
            if replica_cost(load, number) < self.limit and rest <= after * ranks:
                if after == 0:
                    self.place_all([*replicas, number])
                else:
                    self.count([*replicas, number], rest)

    def place_all(self, replicas: list[int]) -> None:
        """Try all placements of these counts, the largest replicas first."""
        each = [replica_cost(load, count) for load, count in zip(self.layer.weight, replicas, strict=True)]
        experts = sorted(range(len(each)), key=lambda e: -each[e])
        least = each[experts[0]] + sum(each[e] for e in experts[1:][::-1][: self.layer.slots - 1])
        if least < self.limit:  # the rank of the largest, with one replica of each of the lightest
            items = [(e, each[e], behind) for e in experts for behind in reversed(range(replicas[e]))]
            self.place(items, [[] for _ in range(self.layer.num_ranks)], [0] * self.layer.num_ranks, 0)

    def place(self, items: list[tuple[int, int, int]], held: Held, load: list[int], first: int) -> None:
        """Try all ranks from ``first`` on for the first of ``items``: expert, load, how many of its kind come behind.

        Of ranks that are alike, those that do not hold the expert yet, only the first is tried.
        """
        (e, each, behind), *others = items
        next_rank = first
        while self.step():
            for g in range(next_rank, len(held) - behind):
                if len(held[g]) == self.layer.slots or load[g] + each >= self.limit:
                    continue
                alike = [h for h in range(g) if load[h] == load[g] and len(held[h]) == len(held[g])]
                if all(e in held[h] for h in alike):
                    break
            else:
                return
            next_rank = g + 1
            held[g].append(e)
            load[g] += each
            if others:
                self.place(others, held, load, next_rank if behind else 0)
            else:
                self.limit = max(load)
                self.layer.best = [list(rank) for rank in held]
            held[g].pop()
            load[g] -= each
