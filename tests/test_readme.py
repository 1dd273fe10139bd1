from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

from readme import README, comparable, examples


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples write files; and their output must not depend on the terminal of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE", "FORCE_TERMINAL"):
        monkeypatch.delenv(name, raising=False)


def test_what_the_readme_shows_is_what_is_printed_apart_from_times() -> None:
    ran = list(examples(README.read_text(encoding="utf-8")))
    assert len(ran) >= 2
    for example in ran:
        assert comparable(example.printed) == comparable(example.shown), (
            f"the README shows something else for:\n{example.source}\npython tests/readme.py writes what is printed."
        )


def test_commands_in_the_readme_exist_with_the_options_shown() -> None:
    from typer.main import get_command

    from equipoise.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    shell = "".join(re.findall(r"^```sh\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    lines = re.findall(r"^equipoise (\w+)(.*?)(?:#.*)?$", shell, re.MULTILINE)
    assert len(lines) >= 5
    for name, rest in lines:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= known


def test_the_bounds_in_the_readme_exist_with_the_words_shown() -> None:
    from equipoise.bounds import BOUNDS

    text = README.read_text(encoding="utf-8")
    section = text[text.index("## What a certificate says") : text.index("## Same input, same plan")]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)
    assert len(rows) >= 5
    for name, argument in rows:
        assert BOUNDS[name].argument == argument.replace("\\*", "*")


def test_links_in_the_readme_lead_somewhere_from_any_page_that_shows_it() -> None:
    """They are whole addresses, since a package index shows the README without the files beside it."""
    text = README.read_text(encoding="utf-8")
    assert not re.findall(r"\]\(([^)#:]+)\)", text), "links to files beside the README lead nowhere elsewhere"
    project = tomllib.loads((README.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", text, re.MULTILINE))
    used = {" ".join(name.split()) for name in re.findall(r"\]\[([^\]]+)\]", text)}
    assert used - {"slots"} == set(targets)  # [layers][slots] is a shape
    for name, target in targets.items():
        assert target == f"{project['urls']['Homepage']}/blob/main/{name}"
        assert (README.parent / name).exists(), name
