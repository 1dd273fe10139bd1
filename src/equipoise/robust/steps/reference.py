"""The steps from a placement in force in plain Python: everything is added up anew for every step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equipoise.robust.reference import objective_of
from equipoise.robust.steps.rules import DEPTH, EMPTY, HALF, HOT, HOTTEST, LEAST_GAIN, LEFT, MAX

__all__ = ["descend"]

Table = list[list[int]]


class Step(NamedTuple):
    """Its gain for its cost, the cost, what it writes, pairs of (rank, slot) and expert, and, of takes, the gain."""

    worth: float
    cost: int
    writes: tuple[tuple[int, int, int], ...]
    gain: float = 0.0


NO_STEP = Step(0.0, 0, ())


class Part(NamedTuple):
    """What part of its expert a replica is: now, and with one more."""

    each: list[float]
    more: list[float]


def descend(*asked: Any) -> tuple[Any, ...]:
    """Make steps in each layer until none pays; arguments and results are those of the contract."""
    rows, held, was, node, home, level, limit = asked
    done = [
        descend_layer(Layer(rows[at], was[at], node, home[at]), held[at].tolist(), int(level[at]), int(limit[at]))
        for at in range(len(held))
    ]
    width = int(limit.max()) + 1
    curve = np.array([line + [line[-1]] * (width - len(line)) for _, line, _, _ in done], dtype=np.int64)
    slots = np.array([table for table, *_ in done], dtype=np.int32)
    return slots, curve, np.array([spent for *_, spent, _ in done]), np.array([ended for *_, ended in done])


class Layer:
    """What does not change while steps are made."""

    def __init__(self, rows: NDArray[Any], was: NDArray[Any], node: NDArray[Any], home: NDArray[Any]) -> None:
        self.rows, self.was, self.node, self.home = rows, was, node, home
        exact = rows.astype(object)
        self.product = [[float(x) for x in line] for line in exact.T @ exact]

    def spent(self, held: Table) -> int:
        """Return the transfers that lead to ``held``."""
        return sum(e >= 0 and not self.was[g, e] for g, rank in enumerate(held) for e in rank)


def descend_layer(layer: Layer, held: Table, level: int, limit: int) -> tuple[Table, list[int], int, bool]:
    """Return the slots after the last step, the curve up to the limit, the transfers, and whether none is left."""
    most = layer.spent(held)
    curve, ended = [int(MAX)] * most + [objective_of(layer.rows, np.array(held))], True
    while True:
        least, spent = LEAST_GAIN * float(max(curve[-1] - level, 1)), layer.spent(held)
        step = best_step(layer, held)
        if not step.worth > least:
            if limit - spent < LEFT:
                ended = False
                break
            step = best_chain(layer, held, curve[-1], level)
        if not step.writes:
            break
        if spent + step.cost > limit:
            ended = False
            break
        after = made(held, step)
        objective = objective_of(layer.rows, np.array(after))
        if objective >= curve[-1]:
            break
        held = after
        more = max(layer.spent(held) - (len(curve) - 1), 0)
        curve[-1] = objective if not more else curve[-1]
        curve += [curve[-1]] * (more - 1) + [objective] * (more > 0)
    return held, curve + [curve[-1]] * (limit + 1 - len(curve)), layer.spent(held), ended


def made(held: Table, step: Step) -> Table:
    """Return the slots after a step."""
    after = [list(rank) for rank in held]
    for g, i, e in step.writes:
        after[g][i] = e
    return after


def best_step(layer: Layer, held: Table, split: int | None = None) -> Step:
    """Return the step with the largest gain for its cost that takes no slot of ``split``."""
    found = (s for s in steps(layer, held) if len(s.writes) == 2 or held[s.writes[0][0]][s.writes[0][1]] != split)
    return max(found, key=lambda step: step.worth, default=NO_STEP)


def best_chain(layer: Layer, held: Table, objective: int, level: int) -> Step:
    """Return the chain with the largest gain for its cost as one step; it writes nothing where that is too little."""
    replicas = [sum(rank.count(e) for rank in held) for e in range(layer.rows.shape[1])]
    own = [layer.product[e][e] * (1.0 / max(n, 1)) * (1.0 / max(n, 1)) for e, n in enumerate(replicas)]
    best, enough = Step(LEAST_GAIN * float(max(objective - level, 1)), 0, ()), HOT * HOT * float(level) / len(held)
    for hot in sorted(range(len(own)), key=lambda e: -own[e])[:HOTTEST]:
        if own[hot] < enough:
            break
        splits = [step for step in steps(layer, held) if len(step.writes) == 1 and step.writes[0][2] == hot]
        step, so_far, after = max(splits, key=lambda step: step.gain, default=NO_STEP), NO_STEP, held
        for _ in range(1 + DEPTH):
            if not step.writes:
                break
            after, cost = made(after, step), so_far.cost + step.cost
            worth = float(objective - objective_of(layer.rows, np.array(after))) / max(float(cost), HALF)
            so_far = Step(worth, cost, (*so_far.writes, *step.writes))
            if cost >= LEFT:
                best = max(best, so_far, key=lambda step: step.worth)
            step = best_step(layer, after, hot)
            if not step.worth > 0:
                break
    return best


def steps(layer: Layer, held: Table) -> list[Step]:
    """Return all steps, in the order in which the first of equals is made."""
    replicas = [sum(rank.count(e) for rank in held) for e in range(layer.rows.shape[1])]
    part = Part([1.0 / max(count, 1) for count in replicas], [1.0 / (count + 1) for count in replicas])
    along = [[0.0] * len(replicas) for _ in held]
    for g, rank in enumerate(held):
        for e in rank:
            if e >= 0:
                along[g] = [x + y * part.each[e] for x, y in zip(along[g], layer.product[e], strict=True)]
    return [*takes(layer, held, replicas, part, along), *swaps(layer, held, part, along)]


def takes(layer: Layer, held: Table, replicas: list[int], part: Part, along: list[list[float]]) -> list[Step]:
    """Return the steps in which an expert takes the slot of another, or an empty one."""
    experts, product, found = range(len(replicas)), layer.product, []
    ease = [0.0] * len(replicas)
    for g, rank in enumerate(held):
        for e in rank:
            if e >= 0:
                less = part.each[e] - part.more[e]
                ease[e] += 2.0 * along[g][e] * less - product[e][e] * less * less
    ease = [own - product[e][e] * part.more[e] * part.more[e] for e, own in enumerate(ease)]
    for g, rank in enumerate(held):
        for i, b in enumerate(rank):
            if b < EMPTY or (b >= 0 and replicas[b] < 2):
                continue
            freed = each = rise = 0.0
            others = [r for r, other in enumerate(held) if r != g and b >= 0 and b in other]
            if b >= 0:
                each = part.each[b]
                rise = 1.0 / (replicas[b] - 1) - each
                freed = 2.0 * along[g][b] * each - product[b][b] * each * each
                for r in others:
                    freed -= 2.0 * along[r][b] * rise + product[b][b] * rise * rise
            for a in experts:
                if a in rank or layer.home[a] != layer.node[g]:
                    continue
                more = part.more[a]
                both = 0.0
                for r in others:
                    for _ in range(held[r].count(a)):
                        both += 2.0 * (part.each[a] - more) * rise * product[a][b]
                shared = each * product[max(b, 0)][a] - along[g][a]
                gain = ease[a] + freed + 2.0 * more * shared + both
                cost = is_new(layer, g, a) - is_new(layer, g, b)
                found.append(Step(gain / max(float(cost), HALF), cost, ((g, i, a),), gain))
    return found


def swaps(layer: Layer, held: Table, part: Part, along: list[list[float]]) -> list[Step]:
    """Return the steps in which two replicas change places, or one moves to an empty slot."""
    product, found = layer.product, []
    for g, one in enumerate(held):
        for h in range(g + 1, len(held)):
            other = held[h]
            if layer.node[g] != layer.node[h]:
                continue
            for i, a in enumerate(one):
                for j, b in enumerate(other):
                    if min(a, b) < EMPTY or (a >= 0 and a in other) or (b >= 0 and b in one):
                        continue
                    from_g = own = 0.0
                    if a >= 0:
                        from_g = (along[g][a] - along[h][a]) * part.each[a]
                        own = product[a][a] * part.each[a] * part.each[a]
                    half = from_g - own
                    if b >= 0:
                        half -= (along[g][b] - along[h][b]) * part.each[b]
                        half -= product[b][b] * part.each[b] * part.each[b]
                    if a >= 0 and b >= 0:
                        half += 2.0 * product[a][b] * part.each[a] * part.each[b]
                    cost = is_new(layer, h, a) - is_new(layer, g, a) + is_new(layer, g, b) - is_new(layer, h, b)
                    found.append(Step(2.0 * half / max(float(cost), HALF), cost, ((g, i, b), (h, j, a))))
    return found


def is_new(layer: Layer, g: int, e: int) -> int:
    """Return 1 for an expert that rank g did not hold, else 0."""
    return int(e >= 0 and not layer.was[g, e])
