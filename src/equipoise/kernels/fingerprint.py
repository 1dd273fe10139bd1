"""What stands for a compiled function: everything that its native code is made from, and nothing else.

The compiler reads a function's bytecode, what the names in it stand for, and what it calls, and freezes all of that
into native code. So that is what is hashed, as it is in memory when the compiler reads it, and not the files it came
from: a file may have changed since it was imported. Whatever is not known to be hashed whole is refused.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import types

__all__ = ["UnknownKindError", "fingerprint"]

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
VERSIONS = (sys.implementation.cache_tag, numba.__version__, llvmlite.__version__, np.__version__)
VERSIONED = ("numpy", "numba", "math")  # modules whose contents go with these versions
SWITCHES = (
    "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML", "ENABLE_AVX", "ENABLE_PROFILING",
    "EXTEND_VARIABLE_LIFETIMES", "LLVM_REFPRUNE_FLAGS", "LLVM_REFPRUNE_PASS", "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE",
)  # fmt: skip
"""Of numba's configuration, what changes the code that it makes. The processor is a part of the target."""


class UnknownKindError(Exception):
    """Something that a compiled function refers to, or is called with, and of which it is not known what it is."""


def fingerprint(dispatcher: Any, signature: tuple[Any, ...], target: Any) -> str:
    """Return what stands for the code of a compiled function, called with these types, on this target.

    Parameters
    ----------
    dispatcher : numba dispatcher
        The function. What it calls, however far down, counts too.
    signature : tuple of numba types
        Of its arguments.
    target : tuple of str
        Triple, processor and features, as ``magic_tuple`` of numba's code generators has them.

    Returns
    -------
    str
        64 hexadecimal digits. Another function, constant, option, version or target has others; comments, line numbers
        and what the function does not use make no difference.

    Raises
    ------
    UnknownKindError
        If some part is of a kind that this page does not know.
    """
    switches = [str(getattr(numba.config, name, None)) for name in SWITCHES]
    parts = [repr(VERSIONS), repr(switches), repr(target), *map(_describe_type, signature)]
    walk = _Walk()
    walk.number(dispatcher)
    parts += walk.descriptions()
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _Walk:
    """All functions that one function calls, each numbered when it is first met: so circles come to an end."""

    def __init__(self) -> None:
        self._met: list[Any] = []
        self._numbers: dict[int, int] = {}

    def number(self, function: Any) -> int:
        """Return the number of a function, a new one if it is met for the first time."""
        if id(function) not in self._numbers:
            self._numbers[id(function)] = len(self._met)
            self._met.append(function)
        return self._numbers[id(function)]

    def descriptions(self) -> Iterator[str]:
        """Describe each function by its code, and by number what it calls; those found meanwhile, too."""
        for function in self._met:  # it grows
            yield self._describe_function(function)

    def _describe_function(self, function: Any) -> str:
        python = getattr(function, "py_func", function)
        code, known = python.__code__, python.__globals__
        cells = zip(code.co_freevars, (cell.cell_contents for cell in python.__closure__ or ()), strict=True)
        names = _names_in(code)
        values = {name: known[name] for name in sorted(names & known.keys())}
        return repr((
            python.__module__, python.__qualname__, _describe_code(code),
            self.describe(python.__defaults__), self.describe(tuple(sorted((python.__kwdefaults__ or {}).items()))),
            self.describe(tuple(sorted(getattr(function, "targetoptions", {}).items()))),
            [(name, self.describe(value)) for name, value in cells],
            [(name, self._describe_global(value, names)) for name, value in values.items()],
        ))  # fmt: skip

    def _describe_global(self, value: Any, names: frozenset[str]) -> str:
        """Describe what a name stands for; of a module that has no version here, whatever may be asked of it."""
        if not isinstance(value, ModuleType):
            return self.describe(value)
        if value.__name__.partition(".")[0] in VERSIONED:
            return value.__name__
        asked = sorted(names & vars(value).keys())
        return repr((value.__name__, [(name, self._describe_global(vars(value)[name], names)) for name in asked]))

    def describe(self, value: Any) -> str:
        """Describe a value that the compiler freezes."""
        kind = type(value)
        if kind in PLAIN:
            return repr(value)
        if kind is tuple:
            return repr([self.describe(each) for each in value])
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            return repr((value.dtype.str, value.shape, value.tobytes()))
        if kind is FunctionType or hasattr(value, "py_func"):
            return f"function {self.number(value)}"
        if isinstance(value, types.Type):
            return _describe_type(value)
        if isinstance(value, type):
            return _describe_class(value)
        raise UnknownKindError(f"it refers to a {kind.__module__}.{kind.__qualname__}, which has no fingerprint")


@cache
def _names_in(code: CodeType) -> frozenset[str]:
    """Return all names that a function refers to by name, those in functions inside among them."""
    return frozenset(code.co_names).union(*map(_names_in, _inside(code)))


def _inside(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


@cache
def _describe_code(code: CodeType) -> str:
    """Return a digest of bytecode, without the names and numbers of files and lines."""
    constants = [_describe_code(each) if isinstance(each, CodeType) else _describe_constant(each)
                 for each in code.co_consts]  # fmt: skip
    parts = (
        code.co_code, getattr(code, "co_exceptiontable", b""), constants, code.co_names, code.co_varnames,
        code.co_freevars, code.co_cellvars, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
        code.co_flags,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _describe_constant(value: Any) -> str:
    """Describe a constant of bytecode; the order of a set is not its own."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _describe_class(value: type) -> str:
    """Describe a class of numbers by its name, and a named tuple by its fields as well: natively they are places."""
    name = f"{value.__module__}.{value.__qualname__}"
    if issubclass(value, tuple) and hasattr(value, "_fields"):
        return repr((name, value._fields, sorted(map(repr, value._field_defaults.items()))))  # type: ignore[attr-defined]
    if issubclass(value, np.generic) or value in PLAIN:
        return name
    raise UnknownKindError(f"it refers to the class {name}, which has no fingerprint")


def _describe_type(value: Any) -> str:
    """Describe a type of an argument; numba names a named tuple without its fields."""
    if isinstance(value, types.BaseTuple):
        parts = [_describe_type(each) for each in value.types]
        named = getattr(value, "instance_class", None)
        return repr((parts, None if named is None else _describe_class(named)))
    if isinstance(value, types.Array):
        _describe_type(value.dtype)
        return str(value)
    if isinstance(value, types.Number | types.Boolean | types.NoneType):
        return str(value)
    raise UnknownKindError(f"it is called with a {value}, which has no fingerprint")
