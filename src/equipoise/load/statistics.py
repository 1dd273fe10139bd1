"""How many tokens each logical expert received, window by window, and where the numbers came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_index, as_instance, as_items, count
from equipoise.arrays import as_windows
from equipoise.errors import InvalidInputError, shown
from equipoise.limits import MOST_LAYERS

__all__ = ["LoadStatistics"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LoadStatistics:
    """Tokens per (window, layer, logical expert).

    Parameters
    ----------
    tokens_per_expert : array, shape (num_windows, num_layers, num_logical_experts)
        Routed assignments: a token that goes to eight experts counts eight times. Shape
        (num_layers, num_logical_experts) becomes one window. Integer or float, numpy or torch on any
        device. Finite and not negative; a layer may be all zeros. Kept as a read-only float64 copy.
    source : str, default "memory"
        Where the numbers came from, for people.
    layer_ids : tuple of int or None, default None
        The model's own id of each layer, ascending. ``None`` means 0 to ``num_layers - 1``. Everything
        inside equipoise counts layers from 0; these ids are for files that do not.

    Raises
    ------
    InvalidInputError
        If the array has another shape, is empty, or holds a NaN, an infinity or a negative number; or
        if there is not one id for each layer, or the ids do not ascend from 0 or more.

    Examples
    --------
    >>> load = LoadStatistics([[[6, 2], [0, 0]], [[2, 2], [0, 0]]], layer_ids=(3, 4))
    >>> load.num_windows, load.num_layers, load.num_logical_experts
    (2, 2, 2)
    >>> load.load.tolist()
    [[8.0, 4.0], [0.0, 0.0]]
    >>> load.empty_layers
    (1,)
    """

    tokens_per_expert: Floats
    source: str = "memory"
    layer_ids: tuple[int, ...] = None  # type: ignore[assignment]  # None is replaced when built

    def __post_init__(self) -> None:
        array = as_windows(self.tokens_per_expert, "tokens_per_expert")
        object.__setattr__(self, "tokens_per_expert", array)
        as_instance(self.source, str, "source", "a text that says where the load came from")
        object.__setattr__(self, "layer_ids", _checked_ids(self.layer_ids, array.shape[1]))

    @property
    def num_windows(self) -> int:
        """Load windows, oldest first."""
        return int(self.tokens_per_expert.shape[0])

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.tokens_per_expert.shape[1])

    @property
    def num_logical_experts(self) -> int:
        """Experts that the router can choose in a layer."""
        return int(self.tokens_per_expert.shape[2])

    @cached_property
    def load(self) -> Floats:
        """Tokens per expert summed over the windows: float64, shape (num_layers, num_logical_experts)."""
        load: Floats = self.tokens_per_expert.sum(axis=0)
        load.setflags(write=False)
        return load

    @cached_property
    def tokens_per_layer(self) -> Floats:
        """Tokens summed over windows and experts: float64, shape (num_layers,)."""
        total: Floats = self.load.sum(axis=1)
        total.setflags(write=False)
        return total

    @property
    def empty_layers(self) -> tuple[int, ...]:
        """Layers without a single token, counted from 0: dense layers, as some recorders write them."""
        return tuple(int(layer) for layer in np.flatnonzero(self.tokens_per_layer == 0))

    @property
    def skew(self) -> Floats:
        """Hottest expert / mean expert of each layer, over all windows: 1 or more, 1 for an empty layer."""
        mean = self.load.mean(axis=1)
        skew: Floats = np.divide(self.load.max(axis=1), mean, out=np.ones_like(mean), where=mean > 0)
        return skew

    def window(self, selection: int | slice) -> LoadStatistics:
        """Return the statistics of one window, or of a slice of them, with the same source and layers.

        Raises
        ------
        InvalidInputError
            If ``selection`` is neither a whole number nor a slice of them, or nothing is selected.

        >>> LoadStatistics([[[6, 2]], [[2, 2]], [[1, 0]]]).window(slice(1, None)).load.tolist()
        [[3.0, 2.0]]
        """
        try:
            if not isinstance(selection, slice):
                number = as_index(selection)
                index = range(self.num_windows)[number : number + 1 or None]
                selection = slice(index.start, index.stop)
            chosen = self.tokens_per_expert[selection]
        except (TypeError, ValueError):
            raise InvalidInputError(
                f"selection is {shown(selection)}; it must be the number of a window, or a slice of numbers."
            ) from None
        if not len(chosen):
            raise InvalidInputError(
                f"the selection holds no window; {self.num_windows} are there, numbered 0 to {self.num_windows - 1}."
            )
        return replace(self, tokens_per_expert=chosen)

    def grouped(self, steps: int) -> LoadStatistics:
        """Return the statistics with every ``steps`` windows in a row summed to one, the latest whole ones.

        A window should be long enough that its counts are not noise, and as long as a plan is to serve. The oldest
        windows that fill none are left out.

        Raises
        ------
        InvalidInputError
            If ``steps`` is not a whole number of at least 1, or there are fewer windows.

        >>> LoadStatistics([[[9, 9]], [[6, 2]], [[2, 2]]]).grouped(2).tokens_per_expert.tolist()
        [[[8.0, 4.0]]]
        """
        steps = count(steps, "steps")
        number = self.num_windows // steps
        if number == 0:
            raise InvalidInputError(
                f"{self.num_windows} windows do not fill one of {steps}; sum at most {self.num_windows} to one."
            )
        last = self.tokens_per_expert[self.num_windows - number * steps :]
        return replace(self, tokens_per_expert=last.reshape(number, steps, *last.shape[1:]).sum(axis=1))


def _checked_ids(ids: Any, num_layers: int) -> tuple[int, ...]:
    if ids is None:
        return tuple(range(num_layers))
    try:
        checked = tuple(as_index(i) for i in as_items(ids))
    except TypeError:
        raise InvalidInputError(
            f"layer_ids is {shown(ids)}; it must be a tuple of whole numbers, one a layer."
        ) from None
    if len(checked) != num_layers:
        raise InvalidInputError(
            f"{len(checked)} layer_ids cannot name {num_layers} layers; pass one id for each layer."
        )
    for before, after in zip((-1, *checked), checked, strict=False):
        if after <= before:
            raise InvalidInputError(
                f"layer_ids holds {shown(after)} after {shown(before)}; ids must ascend from 0 or more."
                if before >= 0
                else f"layer_ids starts at {shown(after)}; ids must ascend from 0 or more."
            )
    if checked[-1] >= MOST_LAYERS:
        raise InvalidInputError(f"layer_ids holds {shown(checked[-1])}; ids lie below {MOST_LAYERS:,}.")
    return checked
