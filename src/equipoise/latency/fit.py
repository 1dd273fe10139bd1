"""Constants of a latency model from measured times: least relative error, by reweighted least squares.

With n0 the tokens up to which a slot costs the floor, max(floor, base + per_token n) is floor + per_token max(0, n -
n0), so for a given n0 the time is linear in fixed, floor and per_token. n0 is looked for on a grid, and for each the
three by reweighted least squares of the relative error, which comes to the least absolute one (Schlossmacher, 1973): a
few odd measurements do not bend the rest. Of all n0 the one with the least mean plus median of that error is taken.

A time that is far too short has a relative error without limit, and does bend the rest. So what is less than half of
what a first fit of least error in logarithms says, where too short and too long weigh the same, is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy
from equipoise.errors import InvalidInputError, listed, shown

__all__ = ["as_samples", "fit_constants"]

log = logging.getLogger("equipoise")
Floats = NDArray[np.float64]
GRID, ROUGH_GRID, ROUNDS = 160, 40, 8
TOO_SHORT = 2.0  # by that factor or more a measurement is no time of this kernel
LEAST_RESIDUAL = 1e-3  # relative; below that a measurement counts no more than here
NOTHING = 1e-9  # of all times; what is less is rounding
SHORTEST = 1.0  # microseconds that any kernel takes
COLUMNS = ("active_experts", "tokens_per_active_expert", "microseconds")


def as_samples(tokens: Any, microseconds: Any) -> tuple[Floats, Floats, Floats]:
    """Return active slots [samples], tokens [samples, columns] with how many slots each column stands for, and times.

    ``tokens`` is [samples, slots], or a table: a mapping or a data frame with the columns ``COLUMNS``.
    """
    if isinstance(tokens, Mapping) or hasattr(tokens, "columns"):
        missing = [name for name in COLUMNS if name not in tokens]
        if missing:
            raise InvalidInputError(f"the table has no column {listed(missing)}; it needs {', '.join(COLUMNS)}.")
        active, each, times = (_column(tokens[name], name) for name in COLUMNS)
        if not len(active) == len(each) == len(times):
            raise InvalidInputError(
                f"the columns have {len(active)}, {len(each)} and {len(times)} rows; make them one."
            )
        return active * (each > 0), each[:, None], _checked(times, len(each))
    table = np.asarray(as_numpy(tokens, "tokens"), dtype=np.float64)
    if table.ndim != 2 or not table.size or not (np.isfinite(table) & (table >= 0)).all():
        raise InvalidInputError(f"tokens is {shown(tokens)}; it must be [samples, slots], finite and not negative.")
    if microseconds is None:
        raise InvalidInputError("microseconds is None; pass the time of each sample, or a table that has them.")
    return (
        (table > 0).sum(axis=1).astype(np.float64),
        table,
        _checked(_column(microseconds, "microseconds"), len(table)),
    )


def _column(value: Any, name: str) -> Floats:
    array = np.asarray(as_numpy(value, name), dtype=np.float64)
    if array.ndim != 1 or not (np.isfinite(array) & (array >= 0)).all():
        raise InvalidInputError(f"{name} is {shown(value)}; it must list numbers that are finite and not negative.")
    return array


def _checked(times: Floats, samples: int) -> Floats:
    if len(times) != samples:
        raise InvalidInputError(f"microseconds has {len(times)} entries for {samples} samples; give one for each.")
    if samples < 4 or not (times > 0).all():
        raise InvalidInputError(
            f"there are {samples} samples, {int((times <= 0).sum())} of them without time; a fit needs at least 4, and "
            "each takes some."
        )
    return times


def fit_constants(active: Floats, tokens: Floats, microseconds: Floats) -> tuple[tuple[float, ...], float]:
    """Return (fixed, floor, base, per_token), and the median of the relative error that they leave.

    ``active`` float64 [samples], slots with tokens; ``tokens`` float64 [samples, columns]: where there is one column,
    all active slots have so many, else each slot its own. ``microseconds`` float64 [samples].
    """
    rough = _fit(active, tokens, microseconds, in_logarithms=True)
    for doubt in _doubts(active, tokens, microseconds):
        log.warning("%s", doubt)
    kept = _times(active, tokens, rough) <= TOO_SHORT * microseconds
    constants = _fit(active[kept], tokens[kept], microseconds[kept], in_logarithms=False)
    return constants, float(np.median(np.abs(_times(active, tokens, constants) / microseconds - 1.0)))


def _doubts(active: Floats, tokens: Floats, microseconds: Floats) -> Iterator[str]:
    """Yield a sentence for each reason why constants that meet these times may not meet others."""
    total = tokens.sum(axis=1) * (active if tokens.shape[1] == 1 else 1.0)
    columns = np.stack([np.ones_like(active), active, total], 1)
    if np.linalg.matrix_rank(columns / np.maximum(columns.max(axis=0), 1.0)) < 3:
        yield (
            "these measurements do not tell what is fixed, a slot's start and a token's time apart; vary the number of "
            "active experts, and their tokens by themselves."
        )
    if np.median(microseconds) < SHORTEST:
        yield f"half of the times are below {SHORTEST:g} microseconds; if they are milliseconds, multiply them by 1000."


def _fit(active: Floats, tokens: Floats, microseconds: Floats, *, in_logarithms: bool) -> tuple[float, ...]:
    """Return the constants with the least error, relative or in logarithms."""
    times = active if tokens.shape[1] == 1 else np.ones(len(tokens))
    most = max(float(tokens.max()), 2.0)
    best, constants = np.inf, (0.0, 0.0, 0.0, 0.0)
    for limit in (0.0, *np.geomspace(1.0, most, ROUGH_GRID if in_logarithms else GRID).tolist()):
        beyond = times * np.maximum(tokens - limit, 0.0).sum(axis=1)
        columns = np.stack([np.ones_like(active), active, beyond], 1)
        fixed, floor, per_token = _least_error(columns, microseconds, in_logarithms)
        tried = fixed, floor, max(floor - per_token * limit, 0.0), per_token
        ratio = _times(active, tokens, tried) / microseconds
        off = np.abs(_logarithms(ratio) if in_logarithms else ratio - 1.0)
        worth = float(np.median(off) + off.mean())
        if worth < best:
            best, constants = worth, tried
    return constants


def _times(active: Floats, tokens: Floats, constants: tuple[float, ...]) -> Floats:
    fixed, floor, base, per_token = constants
    slots = np.where(tokens > 0, np.maximum(floor, base + per_token * tokens), 0.0).sum(axis=1)
    return np.asarray(fixed + (active if tokens.shape[1] == 1 else 1.0) * slots)


def _logarithms(ratio: Floats) -> Floats:
    return np.log(np.maximum(ratio, LEAST_RESIDUAL))


def _least_error(columns: Floats, microseconds: Floats, in_logarithms: bool) -> tuple[float, float, float]:
    """Return three factors, not negative, of ``columns`` [samples, 3] whose sum is near ``microseconds``."""
    relative, weight = columns / microseconds[:, None], np.ones(len(columns))
    chosen = np.zeros(3)
    kept = [i for i in range(3) if columns[:, i].any()]
    for _ in range(ROUNDS):
        chosen[:] = 0.0
        open_ = list(kept)
        while open_:  # whatever would be negative is left out
            found, *_ = np.linalg.lstsq(relative[:, open_] * weight[:, None], weight, rcond=None)
            if (found >= 0).all():
                chosen[open_] = found
                break
            open_.pop(int(np.argmin(found)))
        ratio = relative @ chosen
        steepness = np.maximum(ratio, LEAST_RESIDUAL) if in_logarithms else 1.0  # a logarithm's is 1 / ratio
        weight = 1.0 / np.sqrt(np.maximum(np.abs(ratio - 1.0), LEAST_RESIDUAL) * steepness)
    chosen[(relative * chosen).max(axis=0) < NOTHING] = 0.0
    return float(chosen[0]), float(chosen[1]), float(chosen[2])
