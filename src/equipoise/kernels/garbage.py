"""No garbage is collected while kernels are compiled: a sixth of the time would go into looking at what is in use."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from typing import Any

try:
    from numba.core.event import Listener, register
except ImportError:  # another numba: compiling takes as long as it does there
    Listener, register = object, None

__all__ = ["pause_while_compiling"]


class _Pause(Listener):  # type: ignore[misc]
    """What numba tells when it begins and ends to compile a function: in any thread, and those that it calls within."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_enabled = False

    def on_start(self, event: Any) -> None:
        if _is_ours(event):
            with self._lock:
                if self._depth == 0:
                    self._was_enabled = gc.isenabled()
                    gc.disable()
                self._depth += 1

    def on_end(self, event: Any) -> None:
        if _is_ours(event):
            with self._lock:
                self._depth -= 1
                if self._depth == 0 and self._was_enabled:
                    gc.enable()


def pause_while_compiling() -> None:
    """Listen from now on; only kernels of this package count."""
    if register is not None:
        with suppress(Exception):  # it saves time, and nothing else
            register("numba:compile", _Pause())


def _is_ours(event: Any) -> bool:
    dispatcher = (event.data or {}).get("dispatcher")
    return getattr(getattr(dispatcher, "py_func", None), "__module__", "").startswith("equipoise.")
