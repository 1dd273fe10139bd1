"""What is no load although it is made of numbers, and what is one but probably not as it was meant.

A placement is refused by name. A shape that no model has, or sums that say that the axes are in another order, are only
named in the log: a small experiment may look like anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import FileFormatError
from equipoise.load.statistics import LoadStatistics

__all__ = ["doubts_about", "names_experts", "placement_by_keys", "refuse_pattern", "refuse_placement"]

KEYS = {
    "layer_list": "an expert map of vLLM-Ascend",
    "logical_to_physical_map": "the three maps of rebalance_experts",
    "physical_to_logical_map": "a map of SGLang",
    "initial_global_assignments": "the load balancer's configuration of TensorRT-LLM",
    "physical_to_logical": "a plan, or the table of one",
}
"""By a key that no load has, what an object or an archive is."""

FEWEST = 4  # experts: of fewer, a load may look like a table of slots
MOST_REPLICAS = 4.0  # of an expert, over all of them: a placement has fewer, steps of single tokens need many more
MOST_KNOWN_LAYERS, MOST_KNOWN_EXPERTS = 128, 1024
ALIKE = 1e-3  # of the mean


def placement_by_keys(keys: Iterable[Any]) -> str | None:
    """Return what kind of placement has one of these keys, None if none has."""
    found = {key for key in keys if isinstance(key, str)}
    return next((kind for key, kind in KEYS.items() if key in found), None)


def refuse_placement(load: LoadStatistics) -> None:
    """Refuse a table of slots, or a pattern of which rank holds what, that was read as a load.

    Raises
    ------
    FileFormatError
        If every layer holds every number from 0 to the largest, as a table of slots does and no load; or if there are
        0 and 1 alone, with as many experts on each rank, and all experts somewhere but on few ranks.
    """
    tokens = load.tokens_per_expert
    if load.num_windows == 1 and names_experts(tokens[0]):
        raise FileFormatError(
            f"{load.source} is a placement, the expert in each slot (every line holds all numbers from 0 to "
            f"{int(tokens.max())}), and a load is asked for: tokens per layer and expert."
        )
    refuse_pattern(tokens, load.source)


def refuse_pattern(tokens: NDArray[Any], source: str) -> None:
    """Refuse an array (ranks, layers, experts) of 0 and 1 that says which rank holds what; see ``refuse_placement``."""
    if len(tokens) > 1 and _is_pattern(tokens):
        raise FileFormatError(
            f"{source} looks like a placement, a pattern of 0 and 1 that says which of {len(tokens)} ranks hold an "
            "expert, and a load is asked for. If its 1 are tokens, equipoise convert --to sglang-count makes a load of "
            "it."
        )


def names_experts(table: NDArray[Any]) -> bool:
    """Whether every line of a table holds every number from 0 to the largest, as a table of slots does."""
    most = table.max()
    if not FEWEST - 1 <= most < table.shape[1] or (table != np.floor(table)).any():
        return False
    width = int(most) + 1
    cell = np.arange(len(table))[:, None] * width + table.astype(np.int64)
    return bool((np.bincount(cell.reshape(-1), minlength=len(table) * width) > 0).all())


def _is_pattern(tokens: NDArray[Any]) -> bool:
    if tokens.max() != 1 or not ((tokens == 0) | (tokens == 1)).all():
        return False
    held = tokens.sum(axis=2)
    replicas = tokens.sum(axis=0)
    return bool((held == held[0, 0]).all() and replicas.min() >= 1 and replicas.mean() <= MOST_REPLICAS)


def doubts_about(load: LoadStatistics) -> Iterator[str]:
    """Yield a sentence for each reason why the axes of a load may be in another order than they were read in."""
    tokens = load.tokens_per_expert
    if not tokens.any() or (len(tokens) > 1 and (tokens == tokens[0]).all()):  # sums of alike steps say nothing
        return
    windows, layers, experts = tokens.shape
    shape = (layers, experts) if windows == 1 else tokens.shape
    if windows == 1:
        if layers > 1 and experts > 1 and _alike(tokens[0].sum(axis=0)) and not _alike(_used(tokens[0].sum(axis=1))):
            yield _sentence(load, shape, "its columns sum alike and its rows do not: it looks transposed")
            return
    elif not _alike_over_layers(tokens.sum(axis=2)):
        by_step = {
            "(layers, experts, steps)": tokens.sum(axis=1).T,
            "(layers, steps, experts)": tokens.sum(axis=2).T,
            "(steps, experts, layers)": tokens.sum(axis=1),
            "(experts, layers, steps)": tokens.sum(axis=0).T,
            "(experts, steps, layers)": tokens.sum(axis=0),
        }  # what each step sums to in each layer, if the axes were these
        fits = [axes for axes, sums in by_step.items() if sums.shape[1] > 1 and _alike_over_layers(sums)]
        if fits:
            yield _sentence(load, shape, f"its sums are those of {' or '.join(fits)}")
            return
    if layers > MOST_KNOWN_LAYERS or (layers > 2 * experts and layers > 32):
        yield _sentence(load, shape, f"{layers} layers of {experts} experts are more layers than models have")
    elif experts > MOST_KNOWN_EXPERTS:
        yield _sentence(load, shape, f"{experts} experts in a layer are more than models have")


def _sentence(load: LoadStatistics, shape: tuple[int, ...], why: str) -> str:
    read = "(layers, experts)" if len(shape) == 2 else "(steps, layers, experts)"
    return f"{load.source} is read as {read} = {shape}, but {why}. Check the order of its axes."


def _used(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums that are not zero: dense layers have no tokens."""
    return sums[sums > 0]


def _alike(sums: NDArray[np.float64]) -> bool:
    return bool(sums.size and np.ptp(sums) <= ALIKE * sums.mean())


def _alike_over_layers(sums: NDArray[np.float64]) -> bool:
    """Whether the numbers in each row, of the layers of one step, are one, layers without tokens left out."""
    most = sums.max(axis=1, keepdims=True)
    return bool((((most - sums) <= ALIKE * most) | (sums == 0)).all())
