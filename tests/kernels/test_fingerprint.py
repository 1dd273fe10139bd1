"""What stands for a compiled function changes with everything that its code is made from, and with nothing else."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest

import equipoise
from equipoise.kernels.fingerprint import UnknownKindError, fingerprint

SOURCES = {
    "limits": "LEAST = 10\nTABLE = np.array([1, 2, 3])\nUNUSED = 1\n",
    "callee": """
from limits import LEAST
import limits

class Pair(NamedTuple):
    left: int
    right: int

@njit
def one(n):
    return LEAST + n

@njit
def other(n, step=1):
    return limits.TABLE[n] + step

@njit
def even(n):
    return True if n == 0 else odd(n - 1)

@njit
def odd(n):
    return False if n == 0 else even(n - 1)
""",
    "caller": """
from callee import Pair, even, odd, one, other

@njit
def calls_one(n):
    return one(n) + 1

@njit
def calls_other(n):
    return Pair(other(n), n).left

@njit
def calls_in_a_circle(n):
    return even(n)
""",
}
INT = (numba.types.int64,)
TARGET = ("a triple", "a processor", "what it can do")


@pytest.fixture
def prints(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes the modules above, some text in them replaced, and the fingerprints of callers."""

    def made(old: str = "", new: str = "") -> dict[str, str]:
        functions = {}
        for name, text in SOURCES.items():
            module = types.ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            vars(module).update(np=np, njit=numba.njit)
            exec("from typing import NamedTuple\n" + (text.replace(old, new) if old else text), vars(module))
            functions.update(vars(module))
        callers = ("calls_one", "calls_other", "calls_in_a_circle")
        return {name: fingerprint(functions[name], INT, TARGET) for name in callers}

    return made


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("LEAST = 10", "LEAST = 11", {"calls_one"}),
        ("LEAST = 10", "LEAST = 10.0", {"calls_one"}),
        ("[1, 2, 3]", "[1, 2, 4]", {"calls_other"}),
        ("[1, 2, 3]", "[1, 2, 3], np.int32", {"calls_other"}),
        ("LEAST + n", "LEAST - n", {"calls_one"}),
        ("step=1", "step=2", {"calls_other"}),
        ("left: int\n    right: int", "right: int\n    left: int", {"calls_other"}),
        ("False if n == 0", "True if n == 0", {"calls_in_a_circle"}),
        ("@njit\ndef one", "@njit(fastmath=True)\ndef one", {"calls_one"}),
        ("UNUSED = 1", "UNUSED = 2", set()),
        ("@njit", "# a comment\n\n@njit", set()),
    ],
)
def test_what_is_made_from_something_that_changes_changes_and_nothing_else(prints, old, new, changed) -> None:
    before, after = prints(), prints(old, new)
    assert {name for name in before if before[name] != after[name]} == changed


def test_types_target_and_switches_of_the_compiler_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 0)
    function = numba.njit(lambda n: n)
    ints, floats = (numba.types.int64[:],), (numba.types.float64[:],)
    told = {fingerprint(function, signature, TARGET) for signature in (INT, ints, floats, INT * 2)}
    told.add(fingerprint(function, INT, ("another",)))
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    told.add(fingerprint(function, INT, TARGET))
    assert len(told) == 6


def test_a_named_tuple_that_is_passed_counts_with_its_fields(prints) -> None:
    prints()
    first = sys.modules["callee"].Pair
    prints("left: int\n    right: int", "right: int\n    left: int")
    second = sys.modules["callee"].Pair
    function = numba.njit(lambda pair: pair.left)
    one, other = (
        fingerprint(function, (numba.types.NamedUniTuple(numba.types.int64, 2, pair),), TARGET)
        for pair in (first, second)
    )
    assert one != other


@pytest.mark.parametrize("value", [object(), [1], {1: 2}, np.array([None]), print])
def test_what_has_no_fingerprint_is_refused(value: object) -> None:
    function = eval("numba.njit(lambda: value)", {"numba": numba, "value": value})
    with pytest.raises(UnknownKindError, match="has no fingerprint"):
        fingerprint(function, (), TARGET)


def test_an_argument_whose_type_is_not_known_is_refused() -> None:
    with pytest.raises(UnknownKindError, match="has no fingerprint"):
        fingerprint(numba.njit(lambda text: text), (numba.types.unicode_type,), TARGET)


def modules_with_kernels() -> Iterator[str]:
    for path in Path(equipoise.__file__).parent.rglob("*.py"):
        if "kernels.native import" in path.read_text(encoding="utf-8"):
            yield ".".join(("equipoise", *path.relative_to(Path(equipoise.__file__).parent).with_suffix("").parts))


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
def test_every_kernel_of_the_package_has_a_fingerprint_of_its_own() -> None:
    kernels = {
        value.py_func: value
        for name in modules_with_kernels()
        for value in vars(importlib.import_module(name)).values()
        if hasattr(value, "py_func")
    }
    assert len(kernels) > 100
    assert len({fingerprint(kernel, (), TARGET) for kernel in kernels.values()}) == len(kernels)
