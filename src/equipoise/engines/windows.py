"""Windows of load from what an engine hands over: steps, summed until they are no noise, or calls, agreed on."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_load, is_torch

__all__ = ["ENOUGH", "History", "group_steps"]

ENOUGH = 32
"""Tokens that an expert has in a window on average, at least: with fewer, a sample says little of its load."""

FEWEST = 4
"""Windows from which on a forecast has errors to plan against."""

Agree = Callable[[bytes], bool | None]
"""Whether all ranks have this digest, None where that cannot be found out."""


def group_steps(steps: Any, most: int) -> Any:
    """Return steps [steps, layers, experts] as windows: as many as may be, each with enough tokens.

    All windows have as many steps, so that each has ``ENOUGH`` tokens an expert on average, and there are ``most`` at
    most, by default as many as one forecast rests on. Where that makes fewer than four, they are summed to one. The
    oldest steps that fill no window are left out. Summed on the device that a tensor is on.
    """
    number, layers, experts = steps.shape
    # In float64, in which whole numbers have one sum in any order: all ranks must come to the same windows.
    total = steps.sum(dtype=sys.modules["torch"].float64 if is_torch(steps) else np.float64)
    tokens = float(total) / (number * layers * experts)  # of an expert in a step
    each = max(-(-number // most), int(np.ceil(min(ENOUGH / tokens, number))) if tokens > 0 else number)
    if number // each < FEWEST:
        return steps.sum(0)[None]
    last = steps[number - number // each * each :]
    return last.reshape(number // each, each, layers, experts).sum(1)


class History:
    """The loads of an engine's last calls, used only where all ranks are known to have the same.

    Parameters
    ----------
    most : int
        Loads that are kept; 1 keeps none.
    agree : callable
        Whether all ranks have a digest, None where that cannot be found out. Collective: every rank calls it at the
        same call, because what has led there is the same for all: how often they were called, and with which shapes.
    log : logging.Logger
        Where one line says that histories are not used.
    """

    def __init__(self, most: int, agree: Agree, log: logging.Logger) -> None:
        self._most, self._agree, self._log = most, agree, log
        self._kept: dict[tuple[int, int], tuple[tuple[int, int], deque[NDArray[np.float64]]]] = {}
        self._said = False

    def windows(self, load: Any, num_slots: int, num_ranks: int) -> Any:
        """Return the windows to forecast from, the last of which is ``load`` [layers, experts], or ``load`` alone.

        The history of a model begins anew where the number of its slots or ranks is another than before, or ranks have
        different ones. A load without tokens, such as a profiling run's, is returned alone and not kept.
        """
        if self._most < 2:
            return load
        window = as_load(load)
        if not window.any():
            return load
        shape, asked = (window.shape[0], window.shape[1]), (num_slots, num_ranks)
        before, kept = self._kept.get(shape, (asked, deque(maxlen=self._most)))
        if before != asked:
            kept = deque(maxlen=self._most)
        kept.append(window)
        self._kept[shape] = asked, kept
        digest = hashlib.sha256(repr((shape, asked, len(kept))).encode())
        for each in kept:
            digest.update(np.ascontiguousarray(each, "<f8").data)
        same = self._agree(digest.digest())
        if same:
            return np.stack(kept)
        if same is False:
            self._kept[shape] = asked, deque([window], maxlen=self._most)
        self._say("ranks have seen different ones" if same is False else "ranks cannot agree on them here")
        return load

    def _say(self, why: str) -> None:
        if not self._said:
            self._said = True
            self._log.warning("equipoise plans from the last window alone, not from those before it: %s.", why)
