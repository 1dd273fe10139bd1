"""Pruned restarts as a plain batched tensor program: the baseline of the speed ratios.

Written step by step from the description of the strategy, the way most tensor programs are: every
restart of every layer is a row of one batch, each step is one operation on all of them, and
refinement looks at all pairs of items of the heaviest and lightest packs in one table.
"""

from __future__ import annotations

import torch

__all__ = ["pack"]


def pack(
    weight: torch.Tensor,
    num_packs: int,
    restarts: int = 2048,
    refined: int = 64,
    noise: float = 0.20,
    swaps: int = 50,
    extremes: int = 4,
    seed: int = 0,
    layers_at_once: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pack ``weight`` [layers, items] into packs of equal size, on its device.

    ``layers_at_once`` cuts the batch where it would not fit in memory, or in a cache; by default all
    layers are one batch. Returns pack_index and rank_in_pack, int64 [layers, items].
    """
    weight = weight.to(torch.float32)
    generator = torch.Generator(weight.device).manual_seed(seed)
    parts = [
        _pack_batch(part, num_packs, restarts, refined, noise, swaps, extremes, generator)
        for part in weight.split(layers_at_once or len(weight))
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _pack_batch(
    weight: torch.Tensor,
    num_packs: int,
    restarts: int,
    refined: int,
    noise: float,
    swaps: int,
    extremes: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    layers, items = weight.shape
    if items == num_packs:
        pack_index = torch.arange(items, device=weight.device).expand(layers, items).clone()
        return pack_index, torch.zeros_like(pack_index)
    uniform = torch.rand(layers, restarts, items, generator=generator, device=weight.device)
    scale = torch.linspace(0.0, noise, restarts, device=weight.device)
    key = weight[:, None, :] * (1.0 + scale[None, :, None] * uniform)
    order = key.argsort(dim=-1, descending=True)
    pack_index, rank_in_pack, load = _greedy(weight, order, num_packs)

    imbalance = load.amax(-1) - load.amin(-1)
    kept = imbalance.topk(min(refined, restarts), dim=1, largest=False, sorted=True).indices
    pack_index = pack_index.gather(1, kept[:, :, None].expand(-1, -1, items))
    rank_in_pack = rank_in_pack.gather(1, kept[:, :, None].expand(-1, -1, items))

    pack_index, rank_in_pack, load = _refine(weight, pack_index, rank_in_pack, num_packs, swaps, extremes)
    best = (load.amax(-1) - load.amin(-1)).argmin(1)
    row = torch.arange(layers, device=weight.device)
    return pack_index[row, best], rank_in_pack[row, best]


def _greedy(
    weight: torch.Tensor, order: torch.Tensor, num_packs: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the items of every candidate, in its own order, into the lightest pack with room."""
    layers, restarts, items = order.shape
    room = items // num_packs
    in_order = weight[:, None, :].expand(-1, restarts, -1).gather(2, order)
    load = weight.new_zeros(layers, restarts, num_packs)
    size = torch.zeros(layers, restarts, num_packs, dtype=torch.int64, device=weight.device)
    pack_index, rank_in_pack = torch.empty_like(order), torch.empty_like(order)
    for step in range(items):
        lightest = load.masked_fill(size >= room, float("inf")).argmin(-1, keepdim=True)
        item = order[:, :, step : step + 1]
        pack_index.scatter_(2, item, lightest)
        rank_in_pack.scatter_(2, item, size.gather(2, lightest))
        load.scatter_add_(2, lightest, in_order[:, :, step : step + 1])
        size.scatter_add_(2, lightest, torch.ones_like(lightest))
    return pack_index, rank_in_pack, load


def _refine(
    weight: torch.Tensor,
    pack_index: torch.Tensor,
    rank_in_pack: torch.Tensor,
    num_packs: int,
    swaps: int,
    extremes: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Exchange the best pair of items between the heaviest and lightest packs of every survivor."""
    layers, survivors, items = pack_index.shape
    room, count = items // num_packs, layers * survivors
    extremes = min(extremes, num_packs)
    weight = weight[:, None, :].expand(-1, survivors, -1).reshape(count, items)
    slot = (pack_index * room + rank_in_pack).reshape(count, items)
    item_of = torch.empty_like(slot).scatter_(1, slot, torch.arange(items, device=slot.device).expand_as(slot))
    load = weight.gather(1, item_of).view(count, num_packs, room).sum(-1)
    place = torch.arange(room, device=slot.device)
    row = torch.arange(count, device=slot.device)
    for _ in range(swaps):
        heavy = load.topk(extremes, dim=1).indices
        light = load.topk(extremes, dim=1, largest=False).indices
        slot_u = (heavy[:, :, None] * room + place).flatten(1)
        slot_v = (light[:, :, None] * room + place).flatten(1)
        pack_u, pack_v = slot_u // room, slot_v // room
        difference = load.gather(1, pack_u)[:, :, None] - load.gather(1, pack_v)[:, None, :]
        d = (
            weight.gather(1, item_of.gather(1, slot_u))[:, :, None]
            - weight.gather(1, item_of.gather(1, slot_v))[:, None, :]
        )
        gain = (2 * d * (difference - d)).masked_fill_(pack_u[:, :, None] == pack_v[:, None, :], 0.0)
        best_gain, best = gain.flatten(1).max(1)
        better = best_gain > 0
        if not better.any():
            break
        i, j = best // slot_v.shape[1], best % slot_v.shape[1]
        u, v = slot_u[row, i], slot_v[row, j]
        item_u, item_v = item_of[row, u], item_of[row, v]
        item_of[row, u] = torch.where(better, item_v, item_u)
        item_of[row, v] = torch.where(better, item_u, item_v)
        moved = torch.where(better, d[row, i, j], 0.0)
        load[row, pack_u[row, i]] -= moved
        load[row, pack_v[row, j]] += moved
    slot = torch.empty_like(item_of).scatter_(1, item_of, torch.arange(items, device=slot.device).expand_as(item_of))
    slot = slot.view(layers, survivors, items)
    return slot // room, slot % room, load.view(layers, survivors, num_packs)
