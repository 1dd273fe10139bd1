"""One layer for one batch size, in plain Python; see ``equipoise.timing.layer``, ``deal`` and ``descent``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from equipoise.latency.curve import Curve, moments_of, most_tokens
from equipoise.timing.reference.bound import count_of, floor_of, ordered, raised

__all__ = ["fill_layer", "plan_layer", "thin_layer"]

Held = list[list[int]]
LARGEST = (0.45, 0.4, 0.35, 0.27, 0.22, 0.18, 0.15)


@dataclass
class Slot:
    """What is in a slot: an expert by its place in order, or -1, and what it costs."""

    expert: int
    cost: int


class Layer:
    """Active replicas on their ranks, each with its slots by ascending cost."""

    def __init__(self, curve: Curve, tokens: list[float], shape: tuple[int, int]) -> None:
        self.curve, self.number = curve, ordered(tokens)
        self.tokens = [tokens[e] for e in self.number]
        self.num_ranks, self.slots = shape
        hottest = moments_of(curve, self.tokens[0])[0]
        self.scale = 2.0**40 / hottest if hottest > 0.0 else 1.0
        self.count = [1] * len(tokens)
        self.ranks: list[list[Slot]] = []

    def cost(self, e: int, count: int) -> int:
        cost: int = round(moments_of(self.curve, self.tokens[e] / count)[0] * self.scale)
        return cost

    def load(self, g: int) -> int:
        return sum(slot.cost for slot in self.ranks[g])

    def most(self) -> int:
        return max(self.load(g) for g in range(self.num_ranks))

    def holds(self, g: int, e: int) -> bool:
        return any(slot.expert == e for slot in self.ranks[g])

    def set_count(self, e: int, count: int) -> None:
        self.count[e] = count
        for g in range(self.num_ranks):
            if self.holds(g, e):
                for slot in self.ranks[g]:
                    if slot.expert == e:
                        slot.cost = self.cost(e, count)
                self.ranks[g].sort(key=lambda slot: slot.cost)

    def put(self, g: int, s: int, slot: Slot) -> None:
        """Put something else into a slot, and move it past those that cost less or more."""
        rank = self.ranks[g]
        del rank[s]
        while s > 0 and rank[s - 1].cost > slot.cost:
            s -= 1
        while s < len(rank) and rank[s].cost < slot.cost:
            s += 1
        rank.insert(s, slot)


def plan_layer(
    curve: Curve,
    tokens: list[float],
    shape: tuple[int, int],
    found: tuple[Held, float, float],
    asked: tuple[float, bool],
    max_gap: float,
) -> tuple[Held, float, float, float]:
    """Return the active replicas, their time and worth, and a bound; ``found`` is what fewer slots gave, or inf.

    ``asked`` is a time that is at hand, and whether the fastest is kept whatever it is worth.
    """
    (given, by_time), (held, time, worth) = asked, found
    bound = proved = floor_of(curve, tokens, shape)
    if time < math.inf:
        proved = raised(curve, tokens, shape, bound, time)
    enough = proved * (1.0 + max_gap)
    if time <= enough:
        return held, time, worth, proved
    limit, before = min(given, time), 0
    part = LARGEST[0]
    while part < 1.0 and _counts(Layer(curve, tokens, shape), bound * part) is None:
        part = min(1.0, part * 1.3)
    for largest in (*([1.005] if part != LARGEST[0] else []), part, LARGEST[1]):
        layer = Layer(curve, tokens, shape)
        target = int(enough * layer.scale)
        counts = _counts(layer, bound * largest * (1.0 + 2.5 * 1e-4))
        if counts is None:
            break
        if sum(counts) == before:
            continue
        before, layer.count = sum(counts), counts
        if _work(layer) >= layer.num_ranks * min(limit, worth):
            break
        _deal(layer)
        _descend(layer, target)
        reached = layer.most() / layer.scale
        if by_time and reached < time:
            worth = math.inf
        if reached <= limit and reached < worth and (not by_time or worth == math.inf):
            value = reached + 0.55 * (_likely(layer) - reached)
            if value < worth:
                time, worth = reached, value
                held = [[layer.number[slot.expert] for slot in rank if slot.expert >= 0] for rank in layer.ranks]
        if layer.most() <= max(target, int(bound * 1.04 * layer.scale)):
            break
    return held, time, worth, proved


def _counts(layer: Layer, time: float) -> list[int] | None:
    """Return the fewest replicas that take no longer than ``time`` each, None where the slots do not hold them."""
    num_slots, most = layer.num_ranks * layer.slots, most_tokens(layer.curve, time)
    counts = [1 if each <= most else min(count_of(each, most, num_slots), layer.num_ranks) for each in layer.tokens]
    return counts if sum(counts) <= num_slots else None


def _work(layer: Layer) -> float:
    """Return what all active replicas cost together."""
    single = [moments_of(layer.curve, each)[0] for each in layer.tokens]
    work = 0.0
    for each in reversed(single):
        work += each
    for e, count in enumerate(layer.count):
        if count > 1:
            work += count * moments_of(layer.curve, layer.tokens[e] / count)[0] - single[e]
    return work


def _deal(layer: Layer) -> None:
    """Place the replicas, the costliest expert first, each on the lightest rank with room that does not hold it."""
    costs = [layer.cost(e, count) for e, count in enumerate(layer.count)]
    order, placed = (
        list(range(layer.num_ranks)),
        [[Slot(-1, 0) for _ in range(layer.slots)] for _ in range(layer.num_ranks)],
    )
    layer.ranks, used = placed, [0] * layer.num_ranks
    for e in sorted(range(len(costs)), key=lambda e: -costs[e]):
        for copy in range(layer.count[e]):
            free = [g for g in order if used[g] < layer.slots and not layer.holds(g, e)]
            if not free:
                layer.count[e] = copy
                for rank in placed:
                    for slot in rank:
                        if slot.expert == e:
                            slot.cost = layer.cost(e, copy)
                break
            g, place = free[0], order.index(free[0])
            placed[g][layer.slots - 1 - used[g]] = Slot(e, costs[e])
            used[g] += 1
            while place + 1 < len(order) and layer.load(order[place + 1]) < layer.load(g):
                order[place] = order[place + 1]
                place += 1
            order[place] = g
    for rank in placed:
        rank.sort(key=lambda slot: slot.cost)


def _descend(layer: Layer, target: int) -> None:
    """Swap, or put to sleep or wake a replica, as long as the busiest rank gets faster."""
    before, last = 2**62, 0
    for step in range(layer.num_ranks * layer.slots):
        loads = [layer.load(g) for g in range(layer.num_ranks)]
        top, g = max(loads), loads.index(max(loads))
        if top <= target:
            break
        if step % layer.num_ranks == 0:
            if top > before * (1.0 - 2.0**-9):
                break
            before = top
        second = max([load for h, load in enumerate(loads) if h != g], default=-1)
        behind = [(last + at) % layer.num_ranks for at in range(1, layer.num_ranks + 1)]
        order, enough = [loads.index(min(loads)), *behind], max(second, target)
        swap = _find_swap(layer, loads, g, enough, order[:4])
        if swap is None and _sleep_or_wake(layer, loads, g):
            continue
        swap = swap or _find_swap(layer, loads, g, enough, order)
        if swap is None:
            break
        i, last, j = swap
        one, other = layer.ranks[g][i], layer.ranks[last][j]
        layer.put(g, i, other)
        layer.put(last, j, one)


def _find_swap(layer: Layer, loads: list[int], g: int, enough: int, order: list[int]) -> tuple[int, int, int] | None:
    """Return the swap that leaves the lighter busier rank, with one of those in ``order``."""
    top = best = loads[g]
    found, least = None, top // 2048
    for h in order:
        bottom = loads[h]
        if h == g or (top + bottom + 1) // 2 >= best:
            continue
        half, mine, theirs = (top - bottom) // 2, layer.ranks[g], layer.ranks[h]
        for i, one in enumerate(mine):
            j = sum(slot.cost < one.cost - half for slot in theirs)
            for q in (j, j - 1):
                if not 0 <= q < len(theirs):
                    continue
                other = theirs[q]
                less = one.cost - other.cost
                heavier = max(top - less, bottom + less)
                if less <= least or heavier >= best:
                    continue
                if layer.count[one.expert] > 1 and layer.holds(h, one.expert):
                    continue
                if other.expert >= 0 and layer.count[other.expert] > 1 and layer.holds(g, other.expert):
                    continue
                best, found = heavier, (i, h, q)
        if best <= enough:
            break
    return found


def _sleep_or_wake(layer: Layer, loads: list[int], g: int) -> bool:
    """Put a replica of a rank to sleep, or wake one more of an expert that it holds; return whether that helped."""
    best, found = loads[g], None
    free = [h for h in range(layer.num_ranks) if any(slot.expert < 0 for slot in layer.ranks[h])]
    lightest = min(free, key=lambda h: loads[h], default=-1)
    for i, slot in enumerate(layer.ranks[g]):
        e = slot.expert
        if e < 0:
            continue
        count = layer.count[e]
        if count > 1:
            more = layer.cost(e, count - 1) - slot.cost
            others = [loads[h] + more for h in range(layer.num_ranks) if h != g and layer.holds(h, e)]
            after = max([loads[g] - slot.cost, *others])
            if after < best:
                best, found = after, (i, -1)
        if lightest < 0 or loads[lightest] >= best:
            continue
        each = layer.cost(e, count + 1)
        if max(loads[g] - slot.cost + each, loads[lightest] + each) >= best:
            continue
        h = min((h for h in free if not layer.holds(h, e)), key=lambda h: loads[h], default=-1)
        if h >= 0 and max(loads[g] - slot.cost + each, loads[h] + each) < best:
            best, found = max(loads[g] - slot.cost + each, loads[h] + each), (i, h)
    if found is None:
        return False
    i, h = found
    e = layer.ranks[g][i].expert
    if h < 0:
        layer.put(g, i, Slot(-1, 0))
        layer.set_count(e, layer.count[e] - 1)
    else:
        layer.set_count(e, layer.count[e] + 1)
        s = next(s for s, slot in enumerate(layer.ranks[h]) if slot.expert < 0)
        layer.put(h, s, Slot(e, layer.cost(e, layer.count[e])))
    return True


def _likely(layer: Layer) -> float:
    """Return what the busiest rank of one step is likely to take."""
    most = 0.0
    for rank in layer.ranks:
        mean = spread = full = 0.0
        for slot in rank:
            if slot.expert >= 0:
                tokens = layer.tokens[slot.expert] / layer.count[slot.expert]
                time, variance, chance = moments_of(layer.curve, tokens)
                mean, spread, full = mean + time, spread + variance, full + (time / chance if chance > 0.0 else 0.0)
        most = max(most, mean, min(full, mean + 1.5 * math.sqrt(spread)))
    return most


def fill_layer(tokens: list[float], held: Held) -> Held:
    """Return the slots with a replica in every empty one, -1: of the expert that has most tokens a replica."""
    held = [list(rank) for rank in held]
    count = [sum(rank.count(e) for rank in held) for e in range(len(tokens))]
    wanted = [(tokens[e] / count[e], e) for e in ordered(tokens)]
    wanted.sort(key=lambda each: -each[0])
    for rank in held:
        for s in range(len(rank)):
            if rank[s] < 0:
                at = next((i for i, (_, e) in enumerate(wanted) if e not in rank), 0)
                each, e = wanted.pop(at)
                left = each * count[e] / (count[e] + 1)
                count[e] += 1
                rank[s] = e
                while at < len(wanted) and wanted[at][0] > left:
                    at += 1
                wanted.insert(at, (left, e))
    return held


def thin_layer(curve: Curve, tokens: list[float], held: Held, later: int) -> Held:
    """Return level 0 for one replica of each expert and ``later`` for others."""
    level, loads = [[later] * len(rank) for rank in held], [0.0] * len(held)
    places = {
        e: [(g, s) for g, rank in enumerate(held) for s, f in enumerate(rank) if f == e] for e in range(len(tokens))
    }
    order = ordered(tokens)
    for e in [*(e for e in order if len(places[e]) == 1), *(e for e in order if len(places[e]) > 1)]:
        g, s = min(places[e], key=lambda place: loads[place[0]])
        level[g][s] = 0
        loads[g] += moments_of(curve, tokens[e])[0]
    return level
