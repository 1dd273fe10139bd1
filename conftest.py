"""What is collected: everything, but for the files written in a package that is not installed."""

from __future__ import annotations

import importlib.util

import pytest

RESTARTS = "src/equipoise/restarts"
WRITTEN_IN = {
    "torch": [f"{RESTARTS}/{name}.py" for name in ("counter_torch", "tensors", "torch", "triton")],
    "triton": [f"{RESTARTS}/triton.py"],
}
"""By package, the files that import it when they are imported; an error in any other file fails the run."""

MISSED = {package: files for package, files in WRITTEN_IN.items() if importlib.util.find_spec(package) is None}
collect_ignore = [file for files in MISSED.values() for file in files]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not looked at."""
    for package, files in MISSED.items():
        terminalreporter.write_line(f"{package} is not installed, so these were not collected: {', '.join(files)}")
