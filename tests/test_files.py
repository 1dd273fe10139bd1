from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

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
