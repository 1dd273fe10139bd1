"""Loads that a plug-in was given, kept in a folder for later: the commands read it as a load of several windows.

A record is a file, written beside its name and then renamed, so whoever reads finds whole records only; see
``equipoise.load.recorded_files`` for what is in it.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from equipoise.engines.leader import global_rank
from equipoise.errors import InvalidInputError
from equipoise.files import write_atomically
from equipoise.load.recorded_files import name_of, names_like, to_bytes

if TYPE_CHECKING:
    from equipoise.placement import Placement

__all__ = ["Recorder"]

GRACE = 2.0  # seconds that a process waits at its end for the record being written


class Recorder:
    """Keeps loads in ``folder``, at most ``megabytes`` of each kind, the oldest dropped first.

    A kind is a number of layers and experts, and the process that writes. Records are written by a thread of their own;
    while one is still being written, the next is left out rather than waited for. What goes wrong is logged once and
    never raised after the start.

    Raises
    ------
    InvalidInputError
        If the folder cannot be made.
    """

    def __init__(self, folder: str, megabytes: int, log: logging.Logger) -> None:
        self.folder, self.most, self._log = Path(folder), megabytes * 10**6, log
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidInputError(f"{folder} cannot be made a folder for loads: {reason}. Name another.") from None
        self._thread: threading.Thread | None = None
        self._complained = False
        atexit.register(self.wait, GRACE)

    def keep(self, load: NDArray[np.float64], held: Placement | None, asked: tuple[int, int, int, int]) -> None:
        """Keep a load [layers, experts], the placement in force, and the slots, groups, nodes and ranks asked for."""
        if self._thread is not None and self._thread.is_alive():
            self._complain("the record before it is still being written")
            return
        now = time.time_ns()
        name = name_of(load.shape, global_rank(), now)
        table = None if held is None else held.physical_to_logical
        self._thread = threading.Thread(
            target=self._write, args=(name, load, table, asked, now), name="equipoise-record", daemon=True
        )
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the record that is being written, if one is."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _write(
        self,
        name: str,
        load: NDArray[np.float64],
        table: NDArray[np.int32] | None,
        asked: tuple[int, int, int, int],
        now: int,
    ) -> None:
        try:
            content = to_bytes(load, table, asked, now)
            self._make_room(name, len(content))
            write_atomically(self.folder / name, content)
        except Exception as error:  # serving goes on whatever happens here
            self._complain(str(error))

    def _make_room(self, name: str, size: int) -> None:
        kept = names_like(self.folder, name)
        sizes = [(self.folder / other).stat().st_size for other in kept]
        excess = sum(sizes) + size - self.most
        for other, taken in zip(kept, sizes, strict=True):
            if excess <= 0:
                return
            (self.folder / other).unlink(missing_ok=True)
            excess -= taken

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            reason = reason.rstrip(".")
            self._log.warning("equipoise could not keep a load in %s: %s. This is said once.", self.folder, reason)
