"""Pruned restarts in plain Python: slow, and readable as the specification.

Every other implementation is held to this one. Weights may be integers or floats here, and the
uniforms may be given, so that any other program of the same strategy can be compared step by step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.restarts import counter
from equipoise.restarts.settings import Settings

__all__ = ["greedy", "imbalance", "pack", "prune", "refine", "select", "starts"]

Row = NDArray[Any]
Candidate = list[list[int]]
"""The items of each pack; an item's place in the list is its rank in the pack."""


def pack(
    weight: NDArray[Any],
    num_packs: int,
    settings: Settings | None = None,
    key: NDArray[np.uint64] | None = None,
    noise: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pack ``weight`` [layers, items] into ``num_packs`` packs of equal size; see the folder's contract.

    Parameters
    ----------
    weight : array, shape (layers, items)
        Integers or floats; used as they are.
    num_packs : int
        Must divide the number of items.
    settings : Settings, default the founding ones
    key : uint64 array, shape (layers,), optional
        One word per layer for the counter-based uniforms; by default that of seed 0.
    noise : float array, shape (layers, restarts, items), optional
        Uniforms in [0, 1) to use instead of the counter-based ones.

    Returns
    -------
    pack_index, rank_in_pack : int32 arrays, shape (layers, items)

    Examples
    --------
    >>> pack_index, rank_in_pack = pack(np.array([[5, 3, 2, 2]]), 2, Settings(restarts=1))
    >>> pack_index.tolist(), rank_in_pack.tolist()
    ([[0, 1, 1, 0]], [[0, 0, 1, 1]])
    """
    settings = settings or Settings()
    if key is None:
        key = counter.row_key(np.asarray(weight, dtype=np.int64), seed=0)
    layers, items = weight.shape
    pack_index = np.empty((layers, items), dtype=np.int32)
    rank_in_pack = np.empty((layers, items), dtype=np.int32)
    for layer in range(layers):
        row = weight[layer]
        if noise is None:
            uniforms = counter.uniforms(key[layer : layer + 1], np.arange(settings.restarts), items)[0]
        else:
            uniforms = noise[layer]
        candidates = starts(row, num_packs, settings, uniforms)
        survivors = prune(row, candidates, settings)
        refined = [refine(row, candidate, settings) for candidate in survivors]
        best = select(row, refined)
        for number, members in enumerate(best):
            pack_index[layer, members] = number
            rank_in_pack[layer, members] = np.arange(len(members))
    return pack_index, rank_in_pack


def starts(weight: Row, num_packs: int, settings: Settings, uniforms: NDArray[np.float64]) -> list[Candidate]:
    """Greedily pack one row once per restart; ``uniforms`` [restarts, items] perturb the order only."""
    return [
        greedy(weight, num_packs, weight * (1.0 + settings.scale(restart) * uniforms[restart]))
        for restart in range(settings.restarts)
    ]


def greedy(weight: Row, num_packs: int, sort_key: Row) -> Candidate:
    """Put each item, by descending ``sort_key``, into the lightest pack with room."""
    room = len(weight) // num_packs
    packs: Candidate = [[] for _ in range(num_packs)]
    pack_load = [weight.dtype.type(0)] * num_packs
    for item in np.argsort(-sort_key, kind="stable"):
        lightest = min((p for p in range(num_packs) if len(packs[p]) < room), key=lambda p: (pack_load[p], p))
        packs[lightest].append(int(item))
        pack_load[lightest] += weight[item]
    return packs


def loads(weight: Row, packs: Candidate) -> Row:
    """Return the load of each pack."""
    return np.array([weight[members].sum() for members in packs])


def imbalance(weight: Row, packs: Candidate) -> Any:
    """Return heaviest - lightest pack."""
    load = loads(weight, packs)
    return load.max() - load.min()


def prune(weight: Row, candidates: list[Candidate], settings: Settings) -> list[Candidate]:
    """Keep the candidates with the smallest imbalance, one of those that coincide."""
    order = sorted(range(len(candidates)), key=lambda r: (imbalance(weight, candidates[r]), r))
    kept: dict[object, Candidate] = {}
    for restart in order:
        together = sorted(sorted(weight[members].tolist()) for members in candidates[restart])
        kept.setdefault(repr(together), candidates[restart])
        if len(kept) == settings.refined:
            break
    return list(kept.values())


def refine(weight: Row, packs: Candidate, settings: Settings) -> Candidate:
    """Exchange items between heavy and light packs while that lowers the sum of squared pack loads."""
    packs = [list(members) for members in packs]
    for _ in range(settings.swaps):
        load = loads(weight, packs)
        heavy = np.argsort(-load, kind="stable")[: settings.extremes]
        light = np.argsort(load, kind="stable")[: settings.extremes]
        best_gain, best = 0.0, None
        for a in heavy:
            for b in light:
                swap = nearest_swap(weight, packs[a], packs[b], load[a] - load[b]) if a != b else None
                if swap is not None and swap[0] > best_gain:
                    best_gain, best = swap[0], (a, swap[1], b, swap[2])
        if best is None:
            break
        a, u, b, v = best
        packs[a][packs[a].index(u)], packs[b][packs[b].index(v)] = v, u
    return packs


def nearest_swap(weight: Row, a: list[int], b: list[int], difference: Any) -> tuple[float, int, int] | None:
    """Return (gain, u, v) of the exchange between two packs that levels them best, or None if none does."""
    best, found = None, None
    for u in sorted(a):
        for v in sorted(b):
            d = weight[u] - weight[v]
            if 0 < d < difference and (best is None or abs(2 * d - difference) < best):
                best, found = abs(2 * d - difference), (float(d) * float(difference - d), u, v)
    return found


def select(weight: Row, candidates: list[Candidate]) -> Candidate:
    """Return the candidate with the smallest imbalance, the first of equals."""
    return min(candidates, key=lambda packs: imbalance(weight, packs))
