"""Imports point one way, the way the data goes; and what may be imported, and where, is written down here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import equipoise

PACKAGE = Path(equipoise.__file__).parent

ORDER = (
    ("errors", "limits"),
    ("arguments",),
    ("arrays", "files", "threads", "fixed_point"),
    ("decode", "metrics", "pages"),
    ("kernels", "load", "models"),
    ("latency",),
    ("forecasting",),
    ("backends", "problem"),
    ("placement", "hierarchy", "bounds", "restarts"),
    ("dispatch",),
    ("checker", "descent", "steps"),
    ("timing",),
    ("certificate", "search", "regroup", "robust"),
    ("saved", "strategies", "provenance"),
    ("summary", "plan_file", "joining"),
    ("plan",),
    ("how",),
    ("capacity", "timed"),
    ("replan",),
    ("report", "migration", "solver", "advice"),
    ("eplb", "online", "traces"),
    ("engines",),
    ("testing",),
    ("cli",),
    ("__main__",),
)
"""A room may import itself and what stands in a line above its own, never its neighbours on the same line."""

COMPILED = {
    "kernels", "forecasting", "bounds", "restarts", "dispatch", "descent", "robust", "replan", "migration", "latency",
    "timing",
}  # fmt: skip
"""Rooms with native code of their own; of migration the rounds in which slots are filled."""

COMPILING = {
    "kernels/native", "kernels/cache", "kernels/compiler", "kernels/fingerprint", "kernels/garbage", "kernels/target",
}  # fmt: skip

RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.parts[0]


def tree_of(module: Path) -> ast.Module:
    return ast.parse((PACKAGE / module.with_suffix(".py")).read_text(encoding="utf-8"))


def imported(tree: ast.AST, *, at_import_only: bool = False) -> Iterator[str]:
    """Yield the dotted names that ``tree`` imports, those for type checkers left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_import_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from imported(node, at_import_only=at_import_only)


def packages(module: Path, *, at_import_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name in imported(tree_of(module), at_import_only=at_import_only)}


@pytest.fixture(params=MODULES, ids=str)
def module(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_every_room_has_a_place_in_the_order(module: Path) -> None:
    assert room_of(module) in {*RANK, "__init__"}, f"give {room_of(module)!r} a line in ORDER"


def test_imports_point_the_way_the_data_goes(module: Path) -> None:
    if room_of(module) == "__init__":
        return
    for name in imported(tree_of(module)):
        parts = name.split(".")
        if parts[0] != "equipoise" or name == "equipoise.__version__":
            continue
        target = parts[1]
        assert target in RANK, f"{module} imports {name} through the package itself; name the room"
        allowed = target == room_of(module) or RANK[target] < RANK[room_of(module)]
        assert allowed, f"{module} imports {name}, which lies further down the way"


def test_kernels_know_neither_problems_nor_plans(module: Path) -> None:
    if room_of(module) != "kernels":
        return
    known = {name.split(".")[1] for name in imported(tree_of(module)) if name.startswith("equipoise.")}
    assert known <= {"kernels", "errors", "files", "threads"}


def test_only_the_command_line_imports_typer_and_rich(module: Path) -> None:
    if room_of(module) != "cli":
        assert packages(module).isdisjoint({"typer", "rich", "click"})


def test_only_the_command_line_prints(module: Path) -> None:
    if room_of(module) in ("cli", "__main__"):
        return
    calls = [node.func for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    assert not any(isinstance(call, ast.Name) and call.id in ("print", "input") for call in calls)


def test_commands_import_what_is_heavy_only_when_they_run(module: Path) -> None:
    if room_of(module) == "cli":
        assert packages(module, at_import_only=True).isdisjoint({"numpy", "numba", "torch", "triton", "rich"})


def test_torch_and_triton_are_imported_only_by_the_kernels_written_in_them(module: Path) -> None:
    if room_of(module) == "restarts" and module.name in ("torch", "triton", "counter_torch", "tensors"):
        return
    if module.as_posix() == "latency/measure":  # looks for a device when it is asked to
        assert packages(module, at_import_only=True).isdisjoint({"torch", "triton"})
        return
    assert packages(module, at_import_only=True).isdisjoint({"torch", "triton"})
    if room_of(module) not in ("engines", "migration"):
        assert packages(module).isdisjoint({"torch", "triton"}), "look for it among the imported modules instead"


def test_numba_is_imported_in_few_files_and_native_code_is_written_in_few_rooms(module: Path) -> None:
    native = "equipoise.kernels.native"
    if module.as_posix() in COMPILING:
        return
    assert "numba" not in packages(module), f"ask {native} to compile"
    if room_of(module) not in COMPILED:
        assert not any(name.startswith(native) for name in imported(tree_of(module)))


def test_no_module_reads_global_random_state(module: Path) -> None:
    names = [ast.unparse(node) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute | ast.Call)]
    drawn = {name.split(".")[2].split("(")[0] for name in names if name.startswith("np.random.")}
    assert drawn <= {"Generator", "PCG64", "SeedSequence", "default_rng"}, "ask a generator with a seed"
    assert "np.random.default_rng()" not in names, "a generator without a seed"
    own = {name for name in names if name.startswith("random.") and not name.startswith("random.Random(")}
    assert own <= {"random.Random"}, "ask a generator with a seed"
    assert "random.Random()" not in names, "a generator without a seed"
    if "random" in packages(module):
        assert any(name.startswith("random.Random(") for name in names), "nothing else of random is needed"


@pytest.mark.parametrize("seeded", [True, False])
def test_a_generator_without_a_seed_would_be_seen(seeded: bool) -> None:
    call = ast.parse(f"np.random.default_rng({7 if seeded else ''})").body[0].value  # type: ignore[attr-defined]
    assert (ast.unparse(call) == "np.random.default_rng()") is not seeded


CLOCKS = {
    "files": "which leftovers of killed saves are old, where there are no locks",
    "strategies": "a deadline that the caller sets; the plan records what it led to",
    "search": "the same",
    "threads": "to sleep",
    "migration": "to give up on ranks that do not answer",
    "online": "how long a step takes, which all ranks take from the first of them",
    "engines": "how long planning took, for the log, and when a load was kept",
    "cli": "to show how long planning took",
}
"""Rooms that read a clock, and what for: nothing else may depend on the time."""


def test_only_some_rooms_read_a_clock(module: Path) -> None:
    if room_of(module) not in CLOCKS:
        assert packages(module).isdisjoint({"time", "datetime"})


CONSTANTS = {"os.pathsep", "str(path)", "os.fspath(path)", "name"}
"""Beside names in capitals, what errors may quote whole: what the caller named, and the attribute of a module."""


def test_values_in_errors_go_through_shown(module: Path) -> None:
    """A value of a caller's or a file's can be of any size, and can write over the terminal that it is printed on."""
    if room_of(module) in ("kernels", "restarts", "testing"):
        return
    quoted = [
        ast.unparse(node.value)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
    ]
    assert all(name in CONSTANTS or name.strip("_").isupper() for name in quoted), quoted


def test_only_one_room_opens_files(module: Path) -> None:
    if room_of(module) in ("decode", "files", "kernels", "cli"):
        return
    calls = [ast.unparse(node.func) for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    readers = ("open", "os.open", "np.fromfile", "np.memmap", "json.load", "yaml.load", "torch.load")
    opening = [call for call in calls if call in readers or call.endswith((".read_text", ".read_bytes", ".open"))]
    assert set(opening) <= {"archive.open"}, opening


def test_no_module_asserts_what_a_caller_may_get_wrong(module: Path) -> None:
    """An assert is for what the author believes; its test must not call for a message to a caller."""
    asserts = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Assert)]
    assert all(node.msg is None for node in asserts)


def test_every_module_says_in_its_first_line_what_it_is_about(module: Path) -> None:
    text = ast.get_docstring(tree_of(module))
    assert text, f"{module} has no docstring"
    assert text.splitlines()[0].endswith((".", ":")), f"the first line of {module} is no sentence"


MOST_ARGUMENTS = 8


def test_no_function_takes_more_than_eight_arguments_by_place(module: Path) -> None:
    """What is passed by name alone says what it is where it is passed; commands get theirs from typer, by name."""
    if room_of(module) in ("cli", "eplb") or module == Path("restarts/triton"):
        pytest.skip("options of commands, a published order, or sizes and strides of what is launched on a device")
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args) if each.arg not in ("self", "cls")]
            assert len(names) <= MOST_ARGUMENTS, f"{module}:{node.lineno} takes {len(names)}: {', '.join(names)}"
