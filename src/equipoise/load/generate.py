"""Loads that look like real ones, for demonstrations, tests and benchmarks.

What routing statistics of large models have in common, and what is drawn here layer by layer:

1. a lognormal body: the log of an expert's share is normal with standard deviation sigma;
2. a heavy top: the hottest expert receives 4 to 14 times the mean;
3. one group of consecutive experts that is hot as a whole, 1.5 to 2 times the mean, in every layer;
4. some models leave a few experts unused.

Windows then drift: the log of every share takes a random walk, and each window is a sample. All of it is made of whole
numbers and of operations that IEEE 754 fixes (``draws.py``): the same load under every numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count, finite
from equipoise.arrays import as_load, check_loads
from equipoise.errors import InvalidInputError, UnknownNameError, listed, shown
from equipoise.limits import MOST_LAYERS
from equipoise.load import draws
from equipoise.load.statistics import LoadStatistics

__all__ = ["PRESETS", "LoadPreset", "drift_load", "generate_load"]

Floats = NDArray[np.float64]

# Streams of a seed: each says what its numbers are for.
SIGMA, BODY, UNUSED, WHICH_UNUSED, HOTTEST, GROUP, WHICH_GROUP, DRIFT = range(1, 9)
WINDOWS = 16  # and all streams after it

# Hottest / mean is drawn around the preset's middle and kept inside 4 to 14 with room for sampling noise.
_HOTTEST_SPREAD, _HOTTEST_RANGE = 0.22, (4.2, 13.6)
_GROUP_RANGE = (1.65, 1.97)  # inside 1.5 to 2, likewise
_UNUSED_SPREAD = (0.8, 1.2)
_COLDEST = -3.0  # in sigmas: colder experts would come out unused in a window of ordinary length


def _number(value: Any, name: str, low: float, high: float) -> float:
    rule = f"a number from {low:g} to {high:g}"
    number = finite(value, name, rule)
    if not low <= number <= high:
        raise InvalidInputError(f"{name} is {shown(value)}; it must be {rule}.")
    return number


@dataclass(frozen=True)
class LoadPreset:
    """A row: the shape of a model and how its router spreads tokens.

    Parameters
    ----------
    name : str
    num_layers, num_logical_experts : int
    experts_per_token : int
        Experts that one token goes to in each layer.
    sigma : (float, float)
        Standard deviation of the log of an expert's share: drawn between the two for each layer.
    hottest_to_mean : float
        Hottest expert / mean expert in the middle layer; layers spread from 4 to 14.
    group_size : int, default 32
        Experts of the one hot group. It divides the experts into at least four groups.
    unused : float, default 0.0
        Share of the experts, over all layers, that receive nothing; a seed moves it by up to a fifth.
    first_layer_id : int, default 0
        The model's own id of its first MoE layer.

    Raises
    ------
    InvalidInputError
        If a number is out of its range.
    """

    name: str
    num_layers: int
    num_logical_experts: int
    experts_per_token: int
    sigma: tuple[float, float]
    hottest_to_mean: float
    group_size: int = 32
    unused: float = 0.0
    first_layer_id: int = 0

    def __post_init__(self) -> None:
        as_instance(self.name, str, "name", "a text")
        for name in ("num_layers", "num_logical_experts", "experts_per_token", "group_size"):
            object.__setattr__(self, name, count(getattr(self, name), name))
        check_loads(1, self.num_layers, self.num_logical_experts, "the preset")
        first = count(self.first_layer_id, "first_layer_id", least=0, most=MOST_LAYERS - self.num_layers)
        object.__setattr__(self, "first_layer_id", first)
        groups, rest = divmod(self.num_logical_experts, self.group_size)
        if rest or groups < 4:
            raise InvalidInputError(
                f"{self.num_logical_experts} experts do not form four or more groups of {shown(self.group_size)}. "
                f"Use a group_size that divides {self.num_logical_experts} into at least four."
            )
        sigma: Any = self.sigma
        if not isinstance(sigma, tuple | list) or len(sigma) != 2:
            raise InvalidInputError(f"sigma is {shown(sigma)}; it must be two ascending numbers from 0 to 4.")
        low, high = (_number(value, "sigma", 0, 4) for value in sigma)
        if low > high:
            raise InvalidInputError(f"sigma is {shown(sigma)}; it must be two ascending numbers from 0 to 4.")
        _number(self.hottest_to_mean, "hottest_to_mean", *_HOTTEST_RANGE)
        _number(self.unused, "unused", 0, 0.1)


PRESETS: dict[str, LoadPreset] = {
    preset.name: preset
    for preset in (
        LoadPreset("deepseek-v3", 58, 256, 8, sigma=(0.56, 0.86), hottest_to_mean=6.1, first_layer_id=3),
        LoadPreset("qwen3-235b", 94, 128, 8, sigma=(2.6, 2.6), hottest_to_mean=9.0, unused=0.015),
        LoadPreset("kimi-k2", 60, 384, 8, sigma=(0.56, 0.86), hottest_to_mean=9.4, first_layer_id=1),
    )
}


def generate_load(
    preset: str | LoadPreset = "deepseek-v3",
    *,
    num_windows: int = 1,
    tokens_per_window: int = 1 << 20,
    drift: float = 0.1,
    seed: int = 0,
) -> LoadStatistics:
    """Make up a load that looks like a real one.

    Parameters
    ----------
    preset : str or LoadPreset, default "deepseek-v3"
        A name from ``PRESETS``, or a row of one's own.
    num_windows : int, default 1
    tokens_per_window : int, default 2**20
        Tokens that pass each layer in a window. Every layer of every window sums to this times
        ``experts_per_token``.
    drift : float, default 0.1
        Standard deviation of the step that the log of each expert's share takes from one window to the
        next. 0 leaves only sampling noise.
    seed : int, default 0

    Returns
    -------
    LoadStatistics
        Whole numbers, with the model's layer ids. ``source`` says that it is generated, and how.

    Raises
    ------
    UnknownNameError
        If no preset has that name.
    InvalidInputError
        If a number is out of its range.

    Notes
    -----
    The arguments alone decide: the same bits in every process, under every numpy, and no global random state is read or
    written. The tokens of a window are Poisson numbers, brought to the sum asked for. The first windows do not depend
    on ``num_windows``. The traits of the preset hold for the first window; the walk then carries the load away from
    them. Not promised: that an expert receives a token at most once, as routers do, when ``drift`` is large.

    Examples
    --------
    >>> load = generate_load("deepseek-v3", seed=0)
    >>> load.tokens_per_expert.shape, load.source
    ((1, 58, 256), 'generated: deepseek-v3, seed 0')
    >>> bool((load.skew > 4).all() and (load.skew < 14).all())
    True
    """
    row = _row(preset)
    num_windows, seed = count(num_windows, "num_windows"), _seed(seed)
    check_loads(num_windows, row.num_layers, row.num_logical_experts, "the load")
    tokens = count(tokens_per_window, "tokens_per_window")
    if tokens * row.experts_per_token >= 1 << 53:
        raise InvalidInputError(
            f"tokens_per_window is {shown(tokens)}; float64 counts to {(1 << 53) // row.experts_per_token}."
        )
    drift = _number(drift, "drift", 0, 10)
    log_share = _draw_log_share(row, seed)
    windows = np.empty((num_windows, row.num_layers, row.num_logical_experts))
    total = np.full(row.num_layers, tokens * row.experts_per_token)
    for number, window in enumerate(windows):
        window[:] = _sample(log_share, total, seed, WINDOWS + 2 * number)
        log_share = log_share + drift * draws.normals(seed, WINDOWS + 2 * number + 1, *log_share.shape)
    ids = tuple(range(row.first_layer_id, row.first_layer_id + row.num_layers))
    return LoadStatistics(windows, source=f"generated: {row.name}, seed {seed}", layer_ids=ids)


def drift_load(load: Any, sigma: float, seed: int = 0) -> LoadStatistics:
    """Move a load as traffic would: the same layers and totals, other experts hot.

    Parameters
    ----------
    load : array, shape (num_layers, num_logical_experts) or (num_steps, num_layers, num_logical_experts)
        Whole numbers of tokens, or a ``LoadStatistics``. Steps are summed. A layer may be all zeros.
    sigma : float
        Standard deviation of the step in the log of each expert's share. 0 leaves only sampling noise.
        Steps of s1 and s2 in a row spread like one of sqrt(s1**2 + s2**2).
    seed : int, default 0

    Returns
    -------
    LoadStatistics
        One window of whole numbers. Each layer keeps its total; an expert without tokens stays without.

    Raises
    ------
    InvalidInputError
        If the load is no load, holds fractions of tokens, or sigma or seed is out of its range.

    Notes
    -----
    The arguments alone decide, as in ``generate_load``.

    Examples
    --------
    >>> moved = drift_load([[600, 300, 100, 0], [0, 0, 0, 0]], sigma=0.5, seed=1)
    >>> moved.tokens_per_layer.tolist(), moved.load[0, 3].item()
    ([1000.0, 0.0], 0.0)
    """
    counts = as_load(load)
    sigma, seed = _number(sigma, "sigma", 0, 10), _seed(seed)
    fractions = np.argwhere(counts != np.floor(counts))
    if len(fractions):
        layer, expert = (int(i) for i in fractions[0])
        raise InvalidInputError(
            f"load is {counts[layer, expert]} at layer {layer}, expert {expert}; drift samples whole tokens. "
            "Pass counts, for instance numpy.rint(load * 1e6)."
        )
    total = counts.sum(axis=1)
    if total.max() >= 1 << 53:
        layer = int(total.argmax())
        raise InvalidInputError(f"layer {layer} sums to {total[layer]:.3g}; whole tokens can be sampled below 2**53.")
    log_share = draws.log(counts) + sigma * draws.normals(seed, DRIFT, *counts.shape)
    moved = _sample(log_share, total.astype(np.int64), seed, DRIFT + 1)
    if isinstance(load, LoadStatistics):
        return LoadStatistics(moved, f"{load.source}, drifted by {sigma:g} with seed {seed}", load.layer_ids)
    return LoadStatistics(moved, f"drifted by {sigma:g} with seed {seed}")


def _draw_log_share(row: LoadPreset, seed: int) -> Floats:
    """Return the log of what each expert receives, up to a constant a layer; -inf for unused experts."""
    layers, experts = row.num_layers, row.num_logical_experts

    def between(stream: int, low: float, high: float, *shape: int) -> Floats:
        """Return numbers between two, drawn from a stream."""
        return low + (high - low) * draws.uniforms(seed, stream, *shape)

    logs = between(SIGMA, *row.sigma, layers, 1) * np.maximum(draws.normals(seed, BODY, layers, experts), _COLDEST)
    unused = round(float(row.unused * between(UNUSED, *_UNUSED_SPREAD, 1)[0]) * layers * experts)
    chosen = np.argsort(draws.uniforms(seed, WHICH_UNUSED, layers * experts), kind="stable")[:unused]
    logs.flat[chosen] = -np.inf
    hottest = row.hottest_to_mean * draws.exp(_HOTTEST_SPREAD * draws.normals(seed, HOTTEST, layers))
    hottest = np.clip(hottest, *_HOTTEST_RANGE)
    group_to_mean = between(GROUP, *_GROUP_RANGE, layers)
    start = row.group_size * int(draws.uniforms(seed, WHICH_GROUP, 1)[0] * (experts // row.group_size))
    group = slice(start, start + row.group_size)
    # Each of the two moves the mean that the other is measured by; a few rounds settle both.
    for _ in range(8):
        logs = _heat_group(logs, group, group_to_mean)
        logs = _stretch_top(logs, hottest)
    return logs


def _heat_group(logs: Floats, group: slice, group_to_mean: Floats) -> Floats:
    """Shift the logs of one group so that its mean expert receives ``group_to_mean`` times the layer's mean."""
    load = draws.exp(logs)
    inside = draws.total(load[:, group])[:, 0]
    outside = draws.total(load)[:, 0] - inside
    share = group_to_mean * (group.stop - group.start) / logs.shape[1]  # of the layer's tokens
    out: Floats = logs.copy()
    out[:, group] += draws.log(share * outside / ((1 - share) * inside))[:, None]
    return out


def _stretch_top(logs: Floats, hottest_to_mean: Floats) -> Floats:
    """Stretch or squeeze the hottest tenth of each layer until its hottest expert stands where it should.

    Distances above the tenth's edge are multiplied by one factor a layer, found by bisection: hottest /
    mean grows with it. Order is kept, and the body below stays as it is.
    """
    edge = np.sort(logs, axis=1)[:, -(logs.shape[1] // 10) - 1, None]
    above = np.maximum(logs - edge, 0.0)
    body = np.minimum(logs, edge)
    low, high = np.full_like(edge, 0.05), np.full_like(edge, 8.0)
    for _ in range(40):
        middle = (low + high) / 2
        load = draws.exp(body + middle * above)
        short = load.max(axis=1, keepdims=True) * logs.shape[1] < hottest_to_mean[:, None] * draws.total(load)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    stretched: Floats = body + high * above
    return stretched


def _sample(log_share: Floats, whole: NDArray[np.int64], seed: int, stream: int) -> Floats:
    """Draw each layer's tokens: Poisson numbers of what each expert is to receive, brought to the sum of the layer."""
    top = log_share.max(axis=1, keepdims=True)
    share = draws.exp(log_share - np.where(np.isfinite(top), top, 0.0))
    sums = draws.total(share)
    share = np.divide(share, sums, out=np.zeros_like(share), where=sums > 0)
    wanted = whole.astype(np.float64)[:, None]
    return _brought_to(draws.poissons(share * wanted, seed, stream), share, wanted)


def _brought_to(tokens: Floats, share: Floats, wanted: Floats) -> Floats:
    """Return whole numbers near ``tokens`` that sum to ``wanted``: the difference is spread by share, none negative."""
    rest = wanted - draws.total(tokens)  # whole numbers below 2**53: exact in any order
    while rest.any():
        spread = np.maximum(np.trunc(share * rest), -tokens)
        tokens = tokens + spread
        rest = rest - draws.total(spread)
        # What rounding leaves goes one by one, to the largest shares and the lowest experts among equal ones.
        order = np.argsort(-share, axis=1, kind="stable")
        sign = np.sign(rest)
        free = np.take_along_axis((share > 0) & ((sign > 0) | (tokens > 0)), order, axis=1)
        chosen = free & (np.cumsum(free, axis=1) <= np.abs(rest))
        one = np.zeros_like(tokens)
        np.put_along_axis(one, order, chosen * sign, axis=1)
        tokens, rest = tokens + one, rest - draws.total(one)
    return tokens


def _seed(value: Any) -> int:
    return count(value, "seed", least=0, most=2**64 - 1)


def _row(preset: str | LoadPreset) -> LoadPreset:
    if isinstance(preset, LoadPreset):
        return preset
    if not isinstance(preset, str) or preset not in PRESETS:
        raise UnknownNameError(f"there is no preset {shown(preset)}; the presets are {listed(PRESETS)}.")
    return PRESETS[preset]
