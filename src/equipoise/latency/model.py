"""What the tokens of one rank cost in time: four constants, measured, fitted or preset."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, count, finite, flag
from equipoise.arrays import as_numpy
from equipoise.errors import InvalidInputError, UnknownNameError, shown
from equipoise.latency.fit import as_samples, fit_constants
from equipoise.latency.presets import FITTED, GPUS, PHASES, SHAPES, SOURCE

__all__ = ["LatencyModel"]

Floats = NDArray[np.float64]
MOST_TIME = 1e12  # microseconds, eleven days: constants beyond that are no time of a layer
MOST_TOKENS = 1e12  # of a slot in a step


@dataclass(frozen=True)
class LatencyModel:
    """The time that one EP rank takes for its experts of one layer in one step, in microseconds.

        T = fixed + sum over active slots of max(floor, base + per_token * n)

    n is the tokens of a slot in the step; a slot without tokens costs nothing, and is not active.

    Parameters
    ----------
    fixed : float
        Microseconds of every rank, whatever it holds.
    floor : float
        Microseconds of an active slot at least: its weights are read once, however few its tokens are.
    base, per_token : float
        Microseconds of a slot that has many tokens: ``base + per_token * n``.
    source : str, default ""
        Where the constants come from, in one line.
    error : float or None, default None
        Median of the relative error on what they were fitted to; None where that is not known.
    is_estimate : bool, default False
        Whether nobody measured this: constants of one model shape were scaled to another.

    Raises
    ------
    InvalidInputError
        If a constant is negative, not finite or above 1e12.

    Notes
    -----
    The form is that of a roofline for each active expert, a bound by memory and a line. It says nothing of
    communication, nor of what runs beside the experts.

    Examples
    --------
    >>> model = LatencyModel(fixed=19.6, floor=11.7, base=4.2, per_token=0.063)
    >>> model.rank_time([[4, 4, 0], [8, 0, 0]]).round(1).tolist()
    [43.0, 31.3]
    """

    fixed: float
    floor: float
    base: float
    per_token: float
    source: str = ""
    error: float | None = None
    is_estimate: bool = False

    def __post_init__(self) -> None:
        for name in ("fixed", "floor", "base", "per_token"):
            number = finite(getattr(self, name), name, "microseconds, a finite number, not negative")
            if number > MOST_TIME:
                raise InvalidInputError(f"{name} is {shown(number)} microseconds; it must be at most {MOST_TIME:g}.")
            object.__setattr__(self, name, number)
        if len(as_instance(self.source, str, "source", "a text")) > 400 or not self.source.isprintable():
            raise InvalidInputError(f"source is {shown(self.source)}; it must be a text in one line.")
        if self.error is not None:
            object.__setattr__(self, "error", finite(self.error, "error"))
        object.__setattr__(self, "is_estimate", flag(self.is_estimate, "is_estimate"))

    @classmethod
    def preset(
        cls,
        gpu: str,
        phase: str = "decode",
        shape: str = "deepseek-v3",
        *,
        hidden: int | None = None,
        intermediate: int | None = None,
        bytes_per_weight: float | None = None,
    ) -> LatencyModel:
        """Return the constants measured on a GPU, or an estimate for another model shape.

        Parameters
        ----------
        gpu : str
            h100, h200, b200 or gb200.
        phase : str, default "decode"
            ``decode`` or ``prefill``: engines run different kernels.
        shape : str, default "deepseek-v3"
            The shape that was measured.
        hidden, intermediate : int or None
            Of one expert, where they differ from that shape.
        bytes_per_weight : float or None
            1 for fp8, 2 for bf16. What differs from the shape makes an estimate: ``floor`` and ``base`` by the bytes of
            an expert's weights, ``per_token`` by its multiplications, ``fixed`` as it is; that another type of number
            also multiplies faster or slower is not known here.

        Raises
        ------
        UnknownNameError
            If nothing was measured under such a name.

        Examples
        --------
        >>> LatencyModel.preset("h200").is_estimate
        False
        >>> LatencyModel.preset("h200", hidden=4096, intermediate=1536, bytes_per_weight=1).is_estimate
        True
        """
        for name, value, known in (("gpu", gpu, GPUS), ("phase", phase, PHASES), ("shape", shape, tuple(SHAPES))):
            if not isinstance(value, str) or value not in known:
                raise UnknownNameError(f"{name} is {shown(value)}; it must be one of {', '.join(known)}.")
        constants, error = FITTED[gpu, phase]
        measured = SHAPES[shape]
        wide = measured[0] if hidden is None else count(hidden, "hidden", most=2**24)
        deep = measured[1] if intermediate is None else count(intermediate, "intermediate", most=2**24)
        each = measured[2] if bytes_per_weight is None else finite(bytes_per_weight, "bytes_per_weight")
        if not 0 < each <= 16:
            raise InvalidInputError(f"bytes_per_weight is {shown(each)}; it must be above 0 and at most 16.")
        source = f"{gpu}, {phase}, {shape}: {SOURCE}"
        if (wide, deep, each) == measured:
            return cls(*constants, source=source, error=error)
        flops = wide * deep / (measured[0] * measured[1])
        weights = flops * each / measured[2]
        fixed, floor, base, per_token = constants
        return cls(
            fixed, floor * weights, base * weights, per_token * flops,
            source=f"an estimate for hidden {wide}, intermediate {deep}, {each:g} bytes a weight, by bytes and "
            f"multiplications from {source}",
            is_estimate=True,
        )  # fmt: skip

    @classmethod
    def fit(cls, tokens: Any, microseconds: Any = None, *, source: str = "fitted") -> LatencyModel:
        """Return the constants nearest to measured times, in relative error; see ``equipoise.latency.fit``.

        Parameters
        ----------
        tokens : array [samples, slots], or a table
            Tokens of each slot of one rank. A table is a mapping or a data frame with the columns ``active_experts``,
            ``tokens_per_active_expert`` and ``microseconds``, each [samples].
        microseconds : array [samples], or None with a table
        source : str, default "fitted"

        Returns
        -------
        LatencyModel
            Its ``error`` is the median of the relative error on these samples.

        Raises
        ------
        InvalidInputError
            If there are fewer than 4 samples, or a value is negative, not finite, or a time 0.

        Notes
        -----
        Last bits may differ between machines: ranks that plan for themselves must be given the same numbers.

        Examples
        --------
        >>> import numpy as np
        >>> tokens = np.array([[1, 0], [1, 1], [100, 0], [100, 100], [500, 500], [900, 0]])
        >>> model = LatencyModel.fit(tokens, LatencyModel(20, 10, 5, 0.05).rank_time(tokens))
        >>> round(model.floor, 1), round(model.per_token, 3), model.error < 0.01
        (10.0, 0.05, True)
        """
        constants, error = fit_constants(*as_samples(tokens, microseconds))
        fixed, floor, base, per_token = constants
        return cls(fixed, floor, base, per_token, source, error)

    @property
    def constants(self) -> tuple[float, float, float, float]:
        """Fixed, floor, base and per_token."""
        return self.fixed, self.floor, self.base, self.per_token

    @property
    def is_proportional(self) -> bool:
        """Whether slots cost nothing but by their tokens: then time is tokens, and plans are those of tokens."""
        return self.floor == 0 and self.base == 0

    def rank_time(self, tokens: Any) -> Floats:
        """Return the microseconds of ranks whose slots get ``tokens`` [..., slots] in one step: float64 [...]."""
        array = _as_tokens(tokens, "tokens")
        slots = np.where(array > 0, np.maximum(self.floor, self.base + self.per_token * array), 0.0)
        times: Floats = np.asarray(self.fixed + slots.sum(axis=-1))
        return times

    def expected_rank_time(self, mean_tokens: Any) -> Floats:
        """Return the expected microseconds where the tokens of each slot are Poisson with mean ``mean_tokens``.

        float64 [..., slots] to [...]; within 1e-6, relative, of the sum over all counts. A mean of 0 is a dormant slot.
        """
        times: Floats = np.asarray(self.fixed + self.expected_slot_time(mean_tokens).sum(axis=-1))
        return times

    def expected_slot_time(self, mean_tokens: Any) -> Floats:
        """Return the expected microseconds of single slots, without what is fixed; an array of the same shape."""
        from equipoise.latency.curve import curve_of, expected_slot_times  # with numba, which reading needs not

        return expected_slot_times(curve_of(*self.constants[1:]), _as_tokens(mean_tokens, "mean_tokens"))

    def describe(self) -> str:
        """Return the model in one line: its constants, its source, and its error or that it is an estimate."""
        fixed, floor, base, per_token = self.constants
        text = f"{fixed:.4g} + sum of max({floor:.4g}, {base:.4g} + {per_token:.3g} n) us"
        where = f"; {self.source}" if self.source else ""
        return text + where + ("" if self.error is None else f"; median error {self.error:.1%}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plan file keeps them."""
        return dataclasses.asdict(self)


def _as_tokens(value: Any, name: str) -> Floats:
    array = np.asarray(as_numpy(value, name), dtype=np.float64)
    if array.ndim < 1 or not (np.isfinite(array) & (array >= 0) & (array <= MOST_TOKENS)).all():
        raise InvalidInputError(
            f"{name} is {shown(value)}; it must be [..., slots], numbers from 0 to {MOST_TOKENS:g}."
        )
    return array
