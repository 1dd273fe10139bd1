"""Real routing statistics, which the project does not ship: found beside the checkout, or skipped with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_NAMED = os.environ.get("EQUIPOISE_SHARED_DATA")
_FOLDERS = [Path(_NAMED)] if _NAMED else [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]


def real_load(name: str) -> Path:
    """Return the path of a file of real loads, or skip the test that asks for it."""
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(
        f"{name} is not there, so nothing is checked on real routing. "
        "Set EQUIPOISE_SHARED_DATA to the folder that has it."
    )
