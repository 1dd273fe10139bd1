"""How engines choose the replica that a token goes to: their own rules, exactly, as a table.

==================  ================================================================================================
name                slot of a token
==================  ================================================================================================
even                no rule: every replica gets the same part of its expert's tokens, fractions too
best                no rule: the parts that leave the busiest rank of each layer and step least, see ``share``
vllm                replica ``(row * 2654435769 mod 2**32) mod count``, row counted on the token's own rank
sglang-static       one replica for each source rank: its own, else its node's, else dealt fairly, as SGLang draws them
sglang-dynamic      a replica at random, each as likely (as 16 random bits make it)
tensorrt-llm        replicas in turn, over an expert's tokens on one rank; the first is the rank's number mod count
ascend              one replica for each source rank: the rank's number mod count
==================  ================================================================================================

Replicas of an expert are counted by ascending slot. Read in vLLM 0.33.0 (``base_router.py``), SGLang 0.5.23
(``expert_location_dispatch.py``, ``expert_location.py``) and vLLM-Ascend 0.23.0 (``eplb_utils.py``), and held to what
their wheels compute by ``make test-engines``; TensorRT-LLM's from its public description.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.best import share
from equipoise.errors import UnknownNameError, listed, shown
from equipoise.placement import Placement

__all__ = ["RULES", "Batch", "Maps", "Rule", "batch_of", "deal", "find_rule", "slot_tokens", "split_evenly"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

KNUTH = 2654435769  # floor(2**32 / golden ratio)
SGLANG_SEED = 42


@dataclass(frozen=True, eq=False)
class Batch:
    """What the router decided in some steps: an entry for each token and each of its experts, in all layers.

    Attributes
    ----------
    step, layer, expert : int64 array, shape (entries,)
    rank : int64 array, shape (entries,)
        The rank that the token came from.
    row : int64 array, shape (entries,)
        The token's place in the batch of that rank.
    draw : int64 array, shape (entries,)
        A number of its own from 0 to 65535, for rules that draw at random.

    Entries of one step and layer stand in the order of ranks and rows.
    """

    step: Ints
    layer: Ints
    expert: Ints
    rank: Ints
    row: Ints
    draw: Ints


class Maps:
    """What rules look up in a placement: the replicas of each expert by ascending slot.

    ``slots`` int32 [layers, experts, largest count], -1 for none; ``count`` int32 [layers, experts].
    """

    def __init__(self, placement: Placement, num_nodes: int = 1) -> None:
        self.placement, self.num_nodes = placement, num_nodes
        self.slots = placement.logical_to_physical
        self.count = placement.replica_count

    @cached_property
    def sglang_static(self) -> NDArray[np.int32]:
        """The slot of each source rank: [ranks, layers, experts], as SGLang deals them on every rank."""
        ranks, per_rank = self.placement.num_ranks, self.placement.slots_per_rank
        per_node = ranks // self.num_nodes
        chosen = np.repeat(self.slots[None, :, :, 0], ranks, axis=0)
        draw = random.Random(SGLANG_SEED)
        for layer, expert in np.argwhere(self.count > 1).tolist():
            candidates = self.slots[layer, expert, : self.count[layer, expert]].tolist()
            near = _nearest(candidates, ranks, per_rank, per_node)
            others = [rank for rank in range(ranks) if near[rank] < 0]
            if others:
                times, rest = divmod(len(others), len(candidates))
                dealt = candidates * times + draw.sample(candidates, k=rest)
                draw.shuffle(dealt)
                for rank, slot in zip(others, dealt, strict=True):
                    near[rank] = slot
            chosen[:, layer, expert] = near
        return chosen


def _nearest(candidates: list[int], ranks: int, per_rank: int, per_node: int) -> list[int]:
    """Return for each rank the first replica on itself, else on its node unless all are there, else -1."""
    on_rank: dict[int, int] = {}
    on_node: dict[int, list[int]] = {}
    for slot in candidates:
        on_rank.setdefault(slot // per_rank, slot)
        on_node.setdefault(slot // per_rank // per_node, []).append(slot)
    near = []
    for rank in range(ranks):
        node = on_node.get(rank // per_node, [])
        narrows = 0 < len(node) < len(candidates)
        near.append(on_rank.get(rank, node[0] if narrows else -1))
    return near


Split = Callable[[Placement, Floats], Floats]
Choose = Callable[[Maps, Batch], NDArray[np.int32]]


@dataclass(frozen=True)
class Rule:
    """A row: ``split`` returns the tokens of each slot, else ``choose`` the slot of each entry of a batch."""

    name: str
    split: Split | None = None
    choose: Choose | None = None


def split_evenly(placement: Placement, counts: Floats) -> Floats:
    """Return the tokens of each slot, [layers, slots], where all replicas of an expert get as many."""
    each = np.pad(counts / np.maximum(placement.replica_count, 1), ((0, 0), (0, 1)))  # the last: empty slots
    return _of_slots(each, placement)


def _best(placement: Placement, counts: Floats) -> Floats:
    return share(placement, counts).values * _of_slots(np.pad(counts, ((0, 0), (0, 1))), placement)


def _of_slots(by_expert: Floats, placement: Placement) -> Floats:
    return np.take_along_axis(by_expert, placement.physical_to_logical.astype(np.int64) % by_expert.shape[1], 1)


def _replica(maps: Maps, batch: Batch, number: Ints) -> NDArray[np.int32]:
    """Return the slot of the replica with that number, modulo how many there are."""
    which = number % maps.count[batch.layer, batch.expert]
    found: NDArray[np.int32] = maps.slots[batch.layer, batch.expert, which]
    return found


def _vllm(maps: Maps, batch: Batch) -> NDArray[np.int32]:
    return _replica(maps, batch, (batch.row * KNUTH) & 0xFFFFFFFF)


def _sglang_static(maps: Maps, batch: Batch) -> NDArray[np.int32]:
    found: NDArray[np.int32] = maps.sglang_static[batch.rank, batch.layer, batch.expert]
    return found


def _sglang_dynamic(maps: Maps, batch: Batch) -> NDArray[np.int32]:
    return _replica(maps, batch, batch.draw)


def _tensorrt_llm(maps: Maps, batch: Batch) -> NDArray[np.int32]:
    layers, experts = maps.count.shape
    queue = ((batch.step * layers + batch.layer) * experts + batch.expert) * maps.placement.num_ranks + batch.rank
    order = np.argsort(queue, kind="stable")
    starts = np.flatnonzero(np.diff(queue[order], prepend=-1))
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return _replica(maps, batch, turn + batch.rank)


def _ascend(maps: Maps, batch: Batch) -> NDArray[np.int32]:
    return _replica(maps, batch, batch.rank)


RULES: dict[str, Rule] = {
    row.name: row
    for row in (
        Rule("even", split=split_evenly),
        Rule("best", split=_best),
        Rule("vllm", choose=_vllm),
        Rule("sglang-static", choose=_sglang_static),
        Rule("sglang-dynamic", choose=_sglang_dynamic),
        Rule("tensorrt-llm", choose=_tensorrt_llm),
        Rule("ascend", choose=_ascend),
    )
}


def find_rule(name: str) -> Rule:
    """Return the row called ``name``.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if not isinstance(name, str) or name not in RULES:
        raise UnknownNameError(f"dispatch is {shown(name)}; it must be one of {listed(RULES)}.")
    return RULES[name]


def slot_tokens(rule: Rule, maps: Maps, counts: Floats, batch: Batch | None) -> Floats:
    """Return the tokens of each slot in each step, float64 [steps, layers, slots].

    Parameters
    ----------
    rule : Rule
    maps : Maps
    counts : float64 array, shape (steps, num_layers, num_logical_experts)
        Tokens of each expert.
    batch : Batch or None
        The same tokens one by one; None is enough for a rule that splits counts.
    """
    steps, (layers, slots) = len(counts), maps.placement.physical_to_logical.shape
    if rule.split is not None or batch is None:
        split = rule.split or split_evenly
        return np.stack([split(maps.placement, each) for each in counts])
    assert rule.choose is not None
    cell = (batch.step * layers + batch.layer) * slots + rule.choose(maps, batch)
    return np.bincount(cell, minlength=steps * layers * slots).reshape(steps, layers, slots).astype(np.float64)


def deal(counts: Ints, num_ranks: int, experts_per_token: int, draw: np.random.Generator) -> Batch:
    """Return tokens for the ``counts`` of each expert, [steps, layers, experts], which do not say whose they were.

    The choices of a step and layer are dealt in random order to tokens of ``experts_per_token`` choices, and the tokens
    in equal parts to the ranks, so a token may have an expert twice, which a router does not do.
    """
    _, layers, experts = counts.shape
    cells = np.repeat(np.arange(counts.size), counts.reshape(-1))
    per_line = counts.sum(axis=2).reshape(-1)
    cells = cells[
        np.argsort(cells // experts + draw.random(len(cells)))
    ]  # lines stay in order, what is in one is mixed
    line = cells // experts
    place = np.arange(len(cells)) - np.repeat(np.cumsum(per_line) - per_line, per_line)
    tokens = np.repeat(-(-per_line // experts_per_token), per_line)
    return _placed(line, layers, cells % experts, place // experts_per_token, tokens, num_ranks, draw)


def batch_of(steps: Sequence[NDArray[Any]], num_ranks: int, draw: np.random.Generator) -> Batch:
    """Return the tokens of steps, each [tokens, layers, k] experts with -1 for none, in equal parts on the ranks."""
    lines, experts, tokens, sizes = [], [], [], []
    for number, ids in enumerate(steps):
        layer, token, place = np.nonzero(ids.transpose(1, 0, 2) >= 0)
        lines.append(number * ids.shape[1] + layer)
        experts.append(ids[token, layer, place].astype(np.int64))
        tokens.append(token)
        sizes.append(np.full(len(token), len(ids)))
    line, expert, token, size = (np.concatenate(parts) for parts in (lines, experts, tokens, sizes))
    return _placed(line, steps[0].shape[1], expert, token, size, num_ranks, draw)


def _placed(
    line: Ints, layers: int, expert: Ints, token: Ints, tokens: Ints, num_ranks: int, draw: np.random.Generator
) -> Batch:
    """Give the token numbered ``token`` of ``tokens`` its rank, and its row there; ``line`` counts steps and layers."""
    rank = token * num_ranks // np.maximum(tokens, 1)
    row = token - -(-rank * tokens // num_ranks)
    return Batch(line // layers, line % layers, expert, rank, row, draw.integers(0, 65536, len(token)))
