"""Threads around native code: work is split into units, and the units never know who ran them.

The pool is made at first use and forgotten in a forked child, whose copy would have no threads.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from threading import Lock, local
from typing import Any, ParamSpec, TypeVar

from equipoise.errors import InvalidInputError, shown

__all__ = ["beside_others", "blocks", "for_each", "num_threads", "part"]

P = ParamSpec("P")
R = TypeVar("R")

PAUSE = 1.5e-4  # seconds: enough for another thread to wake up and do what it needs the interpreter's lock for

_lock = Lock()
_this_thread = local()
_pool: ThreadPoolExecutor | None = None


def num_threads(threads: int | None = None) -> int:
    """Return how many threads to use: ``threads``, at most the processors that this process may run on; None is all."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is None:
        return processors
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InvalidInputError(
            f"threads is {shown(threads)}; it must be a whole number of at least 1, or None for all."
        )
    return min(threads, processors)


def blocks(number: int, threads: int | None = None) -> list[slice]:
    """Return ``number`` rows in blocks for ``for_each``: one call from Python each, and few of those.

    Four for each thread, so that a thread with slow rows leaves others to the rest; a single thread takes all at once.

    >>> blocks(5, threads=1), len(blocks(58, threads=2))
    ([slice(0, 5, None)], 8)
    """
    wanted = num_threads(threads)
    parts = max(1, min(4 * wanted if wanted > 1 else 1, number))
    return [slice(number * part // parts, number * (part + 1) // parts) for part in range(parts)]


def for_each(work: Callable[[Any], None], units: Iterable[Any], threads: int | None = None) -> None:
    """Call ``work`` on every unit, on up to ``num_threads(threads)`` threads, the caller's own among them.

    Units are handed out as threads come free, so each must write only what is its own. After an error,
    an interrupt among them, no more are handed out, and it is raised once all threads have stopped.
    """
    todo = iter(list(units))
    taking = Lock()

    def drain() -> None:
        """Do parts until none is left."""
        while True:
            with taking:
                unit = next(todo, todo)
            if unit is todo:
                return
            try:
                work(unit)
            except BaseException:
                with taking:
                    deque(todo, maxlen=0)  # the others find nothing left
                raise

    helpers = [_get_pool().submit(drain) for _ in range(num_threads(threads) - 1)]
    try:
        drain()
    finally:
        for helper in helpers:
            helper.result()


@contextmanager
def beside_others() -> Iterator[None]:
    """Let this thread work beside others that are more urgent: where a ``part`` begins, it sleeps a moment.

    Native code runs without the interpreter's lock, but between two long calls to it lies Python, with short calls that
    let go of the lock for less than another thread needs to wake up.
    """
    before = getattr(_this_thread, "is_beside", False)
    _this_thread.is_beside = True
    try:
        yield
    finally:
        _this_thread.is_beside = before


def part(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a part of planning: before it begins, a thread ``beside_others`` lets those have the interpreter's lock."""

    @wraps(function)
    def begin(*args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, after a pause where this thread works beside others."""
        if getattr(_this_thread, "is_beside", False):
            time.sleep(PAUSE)
        return function(*args, **kwargs)

    return begin


def _get_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="equipoise")
        return _pool


def _forget_pool() -> None:
    global _pool, _lock
    _pool, _lock = None, Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
