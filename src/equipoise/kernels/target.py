"""Which processor compiled code is for: this one, or a baseline that others of its family run too.

An image is built on one machine and runs on others. What is compiled for the baseline of a family is found by all of
them, so that one warm-up serves them; what a library process compiles is for its own processor, as numba has it, since
numba has one setting for all code of a process, ours and others'. Code for either gives the same bits.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numba
from llvmlite import binding

__all__ = ["baseline", "name_of", "targets", "use_baseline"]

BASELINES = {
    "x86_64": ("x86-64-v3", ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")),
}
"""By architecture, the baseline's name for LLVM, and what a processor must have to run it."""

Target = tuple[str, str, str]  # triple, processor, features


@cache
def baseline() -> str | None:
    """Return the name of the baseline that this processor runs, None if there is none."""
    name, needed = BASELINES.get(str(binding.get_process_triple()).split("-")[0], ("", ()))
    found = binding.get_host_cpu_features()
    return name if name and all(found.get(feature, False) for feature in needed) else None


def use_baseline() -> str | None:
    """Compile for the baseline in this process from now on; return its name, None where that cannot be.

    It cannot where the user names a processor (``NUMBA_CPU_NAME``), or something has been compiled already. All numba
    code of the process is compiled so: for programs of our own, not for those that import this library.
    """
    name = baseline()
    if name is None or "NUMBA_CPU_NAME" in os.environ or _has_begun():
        return name if name == numba.config.CPU_NAME else None
    numba.config.CPU_NAME, numba.config.CPU_FEATURES = name, ""  # the features are those that the name stands for
    return name


def targets(own: Target) -> list[Target]:
    """Return for which targets kept code runs in a process that compiles for ``own``, that one first."""
    name = baseline()
    asked_for = "NUMBA_CPU_NAME" in os.environ
    if name is None or asked_for or own[1] == name:
        return [own]
    return [own, (own[0], name, "")]


def name_of(target: Target) -> str:
    """Return the processor of a target, as it may be in the name of a file."""
    return "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in target[1]) or "unknown"


def _has_begun() -> bool:
    """Whether numba has made its code generator, which keeps the processor that it was made with."""
    try:
        registry: Any = __import__("numba.core.registry", fromlist=["cpu_target"])
        return "_toplevel_target_context" in vars(registry.cpu_target)
    except (ImportError, AttributeError, TypeError):
        return True
