"""The README's examples and what they print. Run this file to write what they print now into the README."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TIME = re.compile(r" *\d[\d.]* (?:ms|s)\b")


@dataclass(frozen=True)
class Example:
    """A command or a Python block, and the output that the README shows for it."""

    source: str
    shown: str
    printed: str


def examples(text: str) -> Iterator[Example]:
    """Run the README's blocks in order, Python ones in one namespace, and yield those that print."""
    namespace: dict[str, Any] = {}
    waiting = None
    for kind, body in _BLOCK.findall(text):
        if kind == "python":
            waiting = body, _printed_by_python(body, namespace)
        elif kind == "text" and waiting is not None:
            yield Example(waiting[0], body, waiting[1])
            waiting = None
        elif kind == "console":
            command, _, shown = body.removeprefix("$ ").partition("\n")
            yield Example(command, shown, _printed_by_command(command))


def comparable(output: str) -> str:
    """Return ``output`` without what may differ from run to run: times, and spaces at line ends."""
    return "\n".join(_TIME.sub(" TIME", line).rstrip() for line in output.strip().splitlines())


def _printed_by_python(body: str, namespace: dict[str, Any]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        exec(compile(body, str(README), "exec"), namespace)
    return stream.getvalue()


def _printed_by_command(command: str) -> str:
    from typer.testing import CliRunner

    from equipoise.cli.app import app

    name, *arguments = shlex.split(command)
    assert name == "equipoise"
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.stdout


def main() -> None:
    """Rewrite the outputs in the README."""
    text = README.read_text(encoding="utf-8")
    for example in examples(text):
        printed = "\n".join(line.rstrip() for line in example.printed.strip().splitlines()) + "\n"
        if comparable(example.shown) != comparable(printed):
            if "\n" in example.source:
                start = text.index("```text\n", text.index(example.source)) + len("```text\n")
            else:
                start = text.index(f"```console\n$ {example.source}\n") + len(f"```console\n$ {example.source}\n")
            text = text[:start] + printed + text[start + len(example.shown) :]
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(README.parent / "src"))
    os.chdir(tempfile.mkdtemp())
    main()
