"""Kernels are compiled in a way of our own: the same answers and errors, and nothing is done again."""

from __future__ import annotations

import importlib
import operator
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equipoise.kernels import compiler
from equipoise.kernels.native import allocating, internal, native

numba = pytest.importorskip("numba")
pytestmark = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled with NUMBA_DISABLE_JIT")

KERNELS = """
import numpy as np
from equipoise.kernels.native import allocating, internal, native

@internal
def element(array, i):
    if i < 0:
        raise ValueError("negative")
    return array[i]

@allocating
def row(n):
    array = np.zeros(n, np.int64)
    for i in range(n):
        array[i] = max(i, 3)
    return array

@native
def kernel(array, i):
    return element(array, i) + row(5)[4] + {more}
"""


@internal
def double(x):  # type: ignore[no-untyped-def]
    return 2 * x


@allocating
def doubled(n):  # type: ignore[no-untyped-def]
    array = np.empty(n, np.int64)
    for i in range(n):
        array[i] = double(max(i, 1))
    return array


@native
def total(n):  # type: ignore[no-untyped-def]
    array = doubled(n)
    return array.sum() + double(n)


for each in (double, doubled, total):
    if not numba.config.DISABLE_JIT:
        each._cache.disable()  # compile them here


def run(folder: Path, more: int) -> list[str]:
    (folder / "kernels.py").write_text(KERNELS.format(more=more))
    code = (
        "import numpy as np, kernels\nfor i in (1, -1, 7):\n    try:\n        print(kernels.kernel(np.arange(4), i))\n"
    )
    code += "    except (ValueError, IndexError) as error:\n        print(error)\n"
    code += "print(len(kernels.element.stats.cache_hits))"
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder / "kept")}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_this_numba_has_what_is_needed() -> None:
    assert compiler.COMPILER["pipeline_class"] is compiler.KernelCompiler


def test_kernels_answer_as_plain_python_does() -> None:
    assert total(5) == sum(2 * max(i, 1) for i in range(5)) + 2 * 5


def test_what_only_kernels_call_has_no_machine_code_of_its_own() -> None:
    total(3)
    assert len(double.overloads) == len(total.overloads) == 1
    for part in (double, doubled):
        for compiled in part.overloads.values():
            assert isinstance(compiled.library, compiler._Part)
            assert compiled.library.serialize_using_object_code()[1] == "bitcode"


@pytest.mark.slow
def test_errors_come_from_within_and_parts_are_found_again_for_a_caller_that_changed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o700)
    for more, found in ((0, 0), (0, 0), (1, 1)):  # the second loads the caller, and needs no part
        expected = [str(1 + 4 + more), "negative", "index is out of bounds", str(found)]
        assert run(tmp_path, more) == expected


def test_what_numba_knows_of_types_is_told_alike_the_second_time() -> None:
    total(3)
    context = next(iter(total.overloads.values())).typing_context
    assert isinstance(context, compiler._Types)
    types = numba.types
    numbers = [types.int64, types.float64, types.boolean, types.literal(3), types.int64[::1]]
    for function in (operator.add, operator.lt, operator.getitem, operator.floordiv, max):
        for left in numbers:
            for right in numbers:
                plain = _told(context, numba.core.typing.Context.resolve_function_type, function, left, right)
                for _ in range(2):
                    assert _told(context, compiler._Types.resolve_function_type, function, left, right) == plain


def _told(context: object, ask: Any, function: object, *args: object) -> object:
    try:
        return ask(context, function, args, {})
    except numba.core.errors.TypingError:
        return "none"


def test_all_kernels_hand_on_the_same_options() -> None:
    flags = []
    for part in ({}, {"no_cpython_wrapper": True, "forceinline": True}):
        one = numba.core.compiler.Flags()
        for name, value in {"error_model": "numpy", **part}.items():
            setattr(one, name, value)
        flags.append(compiler._Options(one).copy())
    assert flags[0] is flags[1]
    assert not flags[0].no_cpython_wrapper


@pytest.mark.parametrize(("owner", "name"), [("JITCodeLibrary", "_optimize_final_module"), ("Flags", "discard")])
def test_with_another_numba_kernels_are_compiled_as_anything_is(
    monkeypatch: pytest.MonkeyPatch, owner: str, name: str
) -> None:
    kind = getattr(compiler, owner)
    where = next(base for base in kind.__mro__ if name in vars(base))
    with monkeypatch.context() as patch:
        patch.delattr(where, name)
        assert importlib.reload(compiler).COMPILER == {}
    importlib.reload(compiler)
