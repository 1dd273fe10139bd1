"""Random numbers and functions of them that are the same bits under every numpy, on every machine.

A number is a hash of what it is for: a seed, a stream and its place in the stream. Nothing here but whole numbers, sums
in order, products, quotients and square roots, whose results IEEE 754 fixes; exponentials and logarithms are made of
these, since those of a library may differ in their last bit from one version to the next.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["exp", "log", "normals", "poissons", "total", "uniforms"]

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
LN2, LN2_HIGH = 0.6931471805599453, 0.693145751953125  # the second has 20 bits: its products with exponents are exact
LN2_LOW = 1.4286068203094173e-06
FEW = 32.0  # of a mean below that, the Poisson distribution is inverted; above, it is rounded from a normal one
MOST_TERMS = 150  # no Poisson number of a mean of 32 is so large, but with a chance below 1e-50


def _mixed(words: Words) -> Words:
    """Return a bijective hash of 64-bit words: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: Words = words ^ (words >> np.uint64(31))
    return hashed


def uniforms(seed: int, stream: int, *shape: int) -> Floats:
    """Return numbers strictly between 0 and 1, by their place in the stream of a seed.

    >>> uniforms(0, 1, 2, 3).shape, bool((uniforms(0, 1, 2, 3) == uniforms(0, 1, 6).reshape(2, 3)).all())
    ((2, 3), True)
    """
    with np.errstate(over="ignore"):
        key = _mixed(_mixed(np.array([seed], dtype=np.uint64) + GOLDEN) + np.uint64(stream) * GOLDEN)
        place = np.arange(int(np.prod(shape)), dtype=np.uint64)
        bits = _mixed(_mixed(key + place * GOLDEN) ^ key)
    numbers: Floats = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54
    return numbers.reshape(shape)


def normals(seed: int, stream: int, *shape: int) -> Floats:
    """Return standard normal numbers, by the polar method of Marsaglia (1964): a place tries until it accepts."""
    found: Floats = np.zeros(int(np.prod(shape)))
    open_ = np.ones(len(found), dtype=np.bool_)
    attempt = 0
    while open_.any():
        pair = 2.0 * uniforms(seed, (stream << 20) + attempt, len(found), 2) - 1.0
        square = pair[:, 0] * pair[:, 0] + pair[:, 1] * pair[:, 1]
        taken = open_ & (square < 1.0) & (square > 0.0)
        safe = np.where(taken, square, 0.5)
        found[taken] = (pair[:, 0] * np.sqrt(-2.0 * log(safe) / safe))[taken]
        open_ &= ~taken
        attempt += 1
    return found.reshape(shape)


def poissons(mean: Floats, seed: int, stream: int) -> Floats:
    """Return whole numbers with these means: by inversion where they are few, else rounded from a normal number."""
    draw, chance = uniforms(seed, 2 * stream, *mean.shape), exp(-np.minimum(mean, FEW))
    below, small = chance.copy(), np.zeros_like(mean)
    for number in range(1, MOST_TERMS):
        more = draw > below
        if not more.any():
            break
        small += more
        chance = chance * np.minimum(mean, FEW) / number
        below = below + chance
    large = np.floor(mean + np.sqrt(mean) * normals(seed, 2 * stream + 1, *mean.shape) + 0.5)
    return np.where(mean <= FEW, small, np.maximum(large, 0.0))


def total(values: Floats) -> Floats:
    """Return the sum of each row, added from left to right: shape (rows, 1)."""
    summed: Floats = np.cumsum(values, axis=1)[:, -1:]
    return summed


def exp(values: Floats) -> Floats:
    """Return e to the power of numbers below 700, by the Taylor series of what is left after powers of two.

    >>> bool(np.allclose(exp(np.array([-3.0, 0.0, 1.0, 20.0])), np.exp([-3, 0, 1, 20]), rtol=1e-14))
    True
    """
    with np.errstate(invalid="ignore"):
        power = np.rint(np.maximum(values, -745.0) / LN2)
        rest = (np.maximum(values, -745.0) - power * LN2_HIGH) - power * LN2_LOW
    series = np.ones_like(rest)
    for term in range(14, 0, -1):
        series = series * rest / term + 1.0
    result: Floats = np.where(values < -700.0, 0.0, np.ldexp(series, power.astype(np.int64)))
    return result


def log(values: Floats) -> Floats:
    """Return the natural logarithm, minus infinity of 0, by the series of the inverse hyperbolic tangent.

    >>> bool(np.allclose(log(np.array([1e-9, 0.5, 1.0, 7.0, 1e20])), np.log([1e-9, 0.5, 1, 7, 1e20]), rtol=1e-14))
    True
    """
    mantissa, power = np.frexp(np.where(values > 0, values, 1.0))
    low = mantissa < 0.7071067811865476
    mantissa, power = np.where(low, 2.0 * mantissa, mantissa), power - low
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square, series = ratio * ratio, np.zeros_like(ratio)
    for term in range(23, 0, -2):
        series = series * square + 1.0 / term
    result: Floats = power * LN2_HIGH + (power * LN2_LOW + 2.0 * ratio * series)
    return np.where(values > 0, result, -np.inf)
