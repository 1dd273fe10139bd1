from __future__ import annotations

import importlib.metadata
import json

import numba
import numpy
import pytest

import equipoise
from equipoise.backends import BACKENDS, choose_backend


def report_of(run) -> dict:
    result = run("doctor", "--json")
    assert result.exit_code == 0
    return json.loads(result.stdout)


def test_versions_are_those_that_are_installed(run) -> None:
    report = report_of(run)
    assert report["equipoise"] == equipoise.__version__
    assert report["versions"]["numpy"] == numpy.__version__
    assert report["versions"]["numba"] == numba.__version__


def test_auto_takes_what_the_library_takes_and_says_why(run) -> None:
    auto = report_of(run)["auto"]["cpu"]
    assert auto["takes"] == choose_backend("auto").name
    assert "fastest" in auto["because"]
    assert all(name in auto["because"] for name in BACKENDS if name != auto["takes"])


def test_every_backend_is_listed_with_what_it_needs(run) -> None:
    assert [row["name"] for row in report_of(run)["backends"]] == list(BACKENDS)


def test_the_kernel_cache_is_looked_at(run) -> None:
    cache = report_of(run)["kernel_cache"]
    assert cache["writable"] or cache["reason"]


def test_the_page_for_people_has_it_all(run) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    for words in ("equipoise", "python", "numpy", "torch", "processors", "device", "kernel cache", "auto on cpu"):
        assert words in result.stdout


def test_a_missing_package_is_a_line_with_what_to_install(run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.metadata.version

    def version(package: str) -> str:
        if package == "torch":
            raise importlib.metadata.PackageNotFoundError(package)
        return found(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "not installed (optional, for tensors and devices: pip install equipoise[torch])" in run("doctor").stdout


def test_a_torch_that_cannot_be_imported_is_reported_and_no_reason_to_fail(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert "ImportError" in report_of(run)["torch_trouble"] or "ModuleNotFoundError" in report_of(run)["torch_trouble"]
