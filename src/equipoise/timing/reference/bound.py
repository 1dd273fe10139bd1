"""The bound, argument by argument, in plain Python; see ``equipoise.timing.bound``."""

from __future__ import annotations

import math

from equipoise.latency.curve import Curve, moments_of, most_tokens

__all__ = ["count_of", "floor_of", "ordered", "raised"]


def ordered(tokens: list[float]) -> list[int]:
    """Return the experts by descending tokens, ties to the lowest number."""
    most = max(max(tokens), 1e-300)
    return sorted(range(len(tokens)), key=lambda e: (round((1.0 - tokens[e] / most) * 2.0**45), e))


def count_of(tokens: float, most: float, limit: int) -> int:
    """Return the fewest replicas with ``most`` tokens each, one more than ``limit`` at most."""
    if tokens <= most:
        return 1
    if tokens >= most * limit:
        return limit + (1 if tokens * (1.0 - 1e-12) > most * limit else 0)
    return max(math.ceil(tokens / most * (1.0 - 1e-12)), 1)


def _rest(single: list[float]) -> list[float]:
    """Return the sums from each on, added from the end."""
    rest = [0.0]
    for each in reversed(single):
        rest.insert(0, rest[0] + each)
    return rest


def _room(curve: Curve, tokens: list[float], shape: tuple[int, int], time: float) -> float:
    """Return what work leaves of ``time`` on all ranks; -inf where replicas exceed the slots. ``tokens`` descend."""
    num_ranks, num_slots = shape[0], shape[0] * shape[1]
    rest = _rest([moments_of(curve, each)[0] for each in tokens])
    most, slots, work = most_tokens(curve, time), 0, 0.0
    for i, each in enumerate(tokens):
        if each <= most:
            work += rest[i]
            slots += len(tokens) - i
            break
        count = count_of(each, most, num_slots)
        slots += count
        if slots > num_slots:
            break
        work += count * moments_of(curve, each / count)[0]
    return num_ranks * time * (1.0 + 1e-9) - work if slots <= num_slots else -math.inf


def floor_of(curve: Curve, tokens: list[float], shape: tuple[int, int]) -> float:
    """Return the bound by replicas and work, or by the company of the hottest where no slot is spare."""
    num_ranks, slots = shape
    tokens = [tokens[e] for e in ordered(tokens)]
    single = [moments_of(curve, each)[0] for each in tokens]
    rest = _rest(single)
    low = rest[0] / num_ranks * (1.0 - 1e-9)
    high = max(single[0], low)
    over = -_room(curve, tokens, shape, low * (1.0 + 2.0 * 1e-9))
    if over > 0.0:
        left = _room(curve, tokens, shape, high)
        for _ in range(40):
            if high - low <= 1e-4 * high:
                break
            part = over / (over + left) if over < math.inf else 0.5
            time = low + (high - low) * min(max(part, 0.02), 1.0 - 0.02)
            room = _room(curve, tokens, shape, time)
            if room >= 0.0:
                high, left, over = time, room, over * 0.5
            else:
                low, over, left = time, -room, left * 0.5
    company = (single[0] + rest[len(tokens) - slots + 1]) * (1.0 - 1e-9) if num_ranks * slots <= len(tokens) else 0.0
    return max(low, company)


def raised(curve: Curve, tokens: list[float], shape: tuple[int, int], bound: float, achieved: float) -> float:
    """Return a bound raised by counting, k after k."""
    num_ranks, slots = shape
    tokens = [tokens[e] for e in ordered(tokens)]
    low, fewest = min(bound, achieved), max(len(tokens) // num_ranks, 1)
    for at in range(5 * (slots + 1 - fewest)):
        if achieved - low <= 2e-3 * achieved:
            break
        k, middle = (at % 5 + 1) * (fewest + at // 5), low * (1.0 + 2e-3)
        if k > 40 or not _too_many(curve, tokens, shape, k, middle):
            continue
        low, high = middle, achieved
        while high - low > 2e-3 * high:
            middle = 0.5 * (low + high)
            if _too_many(curve, tokens, shape, k, middle):
                low = middle
            else:
                high = middle
    return low


MIXTURES = ((0.8, 0.0), (0.7, 0.0), (0.9, 0.0), (1.0, 0.0), (0.75, 0.005), (0.85, 0.0), (0.9, 0.05))


def _too_many(curve: Curve, tokens: list[float], shape: tuple[int, int], k: int, time: float) -> bool:
    """Whether replicas count for more than the ranks hold, by one of the mixtures."""
    num_ranks, spare = shape[0], shape[0] * shape[1] - len(tokens)
    single = [moments_of(curve, each)[0] for each in tokens]
    unsplit = sum(sum(each > i * (time / (k + 1)) for each in single) for i in range(1, k + 2))
    if unsplit <= num_ranks * k:
        return False
    unit = time / (k + 1) * (1.0 + 1e-9)
    most = []
    for i in range(k + 1):
        most.append(most_tokens(curve, min((i + 1) * unit, time)))
        if most[-1] >= tokens[0]:
            most += [most[-1]] * (k + 1 - len(most))
            break
    sums = [-price * spare for _, price in MIXTURES]
    first = 0
    while first < len(tokens) and tokens[first] > most[0]:
        last = first
        while (
            last + 1 < len(tokens)
            and tokens[last + 1] > most[0]
            and tokens[last + 1] * 1.1 >= tokens[first]
            and single[last + 1] * 1.002 >= single[first]
        ):
            last += 1
        best, fewest = [math.inf] * len(MIXTURES), k * (spare + 1) + 1
        top = next((i for i in range(k + 1) if most[i] >= tokens[last]), k)
        for i in range(top, -1, -1):
            count = count_of(tokens[last], most[i], spare + 1)
            if count > spare + 1:
                break
            if count * i < fewest:
                fewest = count * i
                work = moments_of(curve, tokens[last] / count)[0] if count > 1 else single[last]
                for x, (a, price) in enumerate(MIXTURES):
                    counted = a * (count * i / k) + (1.0 - a) * (work * count / time)
                    best[x] = min(best[x], counted + price * (count - 1))
        sums = [each + more * (last + 1 - first) for each, more in zip(sums, best, strict=True)]
        first = last + 1
    rest = _rest(single)[first]
    sums = [each + (1.0 - a) * rest / time for each, (a, _) in zip(sums, MIXTURES, strict=True)]
    return max(sums) > num_ranks * (1.0 + 1e-9)
