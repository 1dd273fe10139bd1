"""One layer for several batch sizes, in plain Python; see ``equipoise.timing.nested``."""

from __future__ import annotations

from equipoise.latency.curve import Curve, moments_of

__all__ = ["nest_layer"]

Held = list[list[int]]
Place = tuple[int, int]
TOP = 2**40
Step = tuple[str, Place, Place]


class Nest:
    """Slots and levels; what everything costs is counted each time it is asked for."""

    def __init__(self, curve: Curve, tokens: list[list[float]], goals: list[float], held: Held, level: Held) -> None:
        self.curve, self.tokens, self.scale = curve, tokens, [2.0**40 / goal for goal in goals]
        self.held, self.level = [list(rank) for rank in held], [list(rank) for rank in level]
        self.batches, self.ranks, self.slots = range(len(goals)), range(len(held)), range(len(held[0]))
        self.settled: set[int] = set()
        self.most: list[int] = [0] * len(goals)

    def active(self, b: int, e: int) -> list[Place]:
        return [(g, s) for g in self.ranks for s in self.slots if self.held[g][s] == e and self.level[g][s] <= b]

    def cost(self, b: int, e: int, more: int = 0) -> int:
        """Return what each active replica costs, or would with so many more."""
        count = max(len(self.active(b, e)) + more, 1)
        cost: int = round(moments_of(self.curve, self.tokens[b][e] / count)[0] * self.scale[b])
        return cost

    def at(self, b: int, g: int, s: int) -> int:
        return self.cost(b, self.held[g][s]) if self.level[g][s] <= b else 0

    def load(self, b: int, g: int) -> int:
        return sum(self.at(b, g, s) for s in self.slots)

    def busiest(self, b: int) -> int:
        return max(self.load(b, g) for g in self.ranks)


def nest_layer(
    curve: Curve, tokens: list[list[float]], goals: list[float], held: Held, level: Held
) -> tuple[Held, Held, list[float]]:
    """Return slots, levels and times that descent comes to; ``tokens`` is [batches][experts]."""
    nest = Nest(curve, tokens, goals, held, level)
    for _ in range(4 * len(nest.ranks) * len(nest.slots)):
        tops = [nest.busiest(b) for b in nest.batches]
        left = [b for b in nest.batches if b not in nest.settled]
        if not left:
            break
        b = max(left, key=lambda b: tops[b])
        g = next(g for g in nest.ranks if nest.load(b, g) == tops[b])
        nest.most = [tops[c] if c in nest.settled else min(tops[b] - 1, max(tops[c], TOP)) for c in nest.batches]
        step = _best_step(nest, b, g) or _idle(nest, b)
        if step is None:
            nest.settled.add(b)
        else:
            _make(nest, b, *step)
    return nest.held, nest.level, [goal * (nest.busiest(b) / 2.0**40) for b, goal in enumerate(goals)]


def _best_step(nest: Nest, b: int, g: int) -> Step | None:
    """Return the step that leaves the busier of the ranks that it touches lightest, the first of equals."""
    best, found = nest.most[b] + 1, None
    for s in nest.slots:
        e = nest.held[g][s]
        if nest.level[g][s] > b:
            continue
        after = _after_less(nest, (g, s), range(nest.level[g][s], b + 1))
        if after is not None and after < best:
            best, found = after, ("sleep", (g, s), (g, s))
        large = nest.cost(b, e) * len(nest.slots) > nest.load(b, g)
        for h in nest.ranks:
            if h == g or nest.load(b, h) >= best:
                continue
            for t in nest.slots:
                for kind in _kinds(nest, b, (g, s), (h, t), large):
                    after = _after(nest, b, kind, (g, s), (h, t))
                    if after is not None and kind == "convert":
                        less = _after_less(nest, (h, t), range(nest.level[h][t], len(nest.batches)))
                        after = None if less is None else max(after, less)
                    if after is not None and after < best:
                        best, found = after, (kind, (g, s), (h, t))
    return found


def _kinds(nest: Nest, b: int, one: Place, other: Place, large: bool) -> list[str]:
    """Return the steps that two slots allow."""
    (g, s), (h, t) = one, other
    e, f, level = nest.held[g][s], nest.held[h][t], nest.level[h][t]
    if e == f:
        return [] if level <= b else ["exchange", "wake"] if large else ["exchange"]
    kinds = []
    elsewhere = [nest.held[h][i] for i in nest.slots if i != t], [nest.held[g][i] for i in nest.slots if i != s]
    if nest.at(b, g, s) > nest.at(b, h, t) and e not in elsewhere[0] and f not in elsewhere[1]:
        kinds.append("swap")
    if large and e not in nest.held[h]:
        if level == len(nest.batches):
            kinds.append("replace")
        elif level <= b and all(len(nest.active(c, f)) > 1 for c in nest.batches[level:]):
            kinds.append("convert")
    return kinds


def _after(nest: Nest, b: int, kind: str, one: Place, other: Place) -> int | None:
    """Return the busier of both ranks in the batches that are not settled, None where one comes above its limit."""
    (g, s), (h, t) = one, other
    e, level, after = nest.held[g][s], nest.level[h][t], 0
    for c in nest.batches:
        mine, theirs = nest.load(c, g), nest.load(c, h)
        if kind in ("swap", "exchange"):
            more = nest.at(c, g, s) - nest.at(c, h, t)
            mine, theirs = mine - more, theirs + more
        elif level <= c if kind == "convert" else b <= c < level:
            if nest.level[g][s] <= c:
                mine += nest.cost(c, e, 1) - nest.cost(c, e)
            theirs += nest.cost(c, e, 1) - (nest.at(c, h, t) if kind == "convert" else 0)
        if mine > nest.most[c] or theirs > nest.most[c]:
            return None
        if c not in nest.settled:
            after = max(after, mine, theirs)
    return after


def _after_less(nest: Nest, slot: Place, batches: range) -> int | None:
    """Return the busiest of the ranks that a replica leaves more to where it sleeps, None where that may not be."""
    e, after = nest.held[slot[0]][slot[1]], 0
    if any(len(nest.active(c, e)) < 2 for c in batches):
        return None
    for c in batches:
        for h, _ in nest.active(c, e):
            if h == slot[0]:
                continue
            load = nest.load(c, h) + nest.cost(c, e, -1) - nest.cost(c, e)
            if load > nest.most[c]:
                return None
            if c not in nest.settled:
                after = max(after, load)
    return after


def _idle(nest: Nest, b: int) -> Step | None:
    """Return the costliest replica that may sleep in a batch."""
    best, found = 0, None
    for h in nest.ranks:
        for t in nest.slots:
            e, level = nest.held[h][t], nest.level[h][t]
            if level > b or len(nest.active(b, e)) < 2 or nest.cost(b, e) <= best:
                continue
            if _after_less(nest, (h, t), range(level, b + 1)) is not None:
                best, found = nest.cost(b, e), ("sleep", (h, t), (h, t))
    return found


def _make(nest: Nest, b: int, kind: str, one: Place, other: Place) -> None:
    (g, s), (h, t) = one, other
    held, level = nest.held, nest.level
    if kind == "swap":
        held[g][s], held[h][t] = held[h][t], held[g][s]
    if kind in ("swap", "exchange"):
        level[g][s], level[h][t] = level[h][t], level[g][s]
    elif kind == "sleep":
        level[g][s] = b + 1
    elif kind == "convert":
        held[h][t] = held[g][s]
    else:
        held[h][t], level[h][t] = held[g][s], b
