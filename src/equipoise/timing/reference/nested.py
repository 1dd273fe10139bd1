"""One layer for several batch sizes, in plain Python; see ``equipoise.timing.nested``."""

from __future__ import annotations

import math
from collections.abc import Iterator

from equipoise.latency.curve import Curve, moments_of

__all__ = ["nest_layer"]

Held = list[list[int]]
Place = tuple[int, int]
Step = tuple[str, Place, Place]
LIMIT = 2.0**40 + 2.0**7
TENURE, TURN, PART = 10, 3, 2.0**-10


class Nest:
    """Slots and levels; what everything costs is counted each time it is asked for."""

    def __init__(self, curve: Curve, tokens: list[list[float]], limits: list[float], held: Held, level: Held) -> None:
        self.curve, self.tokens, self.scale = curve, tokens, [2.0**40 / limit for limit in limits]
        self.held, self.level = [list(rank) for rank in held], [list(rank) for rank in level]
        self.batches, self.ranks, self.slots = range(len(limits)), range(len(held)), range(len(held[0]))
        self.limit = [LIMIT for _ in limits]
        self.tabu: dict[Place, int] = {}

    def active(self, b: int, e: int) -> list[Place]:
        return [(g, s) for g in self.ranks for s in self.slots if self.held[g][s] == e and self.level[g][s] <= b]

    def cost(self, b: int, e: int, more: int = 0) -> float:
        """Return what each active replica costs, or would with so many more."""
        count = max(len(self.active(b, e)) + more, 1)
        return float(round(moments_of(self.curve, self.tokens[b][e] / count)[0] * self.scale[b]))

    def at(self, b: int, g: int, s: int) -> float:
        return self.cost(b, self.held[g][s]) if self.level[g][s] <= b else 0.0

    def load(self, b: int, g: int) -> float:
        return sum(self.at(b, g, s) for s in self.slots)

    def busiest(self, b: int) -> float:
        return max(self.load(b, g) for g in self.ranks)

    def above(self, g: int) -> float:
        total = 0.0
        for c in self.batches:
            total += _toll(self.load(c, g) - self.limit[c])
        return total

    def over(self) -> float:
        total = 0.0
        for g in self.ranks:
            total += self.above(g)  # in this order, without the corrections that ``sum`` makes
        return total

    def change(self, g: int, c: int, more: float) -> float:
        now = self.load(c, g) - self.limit[c]
        return _toll(now + more) - _toll(now)

    def worst(self) -> Place:
        """Return the rank and batch that are furthest above a limit, the first of equals."""
        places = [(g, c) for g in self.ranks for c in self.batches]
        return max(places, key=lambda place: self.load(place[1], place[0]) - self.limit[place[1]])


def nest_layer(
    curve: Curve, tokens: list[list[float]], limits: list[float], held: Held, level: Held, steps: int
) -> tuple[Held, Held, list[float]]:
    """Return slots, levels and times that search comes to; ``tokens`` is [batches][experts]."""
    nest = Nest(curve, tokens, limits, held, level)
    _come_to_limits(nest, steps)
    if nest.over() == 0.0:
        _lower(nest)
    return nest.held, nest.level, [limit * (nest.busiest(b) / 2.0**40) for b, limit in enumerate(limits)]


def _come_to_limits(nest: Nest, steps: int) -> None:
    best, saved = nest.over(), _copy(nest)
    for step in range(steps):
        if best == 0.0:
            break
        where, turn = nest.worst(), step // TURN % len(nest.batches)
        if step % TURN == 0 and nest.busiest(turn) > nest.limit[turn]:
            where = next(g for g in nest.ranks if nest.load(turn, g) == nest.busiest(turn)), turn
        _make_best(nest, where, step, math.inf)
        if nest.over() < best:
            best, saved = nest.over(), _copy(nest)
    nest.held, nest.level = saved


def _lower(nest: Nest) -> None:
    saved, open_ = _copy(nest), list(nest.batches)
    while open_:
        b = max(open_, key=nest.busiest)
        busiest = nest.busiest(b)
        for c in open_:
            nest.limit[c] = min(LIMIT, math.floor(busiest * (1.0 - PART)))
        before = math.inf
        while 0.0 < nest.over() < before:
            before = nest.over()
            nest.tabu = {}
            _make_best(nest, nest.worst(), 0, 0.0)
        settled = [c for c in nest.batches if c not in open_]
        if all(nest.busiest(c) <= nest.limit[c] for c in settled) and max(map(nest.busiest, open_)) < busiest:
            saved = _copy(nest)
        else:
            nest.held, nest.level = _copy_of(*saved)
            open_.remove(b)
            nest.limit[b] = busiest


def _copy(nest: Nest) -> tuple[Held, Held]:
    return _copy_of(nest.held, nest.level)


def _copy_of(held: Held, level: Held) -> tuple[Held, Held]:
    return [list(rank) for rank in held], [list(rank) for rank in level]


def _toll(above: float) -> float:
    return max(above, 0.0) * max(above, 0.0)


def _make_best(nest: Nest, where: tuple[int, int], step: int, enough: float) -> None:
    """Make the step of a rank that leaves least above the limits, the first of equals, if it is below ``enough``."""
    found, held, level, b = None, nest.held, nest.level, where[1]
    for each in _steps(nest, *where, step):
        if each is None:
            if enough <= -nest.above(where[0]):
                break
        elif each[0] < enough:
            enough, found = each
    if found is None:
        return
    kind, (g, s), (h, t) = found
    e, f = held[g][s], held[h][t]
    if kind == "swap":
        held[g][s], held[h][t] = f, e
        level[g][s], level[h][t] = level[h][t], level[g][s]
        nest.tabu[e, g] = nest.tabu[f, h] = step + TENURE
    elif kind == "sleep":
        level[g][s] = b + 1
        nest.tabu[e, g] = step + TENURE
    else:
        held[h][t], level[h][t] = e, min(level[h][t], b)
        nest.tabu[f, h] = step + TENURE


def _steps(nest: Nest, g: int, b: int, step: int) -> Iterator[tuple[float, Step] | None]:
    """Yield what each step changes, and the step, that a rank may make in a batch; None where enough may be known."""
    held, level = nest.held, nest.level
    for s in nest.slots:
        e = held[g][s]
        if level[g][s] > b:
            continue
        if _are_several(nest, e, range(level[g][s], b + 1)):
            yield _if_less(nest, e, (g, s), range(level[g][s], b + 1)), ("sleep", (g, s), (g, s))
        large = nest.at(b, g, s) * len(nest.slots) > nest.load(b, g)
        for h in nest.ranks:
            for t in nest.slots:
                f, more = held[h][t], nest.at(b, g, s) - nest.at(b, h, t)
                if h == g or (f != e and e in held[h]):
                    continue
                yield None
                free = nest.tabu.get((e, h), -1) < step
                back = nest.tabu.get((f, g), -1) >= step
                free_both = free and not back and (f == e or f not in held[g])
                if more > 0 and nest.load(b, h) + more < nest.load(b, g) and free_both:
                    yield _if_swapped(nest, (g, s), (h, t)), ("swap", (g, s), (h, t))
                several = level[h][t] > b if f == e else _are_several(nest, f, range(level[h][t], len(nest.batches)))
                if large and free and several:
                    yield _if_given(nest, (g, s), (h, t), b), ("give", (g, s), (h, t))


def _are_several(nest: Nest, e: int, batches: range) -> bool:
    return all(len(nest.active(c, e)) > 1 for c in batches)


def _if_swapped(nest: Nest, one: Place, other: Place) -> float:
    (g, s), (h, t) = one, other
    total = -(nest.above(g) + nest.above(h))
    for c in nest.batches:
        more = nest.at(c, g, s) - nest.at(c, h, t)
        total += _toll(nest.load(c, g) - more - nest.limit[c]) + _toll(nest.load(c, h) + more - nest.limit[c])
    return total


def _elsewhere(nest: Nest, e: int, ranks: list[int], batches: range, more: int) -> float:
    """Return what changes on all but some ranks where there are so many more replicas; the last slots come first."""
    total = 0.0
    for g, s in reversed([(g, s) for g in nest.ranks for s in nest.slots if nest.held[g][s] == e]):
        for c in batches:
            if g not in ranks and nest.level[g][s] <= c:
                total += nest.change(g, c, nest.cost(c, e, more) - nest.cost(c, e))
    return total


def _if_less(nest: Nest, e: int, slot: Place, batches: range) -> float:
    total = _elsewhere(nest, e, [slot[0]], batches, -1)
    for c in batches:
        total += nest.change(slot[0], c, -nest.at(c, *slot))
    return total


def _if_given(nest: Nest, one: Place, other: Place, b: int) -> float:
    (g, s), (h, t) = one, other
    e, f, sleeps = nest.held[g][s], nest.held[h][t], nest.level[h][t]
    batches = range(min(sleeps, b), sleeps if f == e else len(nest.batches))
    total = 0.0
    for c in batches:
        if nest.level[g][s] <= c:
            total += nest.change(g, c, nest.cost(c, e, 1) - nest.cost(c, e))
        total += nest.change(h, c, nest.cost(c, e, 1) - nest.at(c, h, t))
    total += _elsewhere(nest, e, [g, h], batches, 1)
    if f != e:
        total += _elsewhere(nest, f, [h], range(sleeps, batches.stop), -1)
    return total
