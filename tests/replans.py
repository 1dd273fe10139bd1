"""Placements in force, and what comes after them."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

import equipoise as eq
from equipoise.load import drift_load, generate_load
from equipoise.replan.levelling import EMPTY, GONE


def drifted(layers=6):
    """Return a placement in force and the problem after a drift of 0.3, on 288 slots of 32 ranks."""
    load = generate_load("deepseek-v3", seed=0).load[:layers]
    cluster = eq.Cluster(32, 9)
    plan = eq.solve(eq.PlacementProblem(load, cluster), "plain-greedy")
    return plan.placement, eq.PlacementProblem(drift_load(load, 0.3, seed=1), cluster)


@st.composite
def situations(draw):
    """Return a problem, a placement in force of another shape with gaps, and lost ranks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers, ranks, slots = (int(rng.integers(1, n)) for n in (3, 7, 5))
    experts = int(rng.integers(1, ranks * slots + 1))
    problem = eq.PlacementProblem(rng.integers(0, 50, (layers, experts)), eq.Cluster(ranks, slots))
    old_ranks, old_slots = max(1, ranks + int(rng.integers(-2, 3))), max(1, slots + int(rng.integers(-1, 2)))
    current = eq.Placement(rng.integers(-1, experts, (layers, old_ranks * old_slots)), old_ranks, experts)
    lost = sorted(set(rng.integers(0, ranks, int(rng.integers(0, 3))).tolist()))
    return problem, current, lost


def two_ranks():
    """Return the placement of one load on 2 ranks of 3 slots, and the problem after the load has changed."""
    cluster = eq.Cluster(2, 3)
    return eq.solve(eq.PlacementProblem([[8, 2, 1, 1]], cluster)).placement, eq.PlacementProblem(
        [[1, 2, 1, 8]], cluster
    )


def without_descent_to_level():
    """Return a placement in force from which steps end far above the plan made anew, which takes 7 of 16 transfers."""
    rng = np.random.default_rng(4)
    cluster, experts = eq.Cluster(8, 2), 12
    load = rng.lognormal(0, 1.5, (1, experts))
    current = eq.solve(eq.PlacementProblem(rng.permuted(load, axis=1), cluster)).placement
    return current, eq.PlacementProblem(load, cluster)


def check_replan(problem, current, lost, plan):
    """Insist on what holds for every plan from a placement in force."""
    table = plan.placement.physical_to_logical.reshape(problem.num_layers, problem.cluster.num_ranks, -1)
    assert (table[:, lost] == -1).all()
    assert plan.placement.replica_count.min() >= 1
    rank_load = plan.placement.rank_load(problem.load)
    assert np.allclose(rank_load.max(axis=1), plan.metrics.max_rank_load)
    assert eq.count_transfers(current, plan.placement, lost).sum() == plan.provenance.stages["transfers"]
    old = current.physical_to_logical.reshape(problem.num_layers, current.num_ranks, -1)
    for layer, rank in itertools.product(range(problem.num_layers), range(min(current.num_ranks, table.shape[1]))):
        if rank in lost:
            continue
        for slot in range(min(old.shape[2], table.shape[2])):
            if old[layer, rank, slot] in table[layer, rank].tolist() and old[layer, rank, slot] >= 0:
                kept = table[layer, rank, slot] == old[layer, rank, slot]
                assert kept or old[layer, rank].tolist().count(old[layer, rank, slot]) > 1


class Held(NamedTuple):
    """Small layers in force: see ``equipoise.replan.levelling``. ``taken``, transfers of each layer so far."""

    held: Any
    was: Any
    node: Any
    home: Any
    taken: Any


def random_in_force(rng: np.random.Generator) -> Held | None:
    """Return one or two small layers with empty slots, a lost rank, two nodes; None if their experts do not fit."""
    layers, per_node, nodes, slots = (int(rng.integers(1, high)) for high in (3, 4, 3, 5))
    ranks = per_node * nodes
    node = np.repeat(np.arange(nodes, dtype=np.int32), per_node)
    experts = int(rng.integers(nodes, max(nodes + 1, ranks * slots - nodes)))
    home = np.sort(rng.permutation(experts) % nodes).astype(np.int32)
    lost = rng.random() < 0.3 and per_node > 1
    held = np.full((layers, ranks, slots), EMPTY, dtype=np.int32)
    for layer in held:
        if lost:
            layer[0] = GONE
        for n in range(nodes):
            mine = np.flatnonzero(home == n)
            free = [(g, s) for g in np.flatnonzero(node == n) for s in range(slots) if layer[g, s] == EMPTY]
            if len(free) < len(mine):
                return None
            rng.shuffle(free)
            for k, (g, s) in enumerate(free):
                if k < len(mine) or rng.random() < 0.8:
                    layer[g, s] = mine[k] if k < len(mine) else rng.choice(mine)
    was = rng.random((layers, ranks, experts)) < 0.2
    for at, g, s in np.ndindex(*held.shape):
        if held[at, g, s] >= 0 and rng.random() < 0.9:
            was[at, g, held[at, g, s]] = True
    taken = [sum(not was[at, g, e] for g in range(ranks) for e in held[at, g] if e >= 0) for at in range(layers)]
    return Held(held, was, node, np.tile(home, (layers, 1)), np.array(taken))
