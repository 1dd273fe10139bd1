"""How numba compiles kernels: as it does anything, but without doing again what it has done, in two thirds of the time.

- What only kernels call is optimised and turned into machine code once, as a part of the kernel that Python calls.
  numba does both at every level of calls: what sorts, and is called by what is called by a third, is optimised three
  times, and only the last of them is ever run.
- What an operator makes of arguments of some types is found once, and not at every place where it stands: numba tries
  some twenty rules before it knows that an array with a whole number between brackets is one of its elements.
- What numba itself brings, ``np.empty`` or ``max``, is compiled once for all kernels, whatever their options.
- No garbage is collected meanwhile.

All of it goes in by the doors that numba has for compilers of others, a class made from ``CompilerBase`` and named as
``pipeline_class``. Where a numba has other rooms behind them, kernels are compiled as anything is.
"""

from __future__ import annotations

import operator
from types import BuiltinFunctionType
from typing import Any, ClassVar

from equipoise.kernels.garbage import Pause

__all__ = ["COMPILER"]

COMPILER: dict[str, Any] = {}
"""What to tell ``numba.njit``, so that it compiles in this way; empty where this numba cannot."""

OF_ONE_KERNEL = ("forceinline", "inline", "no_cfunc_wrapper", "no_cpython_wrapper")
"""Options that say nothing about what a kernel calls."""

try:
    from llvmlite import binding as llvm
    from numba.core import config
    from numba.core.codegen import JITCodeLibrary, _parse_refprune_flags
    from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags
    from numba.core.types import Function
    from numba.core.typing.context import Context
except ImportError:  # another numba
    llvm = JITCodeLibrary = CompilerBase = Flags = Context = object


class KernelCompiler(CompilerBase):  # type: ignore[misc]
    """numba's passes, all of them and in their order, on what is below in place of numba's own."""

    _pause = Pause()

    def __init__(
        self, types: Any, target: Any, library: Any, args: Any, return_type: Any, flags: Any, rest: Any
    ) -> None:
        super().__init__(types, target, library, args, return_type, _Options(flags), rest)
        self.state.typingctx = _Types(types)

    def compile_extra(self, function: Any) -> Any:
        """Compile a function into a library of the kind that its callers need."""
        kind = _Part if self.state.flags.no_cpython_wrapper else _Whole  # Python does not call the former
        self.state.library = kind(self.state.targetctx.codegen(), function.__qualname__)
        self.state.library.enable_object_caching()
        with self._pause:
            return super().compile_extra(function)

    def define_pipelines(self) -> list[Any]:
        """Return numba's own passes, without those for Python objects."""
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


class _Whole(JITCodeLibrary):  # type: ignore[misc]
    """Code that Python calls, optimised once. numba does so twice, the first time to see which arrays nobody holds.

    Loops are not unrolled: that makes code half as long again, a third slower to compile, and none faster that we run.
    """

    def _optimize_final_module(self) -> None:
        tuning = llvm.create_pipeline_tuning_options(config.OPT)
        tuning.loop_vectorization = bool(config.LOOP_VECTORIZE)
        tuning.slp_vectorization = bool(config.SLP_VECTORIZE)
        tuning.loop_unrolling = False
        builder = llvm.create_pass_builder(self._codegen._tm, tuning)
        passes = builder.getModulePassManager()
        if config.LLVM_REFPRUNE_PASS:
            passes.add_refprune_pass(_parse_refprune_flags())
        passes.run(self._final_module, builder)


class _Part(JITCodeLibrary):  # type: ignore[misc]
    """Code that is only ever a part of other code: kept as it was written, to be optimised with the rest."""

    @property
    def codegen(self) -> Any:
        """Ask for nothing that needs machine code: there is none here."""
        return _NoMachineCode

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0, as for any function that has no machine code."""
        self._ensure_finalized()
        return 0

    def serialize_using_object_code(self) -> Any:
        """Return what is kept of it: LLVM's code, for want of the machine's."""
        return self.serialize_using_bitcode()

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class _NoMachineCode:
    @staticmethod
    def set_env(name: str, environment: Any) -> None:
        """Do nothing: Python objects that code refers to are set where its machine code is."""


class _Types(Context):  # type: ignore[misc]
    """numba's own knowledge of types, the very same, which remembers what it has told."""

    _told: ClassVar[dict[tuple[int, Any], tuple[Any, Any]]] = {}

    def __init__(self, context: Any) -> None:
        self.__dict__ = context.__dict__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ is other.__dict__

    def __hash__(self) -> int:
        return id(self.__dict__)

    def resolve_function_type(self, function: Any, args: Any, keywords: Any) -> Any:
        """Return the signature of a call; of operators and numba's own functions as it was found the first time."""
        if keywords or not isinstance(function, (Function, BuiltinFunctionType, type)):
            return super().resolve_function_type(function, args, keywords)
        key = id(function), args
        if key not in self._told:
            signature = super().resolve_function_type(function, args, keywords)
            if signature is None:
                return None
            self._told[key] = signature, function  # kept, so that no other gets its id
        return self._told[key][0]

    def resolve_setitem(self, target: Any, index: Any, value: Any) -> Any:
        """Return the signature of an assignment to a part of something, as that of a call."""
        return self.resolve_function_type(operator.setitem, (target, index, value), {})


class _Options(Flags):  # type: ignore[misc]
    """The options of one kernel. What is copied from them, for what numba brings, is alike for all kernels."""

    _common: ClassVar[dict[str, Any]] = {}

    def copy(self) -> Any:
        """Return the options that all kernels hand on, the very same ones to each."""
        common = Flags(self)
        for name in OF_ONE_KERNEL:
            common.discard(name)
        common.nrt = True  # it may make arrays
        return self._common.setdefault(repr(common), common)


USED = (
    (CompilerBase, "compile_extra define_pipelines"),
    (JITCodeLibrary, "codegen get_pointer_to_function serialize_using_object_code serialize_using_bitcode"),
    (JITCodeLibrary, "_optimize_final_module _finalize_final_module _finalize_dynamic_globals"),
    (JITCodeLibrary, "_verify_declare_only_symbols _ensure_finalized enable_object_caching"),
    (llvm, "create_pipeline_tuning_options create_pass_builder"),
    (Context, "resolve_function_type resolve_setitem"),
    (Flags, "copy discard nrt"),
)
"""All that is used of numba and not public, but for ``_tm``, the target machine, which only instances have."""

if all(hasattr(owner, name) for owner, names in USED for name in names.split()):
    COMPILER["pipeline_class"] = KernelCompiler
