"""A trace: what a router did, step after step, read in pieces so that its length does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_index, as_instance, as_items, count
from equipoise.arrays import as_numpy, as_windows, check_values
from equipoise.errors import InvalidInputError, listed, shown
from equipoise.limits import MOST_SLOTS
from equipoise.load import LoadStatistics

if TYPE_CHECKING:
    import os

__all__ = ["Source", "Steps", "Trace", "tokens_source"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Steps:
    """Some steps of a trace, one after the other.

    Attributes
    ----------
    counts : array, shape (number, num_layers, num_logical_experts)
        Tokens routed to each expert in each step, of any type of number.
    tokens : tuple of int arrays, shape (tokens of the step, num_layers, k), or None
        For each step the experts of each token, -1 for none; None where only counts are known.
    """

    counts: NDArray[Any]
    tokens: tuple[NDArray[Any], ...] | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """Where the steps of a trace come from: their shape, and how to go through them, as often as is asked.

    ``shape`` is (steps, layers, logical experts); ``experts_per_token`` is known where tokens are.
    """

    shape: tuple[int, int, int]
    read: Callable[[], Iterator[Steps]]
    experts_per_token: int | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """Recorded steps, oldest first: tokens per expert and layer, and where known the experts of each token.

    Parameters
    ----------
    steps : array, shape (num_steps, num_layers, num_logical_experts), LoadStatistics or Source
        Tokens routed to each logical expert in each step (or window), finite and not negative. numpy or torch.
    source : str, default "memory"
        Where it came from, for people.
    layer_ids : tuple of int or None, default None
        The model's own id of each layer, ascending; None counts from 0.
    times : float array, shape (num_steps,), or None, default None
        When each step ended, in seconds, ascending, where that is known.
    phases : tuple of str or None, default None
        Of each step ``prefill``, ``decode`` or ``mixed``, where that is known.

    Raises
    ------
    InvalidInputError
        If the shape, an id, a time or a phase breaks its rule. Numbers are looked at when they are read.

    Examples
    --------
    >>> trace = Trace([[[6, 2]], [[2, 2]], [[1, 3]]])
    >>> trace.num_steps, trace.num_layers, trace.num_logical_experts
    (3, 1, 2)
    >>> Trace.of_tokens([[[0]], [[1]], [[1]]], step=[0, 0, 1]).statistics().tokens_per_expert.tolist()
    [[[1.0, 1.0]], [[0.0, 1.0]]]
    """

    steps: Source
    source: str = "memory"
    layer_ids: tuple[int, ...] = None  # type: ignore[assignment]  # None is replaced when built
    times: Floats | None = None
    phases: tuple[str, ...] | None = None

    if TYPE_CHECKING:  # any array goes in, a Source comes out

        def __init__(
            self,
            steps: Any,
            source: str = "memory",
            layer_ids: Any = None,
            times: Any = None,
            phases: Any = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        given: Any = self.steps
        if isinstance(given, LoadStatistics):
            object.__setattr__(self, "source", given.source if self.source == "memory" else self.source)
            object.__setattr__(self, "layer_ids", given.layer_ids if self.layer_ids is None else self.layer_ids)
        if not isinstance(given, Source):
            object.__setattr__(self, "steps", _of_array(given))
        as_instance(self.source, str, "source", "a text that says where the trace came from")
        ids = _ids(self.layer_ids, self.num_layers)
        object.__setattr__(self, "layer_ids", ids)
        if self.times is not None:
            object.__setattr__(self, "times", _times(self.times, self.num_steps))
        if self.phases is not None:
            object.__setattr__(self, "phases", _phases(self.phases, self.num_steps))

    @property
    def num_steps(self) -> int:
        """Steps, or windows, as they were recorded."""
        return self.steps.shape[0]

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return self.steps.shape[1]

    @property
    def num_logical_experts(self) -> int:
        """Experts that the router can choose in a layer."""
        return self.steps.shape[2]

    @property
    def experts_per_token(self) -> int | None:
        """Experts that the router chose for a token, where tokens are known."""
        return self.steps.experts_per_token

    @classmethod
    def of_tokens(
        cls, experts: Any, step: Any, num_logical_experts: int | None = None, source: str = "memory"
    ) -> Trace:
        """Return the trace of single tokens.

        Parameters
        ----------
        experts : int array, shape (tokens, num_layers, k)
            The experts of each token in each layer, -1 for none.
        step : int array, shape (tokens,)
            The step that each token was in, ascending. Numbers that are not there are no steps.
        num_logical_experts : int or None, default None
            None takes one more than the largest expert in ``experts``.
        source : str, default "memory"

        Raises
        ------
        InvalidInputError
            If an array has another shape, an expert is none, or steps descend.
        """
        ids, of = as_numpy(experts, "experts"), as_numpy(step, "step")
        if ids.ndim != 3 or ids.dtype.kind not in "iu" or not ids.size:
            raise InvalidInputError(
                f"experts has shape {ids.shape} and type {ids.dtype}; it must hold experts in the shape (tokens, "
                "layers, experts a token)."
            )
        most = int(ids.max()) + 1 if num_logical_experts is None else num_logical_experts
        number = count(most, "num_logical_experts", most=MOST_SLOTS)
        found = tokens_source(lambda: iter((ids,)), ids.shape, of, number)
        return cls(found, source)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, key: str | None = None, tokens_per_step: int | None = None) -> Trace:
        """Return the trace in a file or folder, told apart by content; see ``equipoise.traces.trace_files``.

        Parameters
        ----------
        path : path of a file or folder
        key : str or None, default None
            Which array to read where there are several.
        tokens_per_step : int or None, default None
            The array holds the experts of single tokens, [tokens, layers, k], and so many tokens make a step.

        Raises
        ------
        FileFormatError
            If it cannot be read as a trace; the message names the place and the rule.
        """
        from equipoise.traces.trace_files import read_trace

        return read_trace(path, key=key, tokens_per_step=tokens_per_step)

    def pieces(self) -> Iterator[Steps]:
        """Yield all steps in order, some at a time.

        Raises
        ------
        InvalidInputError
            If a number is negative or not finite.
        """
        first = 0
        for piece in self.steps.read():
            if piece.tokens is None:
                check_values([piece.counts], f"{self.source}, from step {first} on, a load", "step")
            first += len(piece.counts)
            yield piece

    def statistics(self) -> LoadStatistics:
        """Return all steps as load statistics, a window each; for a trace that fits into memory.

        Raises
        ------
        InvalidInputError
            If a number is negative or not finite, or there are more than ``equipoise.limits.MOST_LOADS``.
        """
        counts = np.concatenate([np.asarray(piece.counts) for piece in self.pieces()])
        return LoadStatistics(counts, self.source, self.layer_ids)


def tokens_source(
    read: Callable[[], Iterator[NDArray[Any]]], shape: tuple[int, ...], step: NDArray[Any], num_experts: int
) -> Source:
    """Return the source of single tokens: ``read`` yields experts [tokens, layers, k], ``step`` [tokens] ascends."""
    tokens, layers, k = shape
    if step.shape != (tokens,) or step.dtype.kind not in "iu" or (np.diff(step.astype(np.int64)) < 0).any():
        raise InvalidInputError(
            f"step is {shown(step)}; it must name the step of each of {tokens} tokens, in ascending order."
        )
    ends = np.append(np.flatnonzero(np.diff(step)) + 1, tokens)

    def pieces() -> Iterator[Steps]:
        """Yield some steps at a time."""
        waiting, behind, next_step = np.empty((0, layers, k), np.int32), 0, 0
        for piece in read():
            _check_experts(piece, num_experts)
            waiting = np.concatenate([waiting, piece]) if len(waiting) else piece
            whole = []
            while next_step < len(ends) and ends[next_step] - behind <= len(waiting):
                size = int(ends[next_step]) - behind
                whole.append(np.ascontiguousarray(waiting[:size]))
                waiting, behind, next_step = waiting[size:], behind + size, next_step + 1
            if whole:
                yield Steps(np.stack([_counted(each, num_experts) for each in whole]), tuple(whole))

    return Source((len(ends), layers, num_experts), pieces, k)


def _check_experts(ids: NDArray[Any], num_experts: int) -> None:
    if ids.dtype.kind not in "iu" or int(ids.min()) < -1 or int(ids.max()) >= num_experts:
        raise InvalidInputError(
            f"experts holds {int(ids.min())} to {int(ids.max())}; each must be an expert from 0 to {num_experts - 1}, "
            "or -1 for none."
        )


def _counted(ids: NDArray[Any], num_experts: int) -> NDArray[np.int64]:
    """Return how many of the tokens [tokens, layers, k] each expert of each layer got."""
    layers = ids.shape[1]
    cell = np.arange(layers)[:, None] * (num_experts + 1) + ids + 1  # the first column is that of none
    counts = np.bincount(cell.reshape(-1), minlength=layers * (num_experts + 1))
    return counts.reshape(layers, num_experts + 1)[:, 1:]


def _of_array(value: Any) -> Source:
    windows = as_windows(value, "steps", axis="step")
    shape = windows.shape[0], windows.shape[1], windows.shape[2]
    return Source(shape, lambda: iter((Steps(windows),)))


def _ids(value: Any, layers: int) -> tuple[int, ...]:
    if value is None:
        return tuple(range(layers))
    try:
        ids = tuple(as_index(each) for each in as_items(value))
    except TypeError:
        ids = ()
    if len(ids) != layers or any(a >= b for a, b in zip((-1, *ids), ids, strict=False)):
        raise InvalidInputError(f"layer_ids is {shown(value)}; it must name {layers} layers, ascending from 0 or more.")
    return ids


def _times(value: Any, steps: int) -> Floats:
    times = np.array(as_numpy(value, "times"), dtype=np.float64)
    if times.shape != (steps,) or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise InvalidInputError(f"times is {shown(value)}; it must hold a time for each of {steps} steps, ascending.")
    times.setflags(write=False)
    return times


PHASES = ("prefill", "decode", "mixed")


def _phases(value: Any, steps: int) -> tuple[str, ...]:
    try:
        phases = as_items(value)
    except TypeError:
        phases = ()
    if len(phases) != steps or any(not isinstance(each, str) or each not in PHASES for each in phases):
        raise InvalidInputError(
            f"phases is {shown(value)}; it must name one of {listed(PHASES)} for each of {steps} steps."
        )
    return tuple(phases)
