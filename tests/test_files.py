from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise import files
from equipoise.errors import InvalidInputError
from equipoise.files import write_atomically


@pytest.mark.parametrize(("content", "expected"), [("ä\n", b"\xc3\xa4\n"), (b"\x00\r\n", b"\x00\r\n"), ("", b"")])
def test_text_and_bytes_arrive_unchanged_and_alone(tmp_path: Path, content: str | bytes, expected: bytes) -> None:
    write_atomically(tmp_path / "plan.json", content)
    assert (tmp_path / "plan.json").read_bytes() == expected
    assert os.listdir(tmp_path) == ["plan.json"]


def test_an_older_file_is_replaced_and_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    target.write_text("old and longer")
    target.chmod(0o640)
    write_atomically(str(target), "new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "plan.json", "{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "plan.json").stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", "{}")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "{}"


def test_a_relative_path_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically("plan.json", "{}")
    assert (tmp_path / "plan.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing/plan.json", "there is no folder .*missing. Create it first"),
        ("file/plan.json", "there is no folder .*file. Create it first"),
        ("folder", "it is a folder. Name a file inside it"),
        ("pipe", "it is not an ordinary file"),
        ("loop", "cannot be written"),
        ("a\0b", "cannot be written: .*null"),
        ("x" * 300, "cannot be written: file name too long"),
    ],
)
def test_a_target_that_cannot_be_a_file_gets_a_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InvalidInputError, match=sentence):
        write_atomically(tmp_path / name, "{}")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_refusal_at_any_step_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    target = tmp_path / "plan.json"
    target.write_text("old")
    monkeypatch.setattr(os, step, refuse)
    with pytest.raises(
        InvalidInputError, match=r"plan.json' cannot be written: permission denied. Nothing was changed"
    ):
        write_atomically(target, "new")
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "plan.json"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["plan.json"]


def save_in_a_process(target: Path, when_all_is_written: str) -> subprocess.Popen[str]:
    """Begin to save in another process, which runs some code before the file takes its name."""
    code = f"""
import os, signal, sys
from equipoise.files import write_atomically
def fsync(_):
    {when_all_is_written}
os.fsync = fsync
write_atomically(sys.argv[1], "from the process")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(target)], env=environment, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def leave_one(folder: Path) -> None:
    """Let a process be killed while it saves."""
    with save_in_a_process(folder / "plan.json", "os.kill(os.getpid(), signal.SIGKILL)") as process:
        assert process.wait() == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="nothing is locked there")
class TestLeftovers:
    """What is left beside by processes that were killed."""

    @pytest.mark.parametrize("name", ["plan.json", "other.json"])
    def test_the_next_save_removes_what_killed_ones_left_and_nothing_else(self, tmp_path: Path, name: str) -> None:
        leave_one(tmp_path)
        kept = [".equipoise-0123456789abcdef.json", ".equipoise-0123.tmp", "equipoise-0123456789abcdef.tmp", "x.tmp"]
        for other in kept:
            (tmp_path / other).write_text("mine")
        (tmp_path / ".equipoise-0123456789abcdef.tmp").mkdir()
        (tmp_path / ".equipoise-0123456789abcdee.tmp").symlink_to(tmp_path / "x.tmp")
        os.mkfifo(tmp_path / ".equipoise-0123456789abcded.tmp")
        assert len(os.listdir(tmp_path)) == 8
        write_atomically(tmp_path / name, "{}")
        odd = [f".equipoise-0123456789abcde{end}.tmp" for end in "def"]
        assert sorted(os.listdir(tmp_path)) == sorted([name, *kept, *odd])
        assert (tmp_path / "x.tmp").read_text() == "mine"

    def test_who_is_still_saving_is_not_disturbed(self, tmp_path: Path) -> None:
        leave_one(tmp_path)
        with save_in_a_process(tmp_path / "plan.json", "print('here', flush=True); sys.stdin.readline()") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            write_atomically(tmp_path / "plan.json", "mine")
            assert len(os.listdir(tmp_path)) == 2
            process.communicate("go on\n")
        assert process.returncode == 0
        assert os.listdir(tmp_path) == ["plan.json"]
        assert (tmp_path / "plan.json").read_text() == "from the process"

    def test_who_is_taken_for_dead_before_it_has_locked_its_file_begins_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        locks: list[int] = []

        def lock_late(descriptor: int) -> bool:
            locks.append(descriptor)
            if len(locks) < 3:
                (beside,) = tmp_path.iterdir()
                beside.unlink()
            return True

        monkeypatch.setattr(files, "_lock", lock_late)
        write_atomically(tmp_path / "plan.json", "{}")
        assert len(locks) == 3
        assert (tmp_path / "plan.json").read_text() == "{}"
        assert os.listdir(tmp_path) == ["plan.json"]

    @pytest.mark.parametrize(("age", "is_left"), [(0.0, True), (1e6, False)])
    def test_where_there_are_no_locks_only_what_is_old_is_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float, is_left: bool
    ) -> None:
        monkeypatch.setattr(files, "_lock", lambda _: None)
        left = tmp_path / ".equipoise-0123456789abcdef.tmp"
        left.write_text("half")
        os.utime(left, (left.stat().st_atime - age, left.stat().st_mtime - age))
        write_atomically(tmp_path / "plan.json", "{}")
        assert left.exists() == is_left


def test_a_folder_that_goes_away_is_a_refusal_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InvalidInputError, match=r"cannot be written: no such file or directory"):
        write_atomically(tmp_path / "plan.json", "{}")
    assert os.listdir(tmp_path) == []


def test_a_new_file_may_be_kept_from_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomically(tmp_path / "secret", "x", mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
