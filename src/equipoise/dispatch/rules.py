"""How engines choose the replica that a token goes to: their own rules, exactly, as a table.

==================  ================================================================================================
name                slot of a token
==================  ================================================================================================
even                no rule: every replica gets the same part of its expert's tokens, fractions too
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
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import UnknownNameError, listed, shown
from equipoise.placement import Placement

__all__ = ["RULES", "Batch", "Maps", "Rule", "batch_of", "deal", "find_rule", "slot_tokens"]

Ints = NDArray[np.int64]

KNUTH = 2654435769  # floor(2**32 / golden ratio)
SGLANG_SEED = 42


@dataclass(frozen=True, eq=False)
class Batch:
    """What the router decided in one step: an entry for each token and each of its experts, in all layers.

    Attributes
    ----------
    layer, expert : int64 array, shape (entries,)
    rank : int64 array, shape (entries,)
        The rank that the token came from.
    row : int64 array, shape (entries,)
        The token's place in the batch of that rank.
    draw : int64 array, shape (entries,)
        A number of its own from 0 to 65535, for rules that draw at random.

    Entries of one layer stand in the order of ranks and rows.
    """

    layer: Ints
    expert: Ints
    rank: Ints
    row: Ints
    draw: Ints


class Maps:
    """What rules look up in a placement: the replicas of each expert by ascending slot.

    ``slots`` int64 [layers, experts, largest count], -1 for none; ``count`` int64 [layers, experts].
    """

    def __init__(self, placement: Placement, num_nodes: int = 1) -> None:
        self.placement, self.num_nodes = placement, num_nodes
        self.slots = placement.logical_to_physical.astype(np.int64)
        self.count = placement.replica_count.astype(np.int64)

    @cached_property
    def sglang_static(self) -> Ints:
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


Choose = Callable[[Maps, Batch], Ints]


@dataclass(frozen=True)
class Rule:
    """A row: ``choose`` returns the slot of each entry of a batch; None splits evenly."""

    name: str
    choose: Choose | None


def _replica(maps: Maps, batch: Batch, number: Ints) -> Ints:
    """Return the slot of the replica with that number, modulo how many there are."""
    which = number % maps.count[batch.layer, batch.expert]
    found: Ints = maps.slots[batch.layer, batch.expert, which]
    return found


def _vllm(maps: Maps, batch: Batch) -> Ints:
    return _replica(maps, batch, (batch.row * KNUTH) & 0xFFFFFFFF)


def _sglang_static(maps: Maps, batch: Batch) -> Ints:
    found: Ints = maps.sglang_static[batch.rank, batch.layer, batch.expert]
    return found


def _sglang_dynamic(maps: Maps, batch: Batch) -> Ints:
    return _replica(maps, batch, batch.draw)


def _tensorrt_llm(maps: Maps, batch: Batch) -> Ints:
    ranks = maps.placement.num_ranks
    queue = (batch.layer * maps.count.shape[1] + batch.expert) * ranks + batch.rank
    order = np.argsort(queue, kind="stable")
    starts = np.flatnonzero(np.diff(queue[order], prepend=-1))
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return _replica(maps, batch, turn + batch.rank)


def _ascend(maps: Maps, batch: Batch) -> Ints:
    return _replica(maps, batch, batch.rank)


RULES: dict[str, Rule] = {
    row.name: row
    for row in (
        Rule("even", None),
        Rule("vllm", _vllm),
        Rule("sglang-static", _sglang_static),
        Rule("sglang-dynamic", _sglang_dynamic),
        Rule("tensorrt-llm", _tensorrt_llm),
        Rule("ascend", _ascend),
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


def slot_tokens(rule: Rule, maps: Maps, counts: NDArray[np.float64], batch: Batch | None) -> NDArray[np.float64]:
    """Return the tokens of each slot in one step, [layers, slots].

    Parameters
    ----------
    rule : Rule
    maps : Maps
    counts : float64 array, shape (num_layers, num_logical_experts)
        Tokens of each expert.
    batch : Batch or None
        The same tokens one by one; None is enough for a rule that splits evenly.
    """
    table = maps.placement.physical_to_logical
    if rule.choose is None or batch is None:
        each = np.pad(counts / np.maximum(maps.count, 1), ((0, 0), (0, 1)))
        return np.take_along_axis(each, table.astype(np.int64) % (counts.shape[1] + 1), 1)
    layers, slots = table.shape
    cell = batch.layer * slots + rule.choose(maps, batch)
    return np.bincount(cell, minlength=layers * slots).reshape(layers, slots).astype(np.float64)


def deal(counts: NDArray[np.int64], num_ranks: int, experts_per_token: int, draw: np.random.Generator) -> Batch:
    """Return a batch with ``counts`` tokens for each expert [layers, experts], which say not whose tokens they were.

    The choices of a layer are dealt in random order to tokens of ``experts_per_token`` choices, and the tokens in equal
    parts to the ranks, so a token may have an expert twice, which a router does not do.
    """
    layers, experts = counts.shape
    cells = np.repeat(np.arange(layers * experts), counts.reshape(-1))
    layer = cells // experts
    cells = cells[np.lexsort((draw.random(len(cells)), layer))]
    per_layer = counts.sum(axis=1)
    place = np.arange(len(cells)) - np.repeat(np.cumsum(per_layer) - per_layer, per_layer)
    tokens = np.repeat(-(-per_layer // experts_per_token), per_layer)
    return _placed(layer, cells % experts, place // experts_per_token, tokens, num_ranks, draw)


def batch_of(tokens: NDArray[np.int64], num_ranks: int, draw: np.random.Generator) -> Batch:
    """Return the batch of tokens [tokens, layers, k] with their experts, -1 for none, in equal parts on the ranks."""
    number = len(tokens)
    layer, token, place = np.nonzero(tokens.transpose(1, 0, 2) >= 0)
    expert = tokens[token, layer, place].astype(np.int64)
    return _placed(layer, expert, token, np.full(len(token), number), num_ranks, draw)


def _placed(layer: Ints, expert: Ints, token: Ints, tokens: Ints, num_ranks: int, draw: np.random.Generator) -> Batch:
    """Give the token numbered ``token`` of ``tokens`` its rank, and its row there."""
    rank = token * num_ranks // tokens
    row = token - -(-rank * tokens // num_ranks)
    return Batch(layer, expert, rank, row, draw.integers(0, 65536, len(token)))
