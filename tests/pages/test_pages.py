"""Pages in a real browser: they open, nothing complains, every picture has a name and a text, and numbers agree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import equipoise as eq
from equipoise.pages import charts, html
from equipoise.pages.pictures import COLOURS
from equipoise.traces.page import fragment, knee_of, page

pytest.importorskip("matplotlib", reason="matplotlib draws the pictures: pip install 'equipoise[report]'")

WINDOWS = np.random.default_rng(1).poisson(30 * np.random.default_rng(0).gamma(0.7, 1.0, (12, 3, 16)))
MODEL = eq.LatencyModel(20, 12, 4, 0.06)


@pytest.fixture(scope="module")
def found() -> eq.Replay:
    return eq.replay(
        WINDOWS, eq.Cluster(4, 5), slots=[16, 20], every=[1, 3], max_transfers=[None, 1], dispatch="vllm",
        latency=MODEL, bytes_per_expert=1000,
    )  # fmt: skip


class Parts(HTMLParser):
    """What stands in a page: pictures and their names, scripts, and whatever points elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures, self.captions, self.scripts, self.links, self.cells = [], [], 0, [], []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.scripts += tag == "script" or any(name.startswith("on") for name in found)
        if tag == "svg":
            self.pictures.append(found)
        self.links += [value for name, value in found.items() if name in ("src", "href", "xlink:href") and value]
        self._inside = tag
        if tag == "figcaption":
            self.captions.append("")
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._inside == "td" and self.cells:
            self.cells[-1] += data
        elif self.captions:
            self.captions[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._inside = ""


def test_a_page_is_one_small_file_without_scripts_that_points_nowhere(found: eq.Replay) -> None:
    text = page(found)
    parts = Parts(text)
    assert len(text) < 3_000_000
    assert parts.scripts == 0
    assert all(link.startswith(("#", "data:")) for link in parts.links)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)


def test_every_picture_has_a_name_and_a_text(found: eq.Replay) -> None:
    parts = Parts(page(found))
    assert len(parts.pictures) == len(parts.captions) >= 7
    for picture, caption in zip(parts.pictures, parts.captions, strict=True):
        assert picture["role"] == "img"
        assert len(picture["aria-label"]) > 10
        assert picture["aria-label"] in caption
        assert len(caption) > len(picture["aria-label"]) + 10
    names = [picture["aria-label"] for picture in parts.pictures]
    assert len(set(names)) == len(names)


def test_the_numbers_of_the_page_are_those_of_json(found: eq.Replay) -> None:
    cells = Parts(page(found)).cells
    for row in json.loads(found.to_json())["rows"]:
        assert f"{row['balancedness_mean']:.4f}" in cells
        assert f"{row['realised_mean']:.4f}" in cells
        assert f"{row['net_microseconds']:,.1f}" in cells


def test_the_same_replay_is_the_same_page(found: eq.Replay) -> None:
    assert page(found) == page(found)


def test_colours_are_the_pages_own(found: eq.Replay) -> None:
    text = page(found)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    inside = "".join(re.findall(r"<svg .*?</svg>", text, re.DOTALL))
    assert "var(--ink)" in inside
    assert not [colour for colour in COLOURS.values() if colour in inside]


def test_what_strangers_name_is_escaped() -> None:
    trace = eq.Trace(WINDOWS, source="<script>alert(1)</script>")
    found = eq.replay(trace, eq.Cluster(4, 5), planners=["none"])
    assert "<script" not in page(found)
    assert "<script" not in fragment(found)


def test_a_notebook_shows_a_replay_without_pictures(found: eq.Replay) -> None:
    text = found._repr_html_()
    assert "<table>" in text
    assert "<svg" not in text


def test_the_knee_is_where_more_begins_to_buy_little() -> None:
    assert knee_of([0, 10, 100], [0.5, 0.9, 1.0]) == 1
    assert knee_of([0, 10, 100], [50.0, 30.0, 40.0], falling=True) == 1
    assert knee_of([3], [0.5]) == 0


def test_a_picture_is_the_same_bytes_each_time() -> None:
    one, two = (charts.lines({"a": ([0, 1], [1, 2])}, "x", "y") for _ in range(2))
    assert one == two
    assert html.figure(html.Figure("a & b", "c < d", one)).count("a &amp; b") == 2


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here: whether pages open without complaint is not tested (apt-get install chromium)")
    return found


@pytest.mark.parametrize("size", ["1000,2000", "390,2000"])
def test_a_page_opens_in_chromium_without_complaint(found: eq.Replay, size: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(found), encoding="utf-8")
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size}", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('role="img"') == len(Parts(page(found)).pictures)
    assert len(Parts(done.stdout).cells) == len(Parts(page(found)).cells)
