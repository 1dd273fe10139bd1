"""Swaps that connect ranks and lose no balance, native. See the folder's contract."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.connect import CUTS, GAP, POURS
from equipoise.dispatch.waterfill.numba import _pour
from equipoise.kernels.native import allocating, frozen, inlined, internal, native

__all__ = ["connect"]


def connect(
    physical_to_logical: NDArray[np.int32],
    load: NDArray[np.float64],
    factors: NDArray[np.float64],
    limit: NDArray[np.float64],
    most: NDArray[np.int64],
    num_ranks: int,
    ranks_per_node: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the slots of each layer after the swaps, and their number; see the folder's contract."""
    table, swaps = np.array(physical_to_logical, np.int32, order="C"), np.zeros(len(load), np.int64)
    limits = frozen(limit, np.float64), frozen(most, np.int64), num_ranks, ranks_per_node
    _connect(table, frozen(load, np.float64), frozen(factors, np.float64), limits, swaps)
    return table, swaps


@native
def _connect(table, load, factors, limits, swaps):
    limit, most, num_ranks, ranks_per_node = limits
    scenarios = np.empty(factors.shape)
    for layer in range(len(table)):
        slots, each, carried = _read(table[layer], load[layer], num_ranks)
        shape = (len(slots) // num_ranks, ranks_per_node, limit[layer], most[layer])
        state = (slots, each, carried, _count(slots, len(each)), swaps[layer : layer + 1])
        number = _join(state, shape)
        if number < num_ranks and load[layer].max() > 0:
            for k in range(len(factors)):
                for e in range(len(each)):
                    scenarios[k, e] = load[layer, e] * factors[k, e]
            _widen(state, shape, scenarios, number)
            _join(state, shape)
        for s in range(len(slots)):
            table[layer, s] = slots[s]


@allocating
def _read(held, load, num_ranks):
    """Return a copy of the slots, what each replica carries by even shares, and what each rank does."""
    slots, count = held.copy(), _count(held, len(load))
    each, carried = np.zeros(len(load)), np.zeros(num_ranks)
    for e in range(len(load)):
        if count[e] > 0:
            each[e] = load[e] / count[e]
    for s in range(len(slots)):
        if slots[s] >= 0:
            carried[s // (len(slots) // num_ranks)] += each[slots[s]]
    return slots, each, carried


@allocating
def _count(slots, experts):
    count = np.zeros(experts, np.int64)
    for e in slots:
        if e >= 0:
            count[e] += 1
    return count


@inlined
def _may_swap(state, shape, s, t):
    """Whether two slots may change what they hold: no rank above the limit, no expert twice, all within the node."""
    slots, each, carried, _, swaps = state
    width, ranks_per_node, limit, most = shape
    a, b, here, there = slots[s], slots[t], s // width, t // width
    if (
        swaps[0] >= most
        or here == there
        or a == b
        or a < 0
        or b < 0
        or here // ranks_per_node != there // ranks_per_node
    ):
        return False
    more = each[a] - each[b]
    if carried[here] - more > limit or carried[there] + more > limit:
        return False
    for i in range(width):  # noqa: SIM110, native code has no generators
        if slots[there * width + i] == a or slots[here * width + i] == b:
            return False
    return True


@inlined
def _swap(state, shape, s, t, step):
    """Exchange what two slots hold; ``step`` 1 makes a swap, -1 takes it back."""
    slots, each, carried, _, swaps = state
    swaps[0] += step
    more = each[slots[s]] - each[slots[t]]
    carried[s // shape[0]] -= more
    carried[t // shape[0]] += more
    slots[s], slots[t] = slots[t], slots[s]


@allocating
def _label(state, width, label):
    """Set the component of each rank, named by its lowest rank, and return how many there are."""
    slots, _, carried, count, _ = state
    number = len(carried)
    last = np.full(len(count), -1)
    for g in range(number):
        label[g] = g
    for s in range(len(slots)):
        e, here = slots[s], s // width
        if e < 0 or count[e] < 2:
            continue
        if last[e] >= 0:
            a, b = last[e], here
            while label[a] != a:
                a = label[a]
            while label[b] != b:
                b = label[b]
            if a != b:
                label[max(a, b)] = min(a, b)
                number -= 1
        last[e] = here
    for g in range(len(carried)):  # a rank points to a lower one, whose component is known already
        label[g] = label[label[g]]
    return number


@allocating
def _join(state, shape):
    """Swap a replica into another component wherever that leaves fewer of them; return how many are left."""
    slots, _, carried, count, _ = state
    label, after = np.empty(len(carried), np.int64), np.empty(len(carried), np.int64)
    number, joined = _label(state, shape[0], label), True
    while joined and number > 1:
        joined = False
        for s in range(len(slots)):
            for t in range(len(slots)):
                if slots[s] < 0 or count[slots[s]] < 2 or label[s // shape[0]] == label[t // shape[0]]:
                    continue
                if not _may_swap(state, shape, s, t):
                    continue
                _swap(state, shape, s, t, np.int64(1))
                left = _label(state, shape[0], after)
                if left < number:
                    number, joined = left, True
                    for g in range(len(after)):
                        label[g] = after[g]
                else:
                    _swap(state, shape, s, t, np.int64(-1))
    return number


@allocating
def _new_cuts(scenarios, state):
    """Return sets of ranks for each scenario, at first all ranks, with what must be carried among them."""
    _, _, carried, count, _ = state
    number, experts = scenarios.shape
    inside, total = np.ones((number, CUTS, len(carried)), np.bool_), np.zeros((number, CUTS))
    outside = np.zeros((number, CUTS, experts), np.int64)  # replicas of each expert on other ranks
    for k in range(number):
        for e in range(experts):
            for c in range(CUTS if count[e] > 0 else 0):
                total[k, c] += scenarios[k, e]
    return inside, outside, total, np.full((number, CUTS), len(carried)), np.zeros(number, np.int64)


@internal
def _add_cut(cuts, k, tight, state, width, tokens):
    """Keep a set of ranks for scenario k, in place of its oldest, and return what the ranks must carry on average."""
    inside, outside, total, size, oldest = cuts
    slots, _, _, count, _ = state
    c = oldest[k]
    oldest[k] = (c + 1) % CUTS
    outside[k, c] = 0
    for s in range(len(slots)):
        if slots[s] >= 0 and not tight[s // width]:
            outside[k, c, slots[s]] += 1
    total[k, c], size[k, c] = 0.0, 0
    for g in range(len(tight)):
        inside[k, c, g] = tight[g]
        size[k, c] += tight[g]
    for e in range(len(count)):
        if count[e] > 0 and outside[k, c, e] == 0:
            total[k, c] += tokens[e]
    return total[k, c] / size[k, c]


@inlined
def _changed(cuts, k, c, a, b, here, there, tokens):
    """Return what the ranks of a set must carry once a has gone from here to there, and b the other way."""
    inside, outside, total, _, _ = cuts
    now = total[k, c]
    if inside[k, c, here] and not inside[k, c, there]:
        if outside[k, c, a] == 0:
            now -= tokens[a]
        if outside[k, c, b] == 1:
            now += tokens[b]
    elif inside[k, c, there] and not inside[k, c, here]:
        if outside[k, c, a] == 1:
            now += tokens[a]
        if outside[k, c, b] == 0:
            now -= tokens[b]
    return now


@inlined
def _least(cuts, scenarios, state, shape, pair, best):
    """Return what the busiest ranks of all scenarios must carry after a swap, by the sets that are known."""
    slots, width = state[0], shape[0]
    s, t = pair
    size, whole = cuts[3], 0.0
    for k in range(len(scenarios)):
        most = 0.0
        for c in range(CUTS):
            value = _changed(cuts, k, c, slots[s], slots[t], s // width, t // width, scenarios[k]) / size[k, c]
            most = max(most, value)
        whole += most
        if whole >= best:
            break
    return whole


@internal
def _follow(cuts, scenarios, slots, width, s, t):
    """Bring the sets up to date for a swap that is about to be made."""
    inside, outside, total, _, _ = cuts
    a, b, here, there = slots[s], slots[t], s // width, t // width
    for k in range(len(scenarios)):
        for c in range(CUTS):
            total[k, c] = _changed(cuts, k, c, a, b, here, there, scenarios[k])
            step = int(inside[k, c, here]) - int(inside[k, c, there])
            outside[k, c, a] += step
            outside[k, c, b] -= step


@allocating
def _pour_all(cuts, scenarios, state, width, work, best):
    """Return what the busiest ranks of all scenarios carry together, or at least ``best``, and how many were poured.

    Scenarios that are not poured yet count with the most that one of their sets must carry.
    """
    _, _, total, size, _ = cuts
    shares, tight = work
    known, whole = np.zeros(len(scenarios)), 0.0
    for k in range(len(scenarios)):
        for c in range(CUTS):
            known[k] = max(known[k], total[k, c] / size[k, c])
        whole += known[k]
    for k in range(len(scenarios)):
        _pour(state[0].reshape(1, -1), scenarios[k : k + 1], GAP, shares, tight)
        whole += max(_add_cut(cuts, k, tight[0], state, width, scenarios[k]) - known[k], 0.0)
        if whole >= best:
            return whole, k + 1
    return whole, len(scenarios)


@allocating
def _widen(state, shape, scenarios, number):
    """Swap replicas wherever that leaves the busiest ranks of all scenarios together less, with their best shares."""
    slots, _, carried, count, _ = state
    width, ranks = shape[0], len(carried)
    shares, tight = np.zeros((1, len(slots))), np.ones((1, ranks), np.bool_)
    cuts, label = _new_cuts(scenarios, state), np.empty(ranks, np.int64)
    best, _ = _pour_all(cuts, scenarios, state, width, (shares, tight), np.inf)
    left, quiet, pair = POURS, 0, 0
    while quiet < len(slots) * len(slots) and left > 0:
        s, t = pair // len(slots), pair % len(slots)
        pair = (pair + 1) % (len(slots) * len(slots))
        quiet += 1
        if slots[s] < 0 or count[slots[s]] < 2 or not _may_swap(state, shape, s, t):
            continue
        if _least(cuts, scenarios, state, shape, (s, t), best * (1.0 - GAP)) >= best * (1.0 - GAP):
            continue
        _follow(cuts, scenarios, slots, width, s, t)
        _swap(state, shape, s, t, np.int64(1))
        whole = np.inf
        if _label(state, width, label) <= number:
            whole, poured = _pour_all(cuts, scenarios, state, width, (shares, tight), best * (1.0 - GAP))
            left -= poured
        if whole < best * (1.0 - GAP):
            best, quiet = whole, 0
            number = min(number, _label(state, width, label))
        else:
            _follow(cuts, scenarios, slots, width, s, t)
            _swap(state, shape, s, t, np.int64(-1))
