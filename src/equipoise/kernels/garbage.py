"""No garbage is collected while kernels are compiled: a sixth of the time would go into looking at what is in use."""

from __future__ import annotations

import gc
import threading

__all__ = ["Pause"]


class Pause:
    """A context without garbage collection, in any number of threads and within itself; then it is as it was before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._was_enabled:
                gc.enable()
