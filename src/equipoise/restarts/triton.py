"""Pruned restarts on a CUDA device, each candidate kept on chip from its key to its imbalance.

One kernel scores every restart: it makes the keys, sorts them, packs greedily and writes two numbers,
imbalance and fingerprint. ``prune`` keeps the best. A second kernel makes the survivors again from
their counters, for that is cheaper than to have kept them all, and refines each.

A program of the first kernel scores a block of candidates. It sorts them one after another with all
its threads, noting the orders in a scratch area that never leaves the cache, and then packs them side
by side. Tensors are [packs of a thread, candidates, threads of a candidate]: a thread holds its packs in
registers, finds the lightest of them by itself, and asks at most 31 neighbours for theirs.

Keys are float64, rounded before sorting so that the item's number fits beside them in one int64. With
noise below 1,000 at least 47 of the 52 bits of the fraction are left: the plan is that of the other
implementations unless two keys differ by less than that. Loads are integers, minima are over distinct
numbers, and products are not fused with sums, so two runs give the same bits.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# Triton reads the kernels' annotations itself, and knows constexpr only.

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from equipoise.errors import InvalidInputError, MissingDependencyError
from equipoise.restarts import counter
from equipoise.restarts.settings import Settings
from equipoise.restarts.torch import as_tensors, default_device, hash_weights, prune, scales, select

__all__ = ["MOST_ITEMS", "MOST_PACKS", "default_device", "pack"]

MOST_ITEMS, MOST_PACKS = 1024, 256

# Chosen by what the compiler reports for Hopper: with 8 packs a thread needs fewer than 100 registers (with 32 it
# runs out of them), so five programs of four warps fit on a processor. Four warps sort 512 keys in registers.
PACKS_PER_THREAD = 8
SCORE_WARPS, SCORE_PROGRAMS_PER_PROCESSOR = 4, 5
REFINE_WARPS, EXCHANGES_AT_ONCE = 1, 1024

MAX = tl.constexpr(2**63 - 1)
FULL = tl.constexpr(2**62)  # added to a pack that has no room left; above any load
SIZE_BITS = tl.constexpr(11)  # of a tag, which counts the items of a pack below the sum of their hashes
SIZE_MASK = tl.constexpr(2**11 - 1)
MIX_1, MIX_2 = tl.constexpr(counter.MIX_1), tl.constexpr(counter.MIX_2)
RESTART_STEP, ITEM_STEP = tl.constexpr(counter.RESTART_STEP), tl.constexpr(counter.ITEM_STEP)
ONE_BITS = tl.constexpr(0x3FF0000000000000)  # float64 1.0: no key but zero is smaller
UNIT = tl.constexpr(2.0**-24)


def pack(
    weight: Any,
    num_packs: int,
    settings: Settings,
    key: Any,
    *,
    device: torch.device | str | None = None,
    memory_limit: int = 2**31,
) -> tuple[Tensor, Tensor]:
    """Pack ``weight`` [rows, items] into ``num_packs`` packs of equal size; see the folder's contract.

    ``weight`` and ``key`` are tensors, or numpy arrays to be sent to ``device``; the results are int32 tensors
    there. Nothing waits for the device, and the work can be captured in a CUDA graph. About
    ``memory_limit`` bytes are in use at a time.

    Raises
    ------
    InvalidInputError
        If there are more than 1,024 items or 256 packs.
    MissingDependencyError
        If the weights are not on a CUDA device (and Triton does not interpret).
    """
    weight, key = as_tensors(weight, key, device)
    rows, items = weight.shape
    if items > MOST_ITEMS or num_packs > MOST_PACKS:
        raise InvalidInputError(
            f"{items} items in {num_packs} packs are more than the triton backend holds on chip, {MOST_ITEMS} in "
            f"{MOST_PACKS}. Use backend 'torch'."
        )
    if weight.device.type != "cuda" and isinstance(_score, triton.JITFunction):
        raise MissingDependencyError(
            f"backend 'triton' needs a CUDA device, and the weights are on {weight.device.type!r}. Move them there, or "
            "use backend 'numba'."
        )
    rows_at_once = max(1, memory_limit // (96 * settings.restarts))  # sorting takes most of it
    with torch.cuda.device(weight.device) if weight.device.type == "cuda" else nullcontext():
        parts = [
            _pack_rows(weight[row : row + rows_at_once], num_packs, settings, key[row : row + rows_at_once])
            for row in range(0, rows, rows_at_once)
        ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _pack_rows(weight: Tensor, num_packs: int, settings: Settings, key: Tensor) -> tuple[Tensor, Tensor]:
    rows, items = weight.shape
    device, restarts = weight.device, settings.restarts
    shift = (num_packs - 1).bit_length()
    padded_items, padded_packs = triton.next_power_of_2(items), triton.next_power_of_2(num_packs)
    item_bits = (padded_items - 1).bit_length()
    span = int(np.float64(2.0**52 * (1.0 + settings.noise)).view(np.int64)) - ONE_BITS.value
    key_drop = max(0, (span + padded_items).bit_length() + item_bits - 63)
    table = (
        weight << shift,
        ((hash_weights(weight) >> 2) << SIZE_BITS.value) | 1,
        (weight > 0).sum(1),
        key.contiguous(),
        scales(settings, device),
    )
    sizes = (items, num_packs, items // num_packs)
    shared = {
        "ITEMS": padded_items,
        "ITEM_BITS": item_bits,
        "SHIFT": shift,
        "KEY_TOP": (span >> key_drop) + 1,
        "KEY_DROP": key_drop,
        "enable_fp_fusion": False,  # 1 + s u, fused, would round otherwise than in the other implementations
    }

    lanes = max(1, padded_packs // PACKS_PER_THREAD)
    block = 32 * SCORE_WARPS // lanes
    blocks_per_row = triton.cdiv(restarts, block)
    programs = min(rows * blocks_per_row, SCORE_PROGRAMS_PER_PROCESSOR * _processors(device))
    order = torch.empty(programs * (items + 1) * block, dtype=torch.int16, device=device)
    imbalance = torch.empty(rows, restarts, dtype=torch.int64, device=device)
    print_ = torch.empty_like(imbalance)
    _score[(programs,)](
        *table, order, imbalance, print_, restarts, blocks_per_row, rows * blocks_per_row, *sizes,
        **shared, PACKS=padded_packs // lanes, LANES=lanes, BLOCK=block, num_warps=SCORE_WARPS,
    )  # fmt: skip

    every = torch.arange(restarts, device=device).expand(rows, -1)
    imbalance, restart, _ = prune(imbalance, every, print_, settings.refined)
    survivors = restart.shape[1]
    order = torch.empty(rows * survivors * (items + 1), dtype=torch.int16, device=device)
    items_of = torch.empty(rows, survivors, num_packs, items // num_packs, dtype=torch.int32, device=device)
    spread = torch.empty_like(imbalance)
    lanes = min(32, padded_packs)
    padded_room = triton.next_power_of_2(items // num_packs)
    _refine[(rows * survivors,)](
        *table, order, imbalance.contiguous(), restart.contiguous(), items_of, spread,
        survivors, settings.swaps, min(settings.extremes, num_packs), *sizes,
        **shared, PACKS=padded_packs // lanes, LANES=lanes, ROOM=padded_room,
        AT_ONCE=min(padded_room, max(1, EXCHANGES_AT_ONCE // padded_room)), num_warps=REFINE_WARPS,
    )  # fmt: skip
    return select(spread, items_of.long())


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


@triton.jit
def _mix(value):
    """Scramble 32-bit words, uint32."""
    value = value ^ (value >> 16)
    value = value * MIX_1
    value = value ^ (value >> 15)
    value = value * MIX_2
    return value ^ (value >> 16)


@triton.jit
def _sort_items(weight, key, scale, restart, items, order, stride,
                ITEMS: tl.constexpr, ITEM_BITS: tl.constexpr, SHIFT: tl.constexpr,
                KEY_TOP: tl.constexpr, KEY_DROP: tl.constexpr):  # fmt: skip
    """Write the items of one candidate to ``order``, ``stride`` apart, by descending perturbed weight."""
    item = tl.arange(0, ITEMS)
    stream = _mix((key + restart.to(tl.int64) * RESTART_STEP).to(tl.uint32))
    word = _mix(stream + item.to(tl.uint32) * ITEM_STEP)
    uniform = (word >> 8).to(tl.int32).to(tl.float64) * UNIT
    own = tl.load(weight + item, mask=item < items, other=0) >> SHIFT
    perturbed = own.to(tl.float64) * (1.0 + scale * uniform)
    # Zero comes after one even where the bits between them are dropped.
    bits = tl.maximum(((perturbed.to(tl.int64, bitcast=True) - ONE_BITS) >> KEY_DROP) + 1, 0)
    code = ((KEY_TOP - bits) << ITEM_BITS) | item
    code = tl.sort(tl.where(item < items, code, MAX))
    tl.store(order + item * stride, (code & (ITEMS - 1)).to(tl.int16), mask=item < items)


@triton.jit
def _greedy(weight, tag, heavier, order, count, items, num_packs, room, items_of,
            PACKS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr, KEEP: tl.constexpr):  # fmt: skip
    """Pack ``count`` candidates in their ``order`` [items + 1, BLOCK]; return packed loads and tags of their packs.

    The tensors are [PACKS, BLOCK, LANES]; the number of a pack is PACKS index * LANES + LANES index. With ``KEEP``
    the items of the packs are written to ``items_of`` [num_packs, room]; ``BLOCK`` is 1 then.
    """
    pack = (tl.arange(0, PACKS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]).to(tl.int64)
    candidate = tl.minimum(tl.arange(0, BLOCK), count - 1)[None, :, None]
    real = pack < num_packs

    # The first items meet empty packs one after another; from the first item without weight on, packs
    # without load are filled up in turn.
    first_item = tl.load(order + tl.minimum(pack, num_packs - 1) * BLOCK + candidate)
    light = pack - heavier  # which of the packs without load, if any
    start_size = tl.where(light < 0, 1, tl.minimum(tl.maximum(num_packs - heavier - light * room, 0), room))
    packed = tl.load(weight + first_item) + pack + tl.where(start_size == room, FULL, 0)
    packed = tl.where(real, packed, MAX)
    tags = tl.where(real, tl.load(tag + first_item) * start_size, 0)
    if KEEP:
        slot = tl.where(light < 0, pack * room, heavier * room + light)
        tl.store(items_of + slot, first_item.to(tl.int32), mask=real)

    next_item = tl.load(order + num_packs * BLOCK + candidate)
    for step in range(num_packs, items):
        # Loaded one step ahead, as it does not depend on where this item goes; what lies behind the last is not used.
        item = next_item
        next_item = tl.load(order + (step + 1) * BLOCK + candidate)
        lightest = tl.min(tl.min(packed, axis=0, keep_dims=True), axis=2, keep_dims=True)
        here = packed == lightest
        tags += tl.where(here, tl.load(tag + item), 0)
        size = (tags & SIZE_MASK).to(tl.int32)
        heavier_now = lightest + tl.load(weight + item)
        packed = tl.where(here, tl.where(size == room, heavier_now + FULL, heavier_now), packed)
        if KEEP:
            taken = tl.where(here, pack * room + size - 1, 0)
            taken = tl.sum(tl.sum(taken, axis=0, keep_dims=True), axis=2, keep_dims=True)
            tl.store(items_of + taken, item.to(tl.int32))
    return packed, tags


@triton.jit
def _score(weight, tag, heavier, key, scale, order, imbalance, print_, restarts, blocks_per_row, blocks,
           items, num_packs, room,
           ITEMS: tl.constexpr, ITEM_BITS: tl.constexpr, SHIFT: tl.constexpr,
           KEY_TOP: tl.constexpr, KEY_DROP: tl.constexpr,
           PACKS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Write imbalance and fingerprint of every restart of every row."""
    program = tl.program_id(0)
    order += program * (items + 1) * BLOCK
    for block in range(program, blocks, tl.num_programs(0)):
        row = block // blocks_per_row
        first = (block % blocks_per_row) * BLOCK
        row_weight = weight + row * items
        count = tl.minimum(BLOCK, restarts - first)
        for candidate in range(count):
            restart = first + candidate
            _sort_items(row_weight, tl.load(key + row), tl.load(scale + restart), restart, items,
                        order + candidate, BLOCK, ITEMS, ITEM_BITS, SHIFT, KEY_TOP, KEY_DROP)  # fmt: skip
        tl.debug_barrier()  # the orders are read by other threads than wrote them
        packed, tags = _greedy(row_weight, tag + row * items, tl.load(heavier + row), order, count,
                               items, num_packs, room, order, PACKS, LANES, BLOCK, False)  # fmt: skip
        tl.debug_barrier()

        pack = tl.arange(0, PACKS)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]
        real = pack < num_packs
        load = (packed & (FULL - 1)) >> SHIFT
        heaviest = tl.max(tl.max(tl.where(real, load, -1), axis=0), axis=1)
        lightest = tl.min(tl.min(tl.where(real, load, MAX), axis=0), axis=1)
        sums = tags >> SIZE_BITS
        half = _mix((sums ^ (sums >> 32)).to(tl.uint32))
        low = tl.sum(tl.sum(tl.where(real, half.to(tl.int64), 0), axis=0), axis=1)
        high = tl.sum(tl.sum(tl.where(real, _mix(half + (sums >> 12).to(tl.uint32)).to(tl.int64), 0), axis=0), axis=1)
        restart = first + tl.arange(0, BLOCK)
        at = row.to(tl.int64) * restarts + restart
        tl.store(imbalance + at, heaviest - lightest, mask=restart < restarts)
        tl.store(print_ + at, ((high & 0x7FFFFFFF) << 32) | (low & 0xFFFFFFFF), mask=restart < restarts)


@triton.jit
def _refine(weight, tag, heavier, key, scale, order, imbalance, restart, items_of, spread,
            survivors, swaps, extremes, items, num_packs, room,
            ITEMS: tl.constexpr, ITEM_BITS: tl.constexpr, SHIFT: tl.constexpr,
            KEY_TOP: tl.constexpr, KEY_DROP: tl.constexpr,
            PACKS: tl.constexpr, LANES: tl.constexpr, ROOM: tl.constexpr, AT_ONCE: tl.constexpr):  # fmt: skip
    """Make one survivor again, exchange its items until that levels no more, and write it and its imbalance."""
    program = tl.program_id(0)
    if tl.load(imbalance + program) == MAX:  # a copy that fills up the survivors
        tl.store(spread + program, MAX)
        return
    row = program // survivors
    weight += row * items
    order += program * (items + 1)
    items_of += program * items
    own = tl.load(restart + program)
    _sort_items(weight, tl.load(key + row), tl.load(scale + own), own, items, order, 1,
                ITEMS, ITEM_BITS, SHIFT, KEY_TOP, KEY_DROP)  # fmt: skip
    tl.debug_barrier()
    packed, _tags = _greedy(weight, tag + row * items, tl.load(heavier + row), order, 1,
                            items, num_packs, room, items_of, PACKS, LANES, 1, True)  # fmt: skip
    tl.debug_barrier()

    pack = tl.arange(0, PACKS * LANES)
    load = tl.reshape((packed & (FULL - 1)) >> SHIFT, [PACKS * LANES])
    PACK_MASK: tl.constexpr = (1 << SHIFT) - 1
    done = 0
    while done < swaps:
        by_heavy = tl.where(pack < num_packs, (load << SHIFT) | (PACK_MASK - pack), -1)
        by_light = tl.where(pack < num_packs, (load << SHIFT) | pack, MAX)
        best_gain = tl.full((), 0.0, tl.float64)
        best_heavy, best_light = tl.full((), 0, tl.int64), tl.full((), 0, tl.int64)
        best_exchange, best_moved = tl.full((), 0, tl.int64), tl.full((), 0, tl.int64)
        above = tl.full((), MAX, tl.int64)
        for _ in range(extremes):
            above = tl.max(tl.where(by_heavy < above, by_heavy, -1))
            heavy = PACK_MASK - (above & PACK_MASK)
            below = tl.full((), -1, tl.int64)
            for _ in range(extremes):
                below = tl.min(tl.where(by_light > below, by_light, MAX))
                light = below & PACK_MASK
                difference = (above >> SHIFT) - (below >> SHIFT)
                half = difference.to(tl.float64) * 0.5
                # No exchange gains more than half the difference, squared.
                if (difference > 0) & (half * half >= best_gain * 0.999999):
                    exchange = _nearest_exchange(weight, items_of + heavy * room, items_of + light * room, difference,
                                                 room, SHIFT, ROOM, AT_ONCE)  # fmt: skip
                    if exchange < MAX:
                        moved = (tl.load(weight + (exchange >> 10)) - tl.load(weight + (exchange & 1023))) >> SHIFT
                        gain = moved.to(tl.float64) * (difference - moved).to(tl.float64)
                        if gain > best_gain:
                            best_gain, best_heavy, best_light = gain, heavy, light
                            best_exchange, best_moved = exchange, moved
        if best_gain > 0:
            u, v = (best_exchange >> 10).to(tl.int32), (best_exchange & 1023).to(tl.int32)
            place = tl.arange(0, ROOM)
            slot_u, slot_v = items_of + best_heavy * room + place, items_of + best_light * room + place
            is_u = tl.load(slot_u, mask=place < room, other=-1) == u
            is_v = tl.load(slot_v, mask=place < room, other=-1) == v
            tl.store(slot_u, v, mask=is_u)
            tl.store(slot_v, u, mask=is_v)
            tl.debug_barrier()  # the next round reads what other threads wrote
            load += tl.where(pack == best_light, best_moved, 0) - tl.where(pack == best_heavy, best_moved, 0)
            done += 1
        else:
            done = swaps
    heaviest, lightest = tl.max(tl.where(pack < num_packs, load, -1)), tl.min(tl.where(pack < num_packs, load, MAX))
    tl.store(spread + program, heaviest - lightest)


@triton.jit
def _nearest_exchange(weight, heavy, light, difference, room,
                      SHIFT: tl.constexpr, ROOM: tl.constexpr, AT_ONCE: tl.constexpr):  # fmt: skip
    """Return u * 1024 + v of the exchange between two packs that levels them best, or MAX if none does."""
    place = tl.arange(0, ROOM)
    v = tl.load(light + place, mask=place < room, other=0)
    weight_v = tl.load(weight + v) >> SHIFT
    least, exchange = tl.full((), MAX, tl.int64), tl.full((), MAX, tl.int64)
    for first in range(0, room, AT_ONCE):
        place_u = first + tl.arange(0, AT_ONCE)
        u = tl.load(heavy + place_u, mask=place_u < room, other=0)
        d = (tl.load(weight + u) >> SHIFT)[:, None] - weight_v[None, :]
        levels = (d > 0) & (d < difference) & (place_u < room)[:, None] & (place < room)[None, :]
        off = tl.where(levels, tl.abs(2 * d - difference), MAX)
        here = tl.min(tl.min(off, axis=0), axis=0)  # of a thread's own first
        code = tl.where((off == here) & levels, u[:, None].to(tl.int64) * 1024 + v[None, :], MAX)
        code = tl.min(tl.min(code, axis=0), axis=0)
        if here < least:
            least, exchange = here, code
        elif here == least:
            exchange = tl.minimum(exchange, code)
    return exchange
