"""The noun: what is expected of the next window, how wrong such forecasts were, and what both rest on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import count
from equipoise.arrays import as_numpy, as_windows
from equipoise.errors import InvalidInputError
from equipoise.forecasting.smoothing import ERRORS, MOST_WINDOWS, smooth

__all__ = ["Forecast", "forecast"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
KEPT = MOST_WINDOWS + ERRORS  # windows: the oldest error is that of a forecast which rests on the oldest windows
DECAY = 0.95  # of what an error counts, a window
FEWEST_ERRORS = 3
ROUNDING = 2.0**-40  # of the mean load: what is off by less is not


@dataclass(frozen=True, eq=False)
class Forecast:
    """What the next window is expected to bring; ``forecast`` makes one.

    Parameters
    ----------
    windows : array, shape (num_windows, num_layers, num_logical_experts)
        As ``forecast`` takes them; kept as a read-only float64 copy of the last 96.

    Attributes
    ----------
    num_windows : int
        Windows that were seen, those that are no longer kept among them.
    expected : float64 array, shape (num_layers, num_logical_experts)
        Tokens of each expert in the next window, which is taken to be as large as the last were on average.
    errors : float64 array, shape (num_errors, num_layers, num_logical_experts)
        What each of the last windows, 64 at most, oldest first, had more than was forecast from those before it,
        in tokens of a window as large as the expected one. Zeros where a layer had no tokens, then or before.
    weight : float64 array, shape (num_errors, num_layers)
        What each error counts: .95 to the power of its age in windows, summing to 1; zeros in a layer with fewer than
        three errors, which say nothing.
    """

    windows: Floats
    num_windows: int = field(init=False)
    expected: Floats = field(init=False)
    tokens: Floats = field(init=False, repr=False)
    share: Floats = field(init=False, repr=False)
    off: Floats = field(init=False, repr=False)
    known: Bools = field(init=False, repr=False)

    if TYPE_CHECKING:  # any array goes in, float64 comes out

        def __init__(self, windows: Any) -> None: ...

    def __post_init__(self) -> None:
        windows = as_windows(self.windows, "windows")
        last = len(windows) - 1
        kept = windows[-KEPT:]
        share, tokens, ahead = _ahead(kept, np.arange(max(len(kept) - 1 - ERRORS, 0), len(kept)))
        off, known = _errors(share[len(share) - len(ahead) + 1 :], tokens[len(share) - len(ahead) + 1 :], ahead[:-1])
        self._fill(kept, last + 1, tokens, ahead[-1], off, known)

    def _fill(self, windows: Floats, number: int, tokens: Floats, share: Floats, off: Floats, known: Bools) -> None:
        """Set all fields: ``tokens`` [windows, layers], ``share`` and ``off`` with a mean load of 1 in each layer."""
        said: dict[str, NDArray[Any]] = {
            "windows": windows,
            "tokens": tokens,
            "share": share,
            "off": off,
            "known": known,
        }
        said["expected"] = _in_tokens(windows, tokens, share, off)
        for name, value in said.items():
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "num_windows", number)

    def update(self, window: Any) -> Forecast:
        """Return the forecast after one more window: the same bits as from all windows at once.

        Parameters
        ----------
        window : array, shape (num_layers, num_logical_experts)

        Raises
        ------
        InvalidInputError
            If the window is of another shape, or holds a NaN, an infinity or a negative number.

        Examples
        --------
        >>> forecast([[[3, 1]], [[1, 3]]]).update([[2, 2]]).num_windows
        3
        """
        new = as_windows(window, "window")
        if new.shape != (1, *self.expected.shape):
            raise InvalidInputError(
                f"window is {new.shape[0]} of shape {new[0].shape}; it must be one of shape "
                f"{self.expected.shape}, as those before it are."
            )
        kept = np.concatenate([self.windows[-(KEPT - 1) :], new])
        recent = kept[-MOST_WINDOWS:]
        share, tokens, ahead = _ahead(recent, np.array([len(recent) - 1]))
        off, known = _errors(share[-1:], tokens[-1:], self.share[None])
        after = object.__new__(Forecast)
        after._fill(
            kept,
            self.num_windows + 1,
            np.concatenate([self.tokens[-(KEPT - 1) :], tokens[-1:]]),
            ahead[0],
            np.concatenate([self.off[-(ERRORS - 1) :], off]),
            np.concatenate([self.known[-(ERRORS - 1) :], known]),
        )
        return after

    def of_layers(self, layers: Any) -> Forecast:
        """Return what is forecast for some of the layers, by number: as it is, though from these alone it may differ.

        Raises
        ------
        InvalidInputError
            If ``layers`` does not list layers.
        """
        rows = as_numpy(layers, "layers")
        number = len(self.expected)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows) or not 0 <= rows.min() <= rows.max() < number:
            raise InvalidInputError(f"layers must list numbers of layers, from 0 to {number - 1}, at least one.")
        some = object.__new__(Forecast)
        seen, known = (self.windows[:, rows], self.num_windows, self.tokens[:, rows]), self.known[:, rows]
        some._fill(*seen, self.share[rows], self.off[:, rows], known)
        return some

    def before(self, error: Any) -> Forecast:
        """Return the forecast that was wrong by one of ``errors``, by number, made from the windows until then.

        It knows the errors of earlier forecasts that this one knows, and has no load where the error is not known.

        Raises
        ------
        InvalidInputError
            If there is no error of that number.
        """
        row = count(error, "error", least=0, most=self.num_errors - 1)
        age = self.num_errors - row
        scaled = self.windows[-age] / np.where(self.tokens[-age] > 0, self.tokens[-age], 1.0)[:, None]
        share = np.maximum(scaled * self.windows.shape[2] - self.off[row], 0.0)
        share[~self.known[row]] = 0.0
        then = object.__new__(Forecast)
        seen = (self.windows[:-age], self.num_windows - age, self.tokens[:-age])
        then._fill(*seen, share, self.off[:row], self.known[:row])
        return then

    @property
    def num_errors(self) -> int:
        """Past forecasts whose errors are known, at most 64."""
        return len(self.off)

    @cached_property
    def errors(self) -> Floats:
        """Errors in tokens; see the class."""
        scale = self.expected.sum(axis=1) / self.expected.shape[1]
        errors: Floats = self.off * scale[:, None]
        errors.setflags(write=False)
        return errors

    @cached_property
    def weight(self) -> Floats:
        """What each error counts; see the class."""
        weight: Floats = np.zeros(self.known.shape)
        each = 1.0
        for age in range(self.num_errors):
            weight[-1 - age] = np.where(self.known[-1 - age], each, 0.0)
            each *= DECAY
        total: Floats = np.zeros(len(self.expected))
        for row in weight:  # row after row: numpy may add a column in another order
            total += row
        enough = self.known.sum(axis=0) >= FEWEST_ERRORS
        weight = np.divide(weight, total, out=np.zeros_like(weight), where=enough & (total > 0))
        weight.setflags(write=False)
        return weight

    @cached_property
    def has_errors(self) -> Bools:
        """Which layers have errors to plan against, bool [layers]: three, and not all of them nothing."""
        has: Bools = (self.weight > 0).any(axis=0) & (self.off != 0).any(axis=(0, 2))
        return has

    @property
    def digest(self) -> str:
        """SHA-256 of what was forecast: the same on every machine that sees the same windows."""
        digest = hashlib.sha256(repr((self.off.shape, self.num_windows)).encode())
        for array in (self.expected, self.share, self.off, self.weight):
            digest.update(np.ascontiguousarray(array, "<f8").data)
        return digest.hexdigest()


def forecast(windows: Any) -> Forecast:
    """Forecast the next window from past ones, and how far off such forecasts were.

    Parameters
    ----------
    windows : array, shape (num_windows, num_layers, num_logical_experts)
        Tokens routed to each logical expert, oldest window first. Integer or float, numpy or torch on any device, or a
        ``LoadStatistics``. Finite and not negative. The last 96 are used: 64 errors, of forecasts from 32 windows each.
        One window may be given as (num_layers, num_logical_experts). A window without tokens in a layer is left out for
        that layer.

    Returns
    -------
    Forecast
        The same bits for the same windows in every process, on every processor and for every number of threads; layers
        in another order give the same in that order. How fast loads move and how noisy they are is pooled over
        layers, so some of the layers alone may give another forecast.

    Raises
    ------
    InvalidInputError
        If the windows have another shape, are empty, or hold a NaN, an infinity or a negative number.

    Notes
    -----
    A local level model (Muth 1960): an exponentially weighted moving average whose weight follows from the
    autocorrelation of first differences, then ridge regression of it on what the last 32 windows span. One window, or
    windows that are all alike, are their own forecast; with fewer than four windows with tokens there are no errors to
    plan against.

    Examples
    --------
    >>> import equipoise as eq
    >>> ahead = eq.forecast([[[6, 2]], [[6, 2]]])
    >>> ahead.expected.tolist(), ahead.errors.tolist()
    ([[6.0, 2.0]], [[[0.0, 0.0]]])
    """
    return Forecast(windows)


def _ahead(windows: Floats, times: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return the windows scaled, the tokens that they had, and what was forecast at each time."""
    from equipoise.forecasting.numba import look, project, scale

    share, tokens = scale(windows)
    sums, number = look(share, tokens, times)
    smoothed = [smooth(sums[row], number[row], share.shape[2]) for row in range(len(times))]
    alpha, noise = (np.array(column) for column in zip(*smoothed, strict=True))
    return share, tokens, project(share, tokens, times, alpha, noise)


def _errors(share: Floats, tokens: Floats, ahead: Floats) -> tuple[Floats, Bools]:
    """Return how far off forecasts [windows, layers, experts] were, and whether there were both tokens and forecast."""
    known = (tokens > 0) & (ahead > 0).any(axis=2)
    off = share - ahead
    return np.where(known[:, :, None] & (np.abs(off) > ROUNDING), off, 0.0), known


def _in_tokens(windows: Floats, tokens: Floats, share: Floats, off: Floats) -> Floats:
    """Return a forecast in tokens: of a window as large as those with tokens are; their mean where all are alike."""
    number = np.maximum((tokens > 0).sum(axis=0), 1)
    total: Floats = np.zeros(len(share))
    for row in tokens:  # one after the other: numpy may add them in another order
        total += row
    expected: Floats = share * (total / number / share.shape[1])[:, None]
    for layer in np.flatnonzero(~off.any(axis=(0, 2))):
        there = windows[tokens[:, layer] > 0, layer]
        if not len(there):
            expected[layer] = 0.0
        elif (there == there[0]).all() or not share[layer].any():
            mean = np.zeros(share.shape[1])
            for window in there:
                mean += window
            expected[layer] = mean / len(there)
    return expected
