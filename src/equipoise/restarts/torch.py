"""Pruned restarts on torch tensors, on whatever device they live.

All candidates of a batch take each step together, and a batch is as large as the memory limit
allows. Nothing waits for the device: what a step does depends on its data through masks, never
through branches of the host. Loads are integers and every minimum is over distinct ones, so no
result depends on the order in which a device adds or compares.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equipoise.restarts.counter import ITEM_STEP, MASK
from equipoise.restarts.counter_torch import mix, uniforms
from equipoise.restarts.settings import Settings

__all__ = ["as_tensors", "default_device", "fingerprint", "hash_weights", "pack", "prune", "scales", "select"]

MAX = 2**63 - 1
MEMORY = {"cuda": 2**32}  # bytes; 58 rows of 288 items take a tenth of the time that they take with 2**28
FULL = 2**62  # added to a pack that has no room left; above any load


def pack(
    weight: Any,
    num_packs: int,
    settings: Settings,
    key: Any,
    *,
    device: torch.device | str | None = None,
    memory_limit: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Pack ``weight`` [rows, items] into ``num_packs`` packs of equal size; see the folder's contract.

    ``weight`` and ``key`` are tensors, or numpy arrays to be sent to ``device`` (default: where ``weight``
    is); the results are int32 tensors there. At most about ``memory_limit`` bytes are in use at a time: 2**32 by
    default on CUDA, where small batches leave the device idle, and 2**28 elsewhere.

    Where the device has no float64 (Apple's), keys are float32, and a plan may differ where two keys
    are that close.
    """
    weight, key = as_tensors(weight, key, device)
    rows, items = weight.shape
    memory_limit = memory_limit or MEMORY.get(weight.device.type, 2**28)
    at_once = max(1, memory_limit // (64 * items + 32 * num_packs))  # candidates; bytes of one, counted generously
    pairs = min(settings.extremes, num_packs) ** 2 * items // num_packs
    survivors = max(1, memory_limit // (160 * pairs))
    rows_at_once = max(1, min(at_once // settings.restarts, survivors // min(settings.refined, settings.restarts)))
    parts = [
        _pack_rows(weight[row : row + rows_at_once], num_packs, settings, key[row : row + rows_at_once], at_once)
        for row in range(0, rows, rows_at_once)
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def default_device() -> torch.device:
    """Return where weights that come from the host are packed: on CUDA where it is there."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_tensors(weight: Any, key: Any, device: torch.device | str | None) -> tuple[Tensor, Tensor]:
    """Return weights and keys as int64 tensors on one device."""
    weight = weight if isinstance(weight, Tensor) else torch.tensor(weight)
    key = key if isinstance(key, Tensor) else torch.tensor(key.astype("int64"))  # 32 bits, whatever type holds them
    weight = weight.to(device=device, dtype=torch.int64)
    return weight, key.to(device=weight.device, dtype=torch.int64)


def scales(settings: Settings, device: torch.device) -> Tensor:
    """Return the noise scale of every restart, to the last bit that of ``Settings.scale``."""
    dtype = _float(device)
    return settings.noise * torch.arange(settings.restarts, dtype=dtype, device=device) / max(settings.restarts - 1, 1)


def _float(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _pack_rows(weight: Tensor, num_packs: int, settings: Settings, key: Tensor, at_once: int) -> tuple[Tensor, Tensor]:
    """Pack a few rows; restarts are streamed when those of one row exceed ``at_once``."""
    scale, item_hash = scales(settings, weight.device), hash_weights(weight)
    kept: tuple[Tensor, Tensor, Tensor] | None = None
    for first in range(0, settings.restarts, at_once):
        restart = torch.arange(first, min(first + at_once, settings.restarts), device=weight.device)[None, :]
        restart = restart.expand(len(weight), -1)
        order = sort_items(weight, key, restart, scale)
        pack_of, load = greedy(weight, order, num_packs)
        print_ = fingerprint(item_hash, order, pack_of, num_packs)
        scored = (load.amax(2) - load.amin(2), restart, print_)
        if kept is not None:
            scored = (_join(kept[0], scored[0]), _join(kept[1], scored[1]), _join(kept[2], scored[2]))
        kept = prune(*scored, settings.refined)
    assert kept is not None
    imbalance, restart, _ = kept
    order = sort_items(weight, key, restart, scale)
    pack_of, load = greedy(weight, order, num_packs)
    items_of = members(order, pack_of, num_packs)
    items_of, load = refine(weight, items_of, load, settings)
    # A row with fewer distinct candidates than survivors is filled up with copies, which must not be chosen.
    spread = (load.amax(2) - load.amin(2)).masked_fill(imbalance == MAX, MAX)
    return select(spread, items_of)


def _join(kept: Tensor, new: Tensor) -> Tensor:
    return torch.cat([kept, new], dim=1)


def sort_items(weight: Tensor, key: Tensor, restart: Tensor, scale: Tensor) -> Tensor:
    """Return the items of each candidate by descending perturbed weight: int64 [rows, r, items]."""
    sort_key = uniforms(key, restart, weight.shape[1], scale.dtype)
    sort_key *= scale[restart][:, :, None]  # a product, then a sum: fused into one they would round otherwise
    sort_key += 1.0
    sort_key *= weight.to(scale.dtype)[:, None, :]
    return sort_key.neg_().sort(dim=2, stable=True).indices


def greedy(weight: Tensor, order: Tensor, num_packs: int) -> tuple[Tensor, Tensor]:
    """Put the items of each candidate, in ``order``, into the lightest pack with room.

    Returns the pack of each item in that order, int64 [rows, r, items], and the load of each pack.
    """
    rows, count, items = order.shape
    room, shift = items // num_packs, (num_packs - 1).bit_length()
    added = weight[:, None, :].expand(-1, count, -1).gather(2, order).flatten(0, 1).T.contiguous() << shift
    pack_of = torch.empty_like(added)

    # The first items meet empty packs one after another; from the first item without weight on, packs
    # without load are filled up in turn.
    step = torch.arange(num_packs, device=weight.device)
    heavier = (weight > 0).sum(1, keepdim=True).clamp_(max=num_packs)
    first = torch.where(step < heavier, step, heavier + (step - heavier) // room)
    pack_of[:num_packs] = first.T.repeat_interleave(count, dim=1)
    size = torch.zeros(rows * count, num_packs, dtype=torch.int32, device=weight.device)
    size.scatter_add_(1, pack_of[:num_packs].T, torch.ones_like(size))
    # One integer holds load and pack number, so that the lightest pack, ties to the lowest, is a plain minimum.
    packed = step.repeat(rows * count, 1).scatter_add_(1, pack_of[:num_packs].T, added[:num_packs].T)
    packed += (size == room) * FULL

    for i in range(num_packs, items):
        lightest = packed.amin(1, keepdim=True)
        here = torch.bitwise_and(lightest, (1 << shift) - 1)
        pack_of[i] = here[:, 0]
        now = size.gather(1, here) + 1
        size.scatter_(1, here, now)
        packed.scatter_(1, here, lightest + added[i, :, None] + (now == room) * FULL)
    load = (packed & (FULL - 1)) >> shift
    return pack_of.T.reshape(rows, count, items), load.view(rows, count, num_packs)


def hash_weights(weight: Tensor) -> Tensor:
    """Return 44 random bits for each item, the same for equal weights of a row."""
    ordered, order = weight.sort(dim=1, descending=True, stable=True)
    place = torch.arange(weight.shape[1], device=weight.device).expand_as(weight)
    fresh = torch.ones_like(ordered, dtype=torch.bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = torch.where(fresh, place, 0).cummax(dim=1).values
    word = mix((place * ITEM_STEP) & MASK)
    return torch.empty_like(weight).scatter_(1, order, (word << 12) | (mix(word ^ ITEM_STEP) >> 20))


def fingerprint(item_hash: Tensor, order: Tensor, pack_of: Tensor, num_packs: int) -> Tensor:
    """Return a number that candidates share when they put the same weights together: int64 [rows, r]."""
    sums = order.new_zeros(*order.shape[:2], num_packs)
    sums.scatter_add_(2, pack_of, item_hash[:, None, :].expand_as(order).gather(2, order))
    low = mix((sums ^ (sums >> 32)) & MASK)
    high = mix((low + (sums >> 12)) & MASK)
    return ((high.sum(2) & (MASK >> 1)) << 32) | (low.sum(2) & MASK)


def prune(imbalance: Tensor, restart: Tensor, print_: Tensor, refined: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the ``refined`` smallest imbalances of each row, the lowest restart of those that coincide.

    The arguments are int64 [rows, r], ties in imbalance in the order of the restarts. Where fewer are
    distinct, the rest of the result has imbalance MAX.
    """
    by_print = print_.sort(dim=1, stable=True).indices
    by_both = by_print.gather(1, imbalance.gather(1, by_print).sort(dim=1, stable=True).indices)
    spread, word = imbalance.gather(1, by_both), print_.gather(1, by_both)
    copy = torch.zeros_like(imbalance, dtype=torch.bool)
    copy[:, 1:] = (spread[:, 1:] == spread[:, :-1]) & (word[:, 1:] == word[:, :-1])
    distinct = imbalance.masked_fill(torch.empty_like(copy).scatter_(1, by_both, copy), MAX)
    spread, best = distinct.sort(dim=1, stable=True)
    best = best[:, :refined]
    return spread[:, :refined], restart.gather(1, best), print_.gather(1, best)


def members(order: Tensor, pack_of: Tensor, num_packs: int) -> Tensor:
    """Return the items of each pack, in the order of their arrival: int64 [rows, r, packs, room]."""
    by_pack = pack_of.sort(dim=2, stable=True).indices
    return order.gather(2, by_pack).unflatten(2, (num_packs, -1))


def refine(weight: Tensor, items_of: Tensor, load: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Exchange items between heavy and light packs of each candidate until none levels them.

    Returns the items of each pack and the load of each pack, shaped as they came.
    """
    rows, count, num_packs, room = items_of.shape
    items, shift = num_packs * room, (num_packs - 1).bit_length()
    extremes, mask = min(settings.extremes, num_packs), (1 << shift) - 1
    # Items go by their rank in (weight, item) here, so that sorting numbers sorts weights, ties to the lowest
    # item; a rank is one of the flattened rows, so that one index finds its weight and its item.
    ordered, item_at = weight.sort(dim=1, stable=True)
    ranks = torch.arange(rows * items, device=weight.device).view(rows, items)
    rank_of = torch.empty_like(ranks).scatter_(1, item_at, ranks)
    held = rank_of.gather(1, items_of.flatten(1)).view(rows * count, num_packs, room)
    ordered, item_at = ordered.flatten(), item_at.flatten()
    load, shape = load.reshape(rows * count, num_packs), load.shape
    pack, place = torch.arange(num_packs, device=weight.device), torch.arange(extremes**2, device=weight.device)
    candidate = torch.arange(rows * count, device=weight.device)

    for _ in range(settings.swaps):
        heavy = mask - (((load << shift) | (mask - pack)).topk(extremes, dim=1).values & mask)
        light = ((load << shift) | pack).topk(extremes, dim=1, largest=False).values & mask
        difference = (load.gather(1, heavy)[:, :, None] - load.gather(1, light)[:, None, :])[..., None]

        # For each pair of packs and each u, the two v around the one that would level them; first of equals.
        u = held[candidate[:, None], heavy][:, :, None, :].expand(-1, -1, extremes, -1)
        v = held[candidate[:, None], light].sort(dim=2).values[:, None, :, :].expand(-1, extremes, -1, -1).contiguous()
        weight_u, weight_v = ordered[u], ordered[v]
        above = torch.searchsorted(weight_v, weight_u - (difference >> 1))
        below = torch.searchsorted(weight_v, weight_v.gather(3, (above - 1).clamp_(min=0)))
        near = torch.cat([below, above.clamp_(max=room - 1)], dim=3)
        u, v = torch.cat([u, u], dim=3), v.gather(3, near)
        d = torch.cat([weight_u, weight_u], dim=3) - weight_v.gather(3, near)
        off = (2 * d - difference).abs_().masked_fill_((d <= 0) | (d >= difference), MAX)
        nearest = off == off.amin(3, keepdim=True)
        swap = (item_at[u] * items + item_at[v]).masked_fill_(~nearest, MAX)
        swap, at = _first_min(swap)

        # Of all pairs of packs, the one whose exchange gains most.
        u, v, d = (found.gather(3, at).flatten(1) for found in (u, v, d))
        difference = difference.flatten(1)
        gain = (d.to(_float(d.device)) * (difference - d).to(_float(d.device))).masked_fill_(
            (d <= 0) | (d >= difference), 0.0
        )
        best = torch.where(gain == gain.amax(1, keepdim=True), place, MAX).amin(1, keepdim=True)
        moves = gain.gather(1, best)[:, 0] > 0
        if load.device.type == "cpu" and not moves.any():
            break  # another device would be waited for
        u, v, d = (found.gather(1, best) for found in (u, v, d))
        for packs, old, new, sign in ((heavy, u, v, -1), (light, v, u, 1)):
            chosen = packs.gather(1, best // extremes if sign < 0 else best % extremes)
            there = held[candidate, chosen[:, 0]]
            held[candidate, chosen[:, 0]] = torch.where((there == old) & moves[:, None], new, there)
            load = load.scatter_add(1, chosen, torch.where(moves[:, None], sign * d, 0))
    return item_at[held].view(items_of.shape), load.view(shape)


def select(spread: Tensor, items_of: Tensor) -> tuple[Tensor, Tensor]:
    """Return pack_index and rank_in_pack, int32 [rows, items], of the smallest ``spread``, first of equals."""
    rows, _, num_packs, room = items_of.shape
    _, best = _first_min(spread)
    chosen = items_of.gather(1, best[:, :, None, None].expand(-1, -1, num_packs, room)).view(rows, num_packs * room)
    slot = torch.arange(num_packs * room, dtype=torch.int32, device=chosen.device).expand_as(chosen)
    slot = torch.empty_like(slot).scatter_(1, chosen, slot)
    return slot // room, slot % room


def _first_min(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the minimum of the last axis and its first place; ``Tensor.min`` may return any."""
    least = value.amin(-1, keepdim=True)
    place = torch.arange(value.shape[-1], device=value.device)
    return least, torch.where(value == least, place, MAX).amin(-1, keepdim=True)
