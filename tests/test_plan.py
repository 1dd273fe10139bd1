from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equipoise as eq
from equipoise.certificate import certify
from equipoise.errors import FileFormatError, InvalidInputError, MissingDependencyError
from equipoise.report import advise_slots
from equipoise.strategies import STRATEGIES
from equipoise.testing import random_problems
from quick import NAMES, solve

PROBLEM = eq.PlacementProblem(
    np.random.default_rng(0).gamma(0.5, size=(3, 8)), eq.Cluster(4, 3, num_nodes=2), num_expert_groups=4
)


@pytest.fixture(scope="module")
def plan() -> eq.Plan:
    return solve(PROBLEM)


@pytest.mark.parametrize("strategy", NAMES)
def test_a_saved_plan_comes_back_whole(strategy: str, tmp_path: Path) -> None:
    plan = solve(PROBLEM, strategy)
    plan.save(tmp_path / "plan.json")
    back = eq.Plan.load(tmp_path / "plan.json")
    assert back.to_json() == plan.to_json()
    assert back.summary() == plan.summary()
    assert back.placement == plan.placement
    assert back.provenance == plan.provenance
    assert back.certificate.gap.tolist() == plan.certificate.gap.tolist()


def test_the_same_plan_is_the_same_bytes(plan: eq.Plan) -> None:
    assert solve(PROBLEM).to_json() == plan.to_json()


def test_the_summary_names_what_a_reader_needs(plan: eq.Plan) -> None:
    summary = plan.summary()
    for words in ("3 layers x 8 experts", "12 slots on 4 ranks", "2 nodes", "4 expert groups", "balancedness", "gap"):
        assert words in summary


def test_the_summary_says_what_held_the_search_back() -> None:
    problem = eq.PlacementProblem([[1, 2, 1, 8]], eq.Cluster(2, 3))
    current = eq.solve(eq.PlacementProblem([[8, 2, 1, 1]], eq.Cluster(2, 3))).placement
    assert "held back" not in eq.solve(problem).summary()
    assert "held back     by the limit of 1 transfers in a layer" in (
        eq.solve(problem, current=current, max_transfers=1).summary()
    )
    assert "held back     by a search that was ended before it was done" in eq.solve(problem, stop_after=0).summary()


COARSE = eq.PlacementProblem([[9.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0] * 4], eq.Cluster(4, 1))


def test_the_summary_says_what_binds_in_how_many_layers_and_what_would_lift_it() -> None:
    summary = solve(COARSE, "joint-descent").summary()
    assert "the mean in 1 layer: beyond the gap there is nothing to gain" in summary
    assert "replication granularity in 1 layer: replicas come in whole slots; more redundant experts lift it" in summary


def test_the_summary_names_the_command_that_says_how_many_slots_reach_a_balancedness() -> None:
    plan = solve(COARSE, "joint-descent")
    command = "equipoise slots LOADS --ranks 4 says how many slots it takes"
    assert f"to reach      mean balancedness 0.99: {command}" in plan.summary()
    assert f"to reach      mean balancedness 0.8: {command}" in plan.summary(0.8)
    assert "to reach" not in plan.summary(0.5)


def test_a_summary_never_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = solve(COARSE, "joint-descent")
    for strategy in STRATEGIES.values():
        monkeypatch.setattr(strategy, "place", None)
    assert "to reach" in plan.summary()


def test_advice_on_slots_is_what_slots_for_finds() -> None:
    for target in (0.8, 0.99):
        found = eq.slots_for(COARSE, target).mean.found
        assert advise_slots(COARSE, target).startswith(f"{target} takes {found} slots, {found - 4} of them redundant")


def test_advice_on_slots_says_when_no_number_of_them_is_enough() -> None:
    load = np.array([[8.0, 8.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    problem = eq.PlacementProblem(load, eq.Cluster(4, 3, num_nodes=2), num_expert_groups=4)
    plan = solve(problem)
    assert "expert groups on nodes in 1 layer" in plan.summary()
    assert "--ranks 4 --nodes 2 --groups 4 says how many" in plan.summary()
    assert advise_slots(problem) == "0.99 cannot be reached with any number of slots: expert groups on nodes limit it."


def test_a_plan_without_tokens_has_nothing_that_binds() -> None:
    assert "nothing: no layer has tokens" in solve(eq.PlacementProblem(np.zeros((2, 4)), eq.Cluster(2, 3))).summary()


def test_a_plan_cut_off_anywhere_is_refused(plan: eq.Plan, tmp_path: Path) -> None:
    text = plan.to_json()
    path = tmp_path / "plan.json"
    for end in range(0, len(text), 97):
        path.write_text(text[:end])
        with pytest.raises(FileFormatError, match=r"plan\.json, line 1, .*ends before it is complete"):
            eq.Plan.load(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends before it is complete"),
        (b"[1, 2]", "is not a plan"),
        (b"{}", "is not a plan"),
        (b'{"format": "other"}', "is not a plan"),
        (b'{"format": "equipoise.plan", "version": 99}', "version 99"),
        (b'{"format": "equipoise.plan", "version": 1}', "has no key"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"[" * 200_000, "too deeply"),
    ],
)
def test_a_foreign_file_is_refused_with_its_name(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=rf"other\.json.*{says}"):
        eq.Plan.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="does not exist"):
        eq.Plan.load(tmp_path / "none.json")
    with pytest.raises(FileFormatError, match="cannot be read"):
        eq.Plan.load(tmp_path)


def edit(key: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def apply(data: dict[str, Any]) -> None:
        data[key] = change(data[key])

    return apply


def first_slot(value: Any) -> Callable[[list[list[Any]]], list[list[Any]]]:
    return lambda rows: [[value, *rows[0][1:]], *rows[1:]]


@pytest.mark.parametrize(
    "change",
    [
        edit("physical_to_logical", first_slot(99)),
        edit("physical_to_logical", first_slot(0.5)),
        edit("physical_to_logical", first_slot(None)),
        edit("physical_to_logical", lambda rows: [[0] * len(rows[0]), *rows[1:]]),
        edit("physical_to_logical", lambda rows: rows[:-1]),
        edit("physical_to_logical", lambda rows: [row[:-1] for row in rows]),
        edit("physical_to_logical", lambda rows: [rows[0][:-1], *rows[1:]]),
        edit("lower_bound", lambda bound: [2 * value for value in bound]),
        edit("lower_bound", lambda bound: bound[:-1]),
        edit("lower_bound", lambda bound: [float("nan")] * len(bound)),
        edit("bound", lambda bound: [["mean"]] * len(bound)),
        edit("max_rank_load", lambda largest: [float("inf")] * len(largest)),
        edit("mean_rank_load", lambda mean: [-1.0] * len(mean)),
        edit("mean_rank_load", lambda mean: [1e9] * len(mean)),
        edit("mean_rank_load", lambda mean: "many"),
        edit("cluster", lambda cluster: {**cluster, "num_ranks": 3}),
        edit("cluster", lambda cluster: {**cluster, "num_racks": 3}),
        edit("cluster", lambda cluster: None),
        edit("num_expert_groups", lambda groups: 3),
        edit("num_expert_groups", lambda groups: "four"),
        edit("num_logical_experts", lambda experts: experts + 1),
        edit("provenance", lambda how: {**how, "seed": "zero"}),
        edit("provenance", lambda how: {**how, "stages": ["restarts"]}),
        edit("provenance", lambda how: {**how, "stages": {"restarts": "many"}}),
        edit("provenance", lambda how: {**how, "colour": "blue"}),
        lambda data: data.pop("certificate", None) or data.pop("lower_bound"),
    ],
)
def test_an_edited_plan_that_contradicts_itself_is_refused(plan: eq.Plan, change, tmp_path: Path) -> None:
    data = json.loads(plan.to_json())
    change(data)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match=r"edited\.json"):
        eq.Plan.load(path)


def test_a_plan_that_cannot_be_written_leaves_the_old_file(plan: eq.Plan, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no folder"):
        plan.save(tmp_path / "missing" / "plan.json")
    with pytest.raises(InvalidInputError, match="it is a folder"):
        plan.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_saving_over_a_plan_keeps_its_permissions(plan: eq.Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    path.chmod(0o640)
    plan.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_plan_that_leaves_the_slots_of_a_lost_rank_empty_comes_back_whole(tmp_path: Path) -> None:
    problem = eq.PlacementProblem(np.random.default_rng(1).gamma(0.5, size=(3, 8)), eq.Cluster(4, 3))
    plan = eq.solve(problem, current=solve(problem).placement, lost_ranks=[1])
    assert (plan.placement.physical_to_logical < 0).any()
    plan.save(tmp_path / "plan.json")
    assert eq.Plan.load(tmp_path / "plan.json").placement == plan.placement


GROUPED = solve(PROBLEM)
OPEN = eq.solve(eq.PlacementProblem([[8, 2, 1, 1], [1, 2, 3, 4]], eq.Cluster(2, 3)), "plain-greedy")
"""Its second layer has a gap of a tenth: the busiest rank carries 5.5, the mean is 5."""


def forge(plan: eq.Plan, **changes: Any) -> str:
    return json.dumps({**json.loads(plan.to_json()), **changes})


FORGED = {
    "no bound": (forge(OPEN, lower_bound=[0, 0]), "lower_bound of 0.0 below its mean"),
    "a negative bound": (forge(OPEN, lower_bound=[-5, -5]), "lower_bound of -5.0 below its mean"),
    "a bound below the mean": (forge(OPEN, lower_bound=[0.1, 0.1]), "lower_bound of 0.1 below its mean"),
    "a bound just below the mean": (
        forge(OPEN, lower_bound=[6, 4.9999]),
        "layer 1 claims a lower_bound of 4.9999 below",
    ),
    "proved optimal by the mean": (forge(OPEN, lower_bound=[6, 5.5]), "lower_bound of 5.5 for the mean, which is 5.0"),
    "more than optimal": (forge(OPEN, lower_bound=[6, 9], bound=["mean", "company"]), "above its max_rank_load"),
    "a rank with more than there is": (forge(OPEN, max_rank_load=[6, 50]), "all ranks carry less together"),
    "a mean above the busiest rank": (forge(OPEN, mean_rank_load=[6, 7]), "above its max_rank_load"),
    "a negative mean": (forge(OPEN, mean_rank_load=[6, -5], lower_bound=[6, -5]), "negative mean_rank_load"),
    "no load and a busy rank": (forge(OPEN, mean_rank_load=[6, 0], lower_bound=[6, 0]), "carry less together"),
    "a bound by nothing": (forge(OPEN, bound=["mean", "faith"]), "must name one of 'mean'"),
    "a bound in letters": (forge(OPEN, bound="ab"), "are not of 2 layers"),
    "a load for truth": (forge(OPEN, lower_bound=[6, True]), "lower_bound holds True"),
    "loads of another layer": (forge(OPEN, lower_bound=[6, 5, 4]), "are not of 2 layers"),
    "truth among the slots": (
        forge(OPEN, physical_to_logical=[[True, False, 2, 3, 0, 0], [0, 1, 2, 3, 0, 0]]),
        "row 0 holds True",
    ),
    "an expert that is nowhere": (forge(OPEN, physical_to_logical=[[0, 1, 2, 0, 0, 1]] * 2), "no slot for expert 3"),
    "groups torn over nodes": (
        forge(GROUPED, physical_to_logical=[[0, 2, 4, 6, 1, 3, 5, 7, 0, 1, 2, 3]] * 3),
        "has group 0 on nodes 0 and 1",
    ),
    "groups unevenly on nodes": (
        forge(GROUPED, physical_to_logical=[[0, 1, 2, 3, 4, 5, 6, 7, 6, 7, 6, 7]] * 3),
        "expert group",
    ),
    "a true version": (forge(OPEN, version=True), "version True"),
    "a version of 1.0": (forge(OPEN, version=1.0), "version 1.0"),
    "a cluster with a rack": (
        forge(OPEN, cluster={"num_ranks": 2, "slots_per_rank": 3, "rack": 1}),
        "must be an object",
    ),
    "truth for ranks": (
        forge(OPEN, cluster={"num_ranks": True, "slots_per_rank": 6, "num_nodes": 1}),
        "num_ranks is True",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_plan_is_refused(name: str) -> None:
    text, says = FORGED[name]
    with pytest.raises(FileFormatError, match=says):
        eq.Plan.from_json(text, "forged.json")


def test_what_cannot_be_known_without_the_load_is_found_with_it() -> None:
    """A bound that is said to be of a kind that needs the load passes, and certify proves what can be proved."""
    forged = eq.Plan.from_json(forge(OPEN, lower_bound=[6, 5.5], bound=["mean", "threshold"]))
    assert forged.certificate.max_gap == 0
    problem = eq.PlacementProblem([[8, 2, 1, 1], [1, 2, 3, 4]], eq.Cluster(2, 3))
    assert forged.provenance.problem_digest == problem.digest
    assert certify(problem, forged.placement).max_gap > 0


def test_every_plan_that_is_made_is_read_back() -> None:
    for seed, problem in enumerate(random_problems(40, seed=5, num_layers=4)):
        plans = [solve(problem, name) for name in NAMES]
        current, spare = plans[0].placement, problem.cluster.num_slots - problem.cluster.slots_per_rank
        plans.append(eq.solve(problem, current=current, threads=1))
        for limits in ({"max_transfers": 1}, {"max_transfers_total": 2}):
            plans.append(eq.solve(problem, current=plans[-1].placement, threads=1, **limits))
        if spare >= problem.num_logical_experts:
            with suppress(eq.EquipoiseError):  # a node may be too small for its groups then
                lost = [seed % problem.cluster.num_ranks]
                plans.append(eq.solve(problem, current=current, lost_ranks=lost, threads=1))
        for plan in plans:
            back = eq.Plan.from_json(plan.to_json())
            assert back.to_json() == plan.to_json()
            assert back.summary()


def test_a_plan_is_short_as_text_and_a_table_in_a_notebook() -> None:
    plan = eq.solve(eq.PlacementProblem(np.arange(1.0, 33.0).reshape(2, 16), eq.Cluster(2, 9)), "plain-greedy")
    assert repr(plan).startswith("<Plan: 2 layers x 16 experts -> 18 slots on 2 ranks, mean balancedness ")
    assert len(repr(plan)) < 150
    html = plan._repr_html_()
    assert html.count("<tr>") == len(plan.summary().splitlines())
    assert "x 16 experts -&gt; 18 slots" in html


def test_a_plan_becomes_a_data_frame_with_a_row_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = eq.solve(eq.PlacementProblem(np.arange(1.0, 33.0).reshape(2, 16), eq.Cluster(2, 9)), "plain-greedy")
    plan = plan.named((3, 5))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        plan.to_pandas()
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    frame = plan.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["layer"].tolist() == [3, 5]
    assert frame["balancedness"].tolist() == plan.metrics.balancedness.tolist()
