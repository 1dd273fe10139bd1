"""What the pages in docs/ show in Python runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import notebook
from equipoise.online import Counters

DOCS = Path(__file__).resolve().parents[1] / "docs"
EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(DOCS)}-{number}")
    for page in sorted(DOCS.rglob("*.md"))
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples write files."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("code", EXAMPLES)
def test_an_example_of_the_docs_runs(code: str) -> None:
    names: dict[str, object] = {}
    exec(compile(code, "example", "exec"), names)
    assert "eq" in names


def test_the_notebook_shows_what_its_cells_print() -> None:
    saved = notebook.read()
    assert notebook.executed(saved) == saved, "python tests/notebook.py writes what is printed now"


def test_the_dashboard_shows_every_gauge_and_no_other() -> None:
    dashboard = (DOCS / "grafana.json").read_text(encoding="utf-8")
    known = {f"equipoise_{field.name}" for field in dataclasses.fields(Counters) if field.name != "name"}
    assert set(re.findall(r"equipoise_\w+", dashboard)) == known


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_in_the_pages_exist_with_the_options_shown() -> None:
    from typer.main import get_command

    from equipoise.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    seen = 0
    for page in ("index", "tutorial", "how-to", "loads", "faq"):
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        for name, rest in re.findall(r"^(?:RUN .*&& )?equipoise (\w+)(.*?)(?:#.*)?$", text, re.MULTILINE):
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert set(re.findall(r"--[\w-]+", rest)) <= known, (page, name, rest)
            seen += 1
    assert seen >= 10
