"""Compiled code is kept on disk, found again only if it is whole and nobody else could have written it, and not needed.

That code is found again at all is also what fails first where a new numba keeps its cache in another way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest

import equipoise
from equipoise.errors import InvalidInputError
from equipoise.kernels import cache, cache_folders
from equipoise.kernels.native import native

if numba.config.DISABLE_JIT:
    pytest.skip("nothing is compiled", allow_module_level=True)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder that NUMBA_CACHE_DIR names, in a process that has not warned yet."""
    (tmp_path / "sources").mkdir()
    monkeypatch.setattr(cache, "_has_warned", False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))
    cache_folders.choose_folders.cache_clear()
    yield tmp_path / "kept"
    cache_folders.choose_folders.cache_clear()


def made(kept: Path, function: str = "lambda n: 2 * n") -> Any:
    """Return a kernel whose sources lie beside the folder."""
    return native(eval(compile(function, str(kept.parent / "sources" / "doubling.py"), "eval")))


def call(kept: Path) -> tuple[int, list[str]]:
    """Call a kernel as a fresh process would; return how often its code was found, and what was warned of."""
    compiled = made(kept)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert compiled(21) == 42
    assert all(warning.category is RuntimeWarning for warning in caught)
    return sum(compiled.stats.cache_hits.values()), [str(warning.message) for warning in caught]


def the_file(folder: Path) -> Path:
    (file,) = folder.rglob("*.nbc")
    return file


def test_code_that_was_compiled_is_found_again(kept: Path) -> None:
    assert call(kept) == (0, [])
    assert call(kept) == (1, [])
    assert the_file(kept).parent == kept / "equipoise"


def truncate(file: Path) -> None:
    os.truncate(file, 100)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def write_noise(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 50)


def put_another(file: Path) -> None:
    made(file.parent.parent, "lambda n: -n")(1)
    (other,) = (path for path in file.parent.iterdir() if path != file)
    other.replace(file)


def let_others_write(file: Path) -> None:
    file.chmod(0o666)


def put_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def put_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("damage", "heals"),
    [(truncate, True), (empty, True), (flip_a_bit, True), (write_noise, True), (put_another, True),
     (let_others_write, True), (put_a_folder, False), (put_a_pipe, True)],
)  # fmt: skip
def test_a_file_that_is_damaged_or_not_ours_is_not_run_and_one_warning_says_so(kept: Path, damage, heals) -> None:
    call(kept)
    damage(the_file(kept))
    hits, told = call(kept)
    assert hits == 0
    assert len(told) == 1
    assert "equipoise" in told[0]
    assert "Planning goes on" in told[0]
    assert call(kept) == (heals, [])  # once in a process


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_not_run(kept: Path) -> None:
    call(kept)
    os.chown(the_file(kept), 12345, -1)
    hits, (told,) = call(kept)
    assert hits == 0
    assert "belongs to another user, number 12345" in told
    cache._has_warned = False
    os.chown(kept, 12345, -1)
    cache_folders.choose_folders.cache_clear()
    hits, (told,) = call(kept)
    assert hits == 0
    assert f"{kept} belongs to another user" in told


@pytest.mark.parametrize(
    ("folder", "mode", "is_used"),
    [("kept", 0o755, True), ("kept", 0o777, False), ("kept", 0o1777, True), ("kept/equipoise", 0o777, False),
     ("kept/equipoise", 0o1777, False), ("kept/equipoise", 0o775, False), (".", 0o777, False)],
)  # fmt: skip
def test_a_folder_that_others_can_write_is_not_used_and_one_warning_says_so(
    kept: Path, monkeypatch: pytest.MonkeyPatch, folder: str, mode: int, is_used: bool
) -> None:
    monkeypatch.setattr(cache_folders, "_is_private", lambda group, owner: False)
    call(kept)
    (kept.parent / folder).chmod(mode)
    cache_folders.choose_folders.cache_clear()
    hits, told = call(kept)
    assert hits == is_used
    assert len(told) == (not is_used)
    assert is_used or "others can write to" in told[0]
    (kept.parent / folder).chmod(0o755)


def test_a_folder_that_only_its_owners_own_group_can_write_is_used(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_folders, "_is_private", lambda group, owner: True)
    call(kept)
    (kept / "equipoise").chmod(0o775)
    cache_folders.choose_folders.cache_clear()
    assert call(kept) == (1, [])


def test_a_file_in_place_of_the_folder_is_said_once_and_the_next_folder_serves(kept: Path) -> None:
    kept.write_text("mine")
    hits, (told,) = call(kept)
    assert hits == 0
    assert f"{kept}/equipoise is not used" in told
    assert call(kept) == (1, [])
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("named", "sentence"), [("kept", "/kept/equipoise is not used: "), ("", "name one with NUMBA_CACHE_DIR")]
)
def test_where_neither_a_folder_nor_a_home_can_be_had_nothing_is_kept(
    kept: Path, monkeypatch: pytest.MonkeyPatch, named: str, sentence: str
) -> None:
    kept.symlink_to(kept)
    monkeypatch.setattr(numba.config, "CACHE_DIR", named and str(kept))
    monkeypatch.setattr(cache_folders, "USERS_OWN", {sys.platform: ("", "~nobody-has-this-name/.cache")})
    (kept.parent / "sources").rmdir()
    hits, (told,) = call(kept)
    assert hits == 0
    assert sentence in told


def test_a_full_disk_is_said_once_and_no_reason_to_fail(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path, data, mode):
        raise InvalidInputError(f"{path} cannot be written: no space left on device. Nothing was changed.")

    monkeypatch.setattr(cache_folders, "write_atomically", refuse)
    hits, (told,) = call(kept)
    assert hits == 0
    assert "no space left on device" in told
    assert call(kept) == (0, [])


def test_where_warnings_are_errors_the_plan_is_made_all_the_same(kept: Path) -> None:
    call(kept)
    truncate(the_file(kept))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(kept)(21) == 42


def test_what_has_no_fingerprint_is_compiled_and_not_kept(kept: Path) -> None:
    compiled = made(kept, "lambda text: len(text)")
    with pytest.warns(RuntimeWarning, match="has no fingerprint"):
        assert compiled("four") == 4
    assert not list(kept.rglob("*.nbc"))


@pytest.mark.parametrize("otherwise", [{}, {"_cache": object()}])
def test_where_numba_keeps_its_cache_elsewhere_nothing_is_kept(kept: Path, otherwise: dict[str, object]) -> None:
    compiled = type("Dispatcher", (), {"py_func": len, **otherwise})()
    with pytest.warns(RuntimeWarning, match="does not know how to keep what numba"):
        cache.keep(compiled)
    assert vars(compiled) == {}


def test_code_compiled_with_bounds_checks_is_not_taken_for_code_without(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 0)
    call(kept)
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", 1)
    assert call(kept) == (0, [])


PLAN = """
import gc
import equipoise as eq
eq.solve(eq.PlacementProblem([[4, 2, 1, 1]], eq.Cluster(2, 3)), "plain-greedy")
from numba.core.dispatcher import Dispatcher
for kernel in gc.get_objects():
    if isinstance(kernel, Dispatcher) and kernel.py_func.__module__.startswith("equipoise"):
        name = f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}".removeprefix("equipoise.kernels.")
        if kernel.stats.cache_misses:
            print(name, "compiled")
        elif kernel.stats.cache_hits:
            print(name, "loaded")
"""


def plan_with(package: Path) -> dict[str, str]:
    """Plan with a copy of the package in a fresh process; return which kernels were compiled, and which loaded."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package.parent), *sys.path]),
                   "NUMBA_CACHE_DIR": str(package.parent / "kept")}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PLAN], env=environment, capture_output=True, text=True, check=True, cwd=package.parent
    )
    assert all(line.startswith("compiling kernels for ") for line in done.stderr.splitlines()), done.stderr
    return dict(line.split() for line in done.stdout.splitlines())


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow
def test_after_a_change_what_depends_on_it_is_compiled_and_all_else_is_found(tmp_path: Path) -> None:
    package = tmp_path / "equipoise"
    shutil.copytree(Path(equipoise.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    first = plan_with(package)
    assert len(first) > 4
    assert set(first.values()) == {"compiled"}
    again = plan_with(package)
    assert set(again.values()) == {"loaded"}
    edit(package / "kernels/recount/__init__.py", "TORN, UNEVEN = 1, 2, 4, 8, 16", "TORN, UNEVEN = 1, 2, 4, 16, 8")
    changed = {"recount.numba._recount": "compiled", "recount.numba._look_at_groups": "compiled"}
    assert plan_with(package) == {**again, **changed}
    edit(package / "kernels/replication/numba.py", "child = 2 * at + 1", "child = at + at + 1")
    changed = {"replication.numba._replicate": "compiled", "replication.numba._sift": "compiled"}
    assert plan_with(package) == {**again, **changed}
    edit(package / "kernels/replication/numba.py", "child = at + at + 1", "child = 2 * at + 1  # as it was")
    assert plan_with(package) == again
