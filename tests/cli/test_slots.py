from __future__ import annotations

import json
from pathlib import Path

import pytest

import equipoise as eq
from equipoise.cli.slots import _spell
from equipoise.load import read_load
from equipoise.report import _numbers
from real_loads import real_load


def test_the_answer_is_that_of_the_library(run, loads: Path) -> None:
    report = json.loads(run("slots", loads, "--ranks", 8, "--balancedness", 0.95, "--json").stdout)
    capacity = eq.slots_for(eq.PlacementProblem(read_load(loads), eq.Cluster(8, 2)), 0.95)
    assert report["mean"]["found"] == capacity.mean.found
    assert report["worst"]["impossible"] == list(capacity.worst.impossible)
    assert [point["num_slots"] for point in report["points"]] == [point.num_slots for point in capacity.points]
    assert [point["mean_limit"] for point in report["points"]] == [point.mean_limit for point in capacity.points]


def test_the_table_has_a_row_and_a_bar_for_each_number_of_slots(run, loads: Path) -> None:
    result = run("slots", loads, "--ranks", 8)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line for line in result.stdout.splitlines() if "█" in line]
    assert [row.split()[0] for row in rows][:3] == ["16", "24", "32"]
    assert all(len(line) <= 80 for line in rows)
    assert "no tokens       in layer 1" in result.stdout


def test_what_expert_groups_prevent_is_called_impossible(run, loads: Path) -> None:
    result = run("slots", loads, "--ranks", 4, "--nodes", 4, "--groups", 4, "--balancedness", 1)
    assert result.exit_code == 0
    assert "every layer     1 cannot be reached with any number of slots: expert groups" in result.stdout


def test_what_is_not_known_is_called_undecided(run, loads: Path) -> None:
    result = run("slots", loads, "--ranks", 4, "--balancedness", 1, "--most-slots", 24)
    assert "1 was not found with up to 24 slots" in result.stdout
    assert "undecided" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--balancedness", 0), "--balancedness is 0.0"),
        (("--balancedness", 1.5), "--balancedness is 1.5"),
        (("--balancedness", "nan"), "--balancedness is nan"),
        (("--most-slots", 12), "--most-slots is 12, and 16 logical experts on 4 ranks need at least 16"),
        (("--nodes", 3), "4 ranks do not spread evenly over 3 nodes"),
        (("--strategy", "magic"), "strategy is 'magic'"),
        (("--set", "effort=extreme"), "effort is 'extreme'"),
    ],
)
def test_a_wrong_option_gets_one_sentence(run, loads: Path, arguments: tuple[object, ...], says: str) -> None:
    result = run("slots", loads, "--ranks", 4, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


def test_ranks_below_one_are_refused(run, loads: Path) -> None:
    assert "--ranks is 0" in run("slots", loads, "--ranks", 0).stderr


def test_no_rounding_claims_more_than_is_known() -> None:
    assert _spell(0.99999) == "0.9999"
    assert _spell(0.98765, up=True) == "0.9877"
    assert (_spell(1.0), _spell(1.0, up=True)) == ("1.0000", "1.0000")
    assert (_spell(0.9876), _spell(0.9876, up=True)) == ("0.9876", "0.9876")


def test_few_numbers_are_listed_and_many_counted() -> None:
    assert _numbers((8, 12, 16)) == "8, 12 and 16"
    assert _numbers((8, 12, 16, 20, 28)) == "5 sizes from 8 to 28"


def test_recorded_loads_need_three_slots_a_rank_on_144_ranks(run) -> None:
    path = real_load("deepseek_v3_decode_in1000out1000.json")
    result = run("slots", path, "--ranks", 144, "--balancedness", 0.99)
    assert "0.99 takes 432 slots, 176 of them redundant; 288 proved too few." in result.stdout
