"""A replay against programs that share nothing with it: plain loops over windows."""

from __future__ import annotations

import json

import numpy as np
import pytest

import equipoise as eq
from equipoise.errors import InfeasibleError, InvalidInputError, UnknownNameError
from equipoise.how import How
from equipoise.traces.planners import PARAMETERS, planner_names

CLUSTER = eq.Cluster(num_ranks=4, slots_per_rank=5)
LAYERS, EXPERTS = 3, 16


def drifting(steps: int = 24, seed: int = 0) -> np.ndarray:
    """Return loads whose hot experts change now and then."""
    draw = np.random.default_rng(seed)
    heat = draw.gamma(0.7, 1.0, (LAYERS, EXPERTS))
    found = []
    for _ in range(steps):
        heat = heat * np.exp(0.2 * draw.standard_normal(heat.shape))
        found.append(draw.poisson(200 * heat / heat.sum(axis=1, keepdims=True)))
    return np.array(found)


def placed(load: np.ndarray, strategy: str, cluster: eq.Cluster = CLUSTER) -> np.ndarray:
    how = How.of(strategy, threads=1, **PARAMETERS.get(strategy, {}))
    return how.place(eq.PlacementProblem(load, cluster))[1].physical_to_logical


def plain_balancedness(table: np.ndarray, load: np.ndarray, ranks: int) -> float:
    """Return the mean over layers of mean / max rank load, slot by slot."""
    ratios = []
    for row, tokens in zip(table.tolist(), load.tolist(), strict=True):
        rank_load = [0.0] * ranks
        for slot, expert in enumerate(row):
            rank_load[slot * ranks // len(row)] += tokens[expert] / row.count(expert)
        ratios.append(sum(rank_load) / ranks / max(rank_load) if max(rank_load) else 1.0)
    return sum(ratios) / len(ratios)


def plain_replay(windows: np.ndarray, strategy: str, every: int, history: int | None = None) -> list[float]:
    """Return the balancedness of windows 1 to the last, planned from those before."""
    since, table, found = 0, np.tile(np.arange(CLUSTER.num_slots) % EXPERTS, (LAYERS, 1)), []
    for t in range(1, len(windows)):
        if (t - 1) % every == 0:
            past = windows[since:t] if history is None else windows[max(0, t - history) : t]
            table, since = placed(past.sum(axis=0).astype(float), strategy), t
        found.append(plain_balancedness(table, windows[t], CLUSTER.num_ranks))
    return found


@pytest.mark.parametrize("strategy", ["plain-greedy", "joint-descent"])
@pytest.mark.parametrize(("every", "history"), [(1, None), (4, None), (3, 5)])
def test_numbers_are_those_of_plain_loops(strategy: str, every: int, history: int | None) -> None:
    windows = drifting()
    found = eq.replay(windows, CLUSTER, planners=[strategy], every=every, history=history)
    expected = plain_replay(windows, strategy, every, history)
    (row,) = found.rows
    assert found.windows_scored == len(expected) == 23
    assert row.balancedness_mean == pytest.approx(np.mean(expected), abs=1e-12)
    assert row.balancedness_p10 == pytest.approx(np.quantile(expected, 0.1), abs=1e-12)
    assert row.balancedness_worst == pytest.approx(min(expected), abs=1e-12)
    assert row.balancedness_error == pytest.approx(np.std(expected, ddof=1) / len(expected) ** 0.5, abs=1e-12)


def test_none_is_experts_in_order_and_first_window_is_one_plan() -> None:
    windows = drifting()
    found = {row.planner: row for row in eq.replay(windows, CLUSTER, planners=["none", "first-window"]).rows}
    in_order = np.tile(np.arange(20) % EXPERTS, (LAYERS, 1))
    first = placed(windows[0].astype(float), "joint-descent")
    for name, table in (("none", in_order), ("first-window", first)):
        expected = np.mean([plain_balancedness(table, load, 4) for load in windows[1:]])
        assert found[name].balancedness_mean == pytest.approx(expected, abs=1e-12)
        assert found[name].transfers_per_window == 0


def test_the_oracle_is_above_every_planner_in_every_window() -> None:
    found = eq.replay(
        drifting(), CLUSTER, every=[1, 4], max_transfers=[None, 2], slots=[16, 20], dispatch="vllm", planners=(
            "none", "first-window", "plain-greedy", "joint-descent", "oracle"
        ),
    )  # fmt: skip
    ceiling = {setting.slots: series for setting, series in found.series.items() if setting.planner == "oracle"}
    realised = {row.slots: row.realised_mean for row in found.rows if row.planner == "oracle"}
    for setting, series in found.series.items():
        assert (series.balancedness <= ceiling[setting.slots].balancedness).all()
    for row in found.rows:
        assert row.balancedness_mean <= found.ceilings[row.slots]["oracle"] <= 1
        assert row.realised_mean <= realised[row.slots]
    assert len(found.rows) == 5 * 2 * 2 * 2


def test_transfers_are_counted_from_what_was_in_force_and_limits_hold() -> None:
    windows = drifting()
    found = eq.replay(windows, CLUSTER, planners=["plain-greedy"], every=2, max_transfers=[None, 0, 1])
    held = eq.Placement.in_order(LAYERS, CLUSTER, EXPERTS)
    total, since = 0, 0
    for t in range(1, len(windows), 2):
        problem = eq.PlacementProblem(windows[since:t], CLUSTER)
        plan = eq.solve(problem, "plain-greedy", current=held)
        total += int(eq.count_transfers(held, plan).sum())
        held, since = plan.placement, t
    free, none, one = found.rows
    assert free.transfers_per_window == pytest.approx(total / 23, abs=1e-12)
    assert none.transfers_per_window == 0
    assert 0 < one.transfers_per_window <= LAYERS * 12 / 23


def test_moving_costs_the_bytes_and_seconds_of_its_schedule() -> None:
    windows = drifting(3)
    links = eq.LinkSpeeds(node=1e9, remote=1e8)
    found = eq.replay(windows, CLUSTER, planners=["plain-greedy"], bytes_per_expert=1000, links=links).rows[0]
    held, transfers, seconds = eq.Placement.in_order(LAYERS, CLUSTER, EXPERTS), 0, 0.0
    for t in (1, 2):
        plan = eq.solve(eq.PlacementProblem(windows[t - 1], CLUSTER), "plain-greedy", current=held)
        schedule = eq.MigrationSchedule(held, plan.placement, bytes_per_expert=1000)
        transfers, seconds, held = transfers + schedule.num_transfers, seconds + schedule.seconds(links), plan.placement
    assert found.bytes_per_window == pytest.approx(1000 * transfers / 2)
    assert found.moving_seconds_per_window == pytest.approx(seconds / 2)


def test_a_window_is_so_many_steps_and_what_fills_none_is_left_out() -> None:
    steps = drifting(23)
    joined = steps[:20].reshape(4, 5, LAYERS, EXPERTS).sum(axis=1)
    of_steps = eq.replay(steps, CLUSTER, window=5, planners=["plain-greedy"])
    assert of_steps.num_windows == 4
    assert of_steps.rows == eq.replay(joined, CLUSTER, planners=["plain-greedy"]).rows


def test_threads_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = drifting(40)
    asked = {"every": [1, 3], "max_transfers": [None, 2], "dispatch": "sglang-dynamic", "window": 2}
    once = eq.replay(windows, CLUSTER, threads=1, **asked).to_dict()
    monkeypatch.setattr("equipoise.traces.windows.MOST_WINDOWS", 3)
    pieces = eq.Trace(windows)
    assert eq.replay(pieces, CLUSTER, threads=2, **asked).to_dict() == once


@pytest.mark.parametrize("after", [3, 9])
def test_an_interrupted_replay_goes_on_to_the_same_numbers(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.traces.windows.MOST_WINDOWS", 3)
    windows, asked = drifting(14), {"every": [1, 4], "max_transfers": [None, 1], "planners": ["none", "joint-descent"]}
    whole = eq.replay(windows, CLUSTER, **asked)

    def interrupt(done: int, total: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    part = eq.replay(windows, CLUSTER, progress=interrupt, keep_interrupted=True, **asked)
    assert part.interrupted
    assert part.windows_done == after
    kept = json.loads(part.to_json())
    assert eq.replay(windows, CLUSTER, resume=kept, **asked).to_dict() == whole.to_dict()
    with pytest.raises(KeyboardInterrupt):
        eq.replay(windows, CLUSTER, progress=interrupt, **asked)
    with pytest.raises(InvalidInputError, match="resume is of a replay with window 1, and this one has 2"):
        eq.replay(windows, CLUSTER, resume=kept, window=2, **asked)
    with pytest.raises(InvalidInputError, match="was not interrupted"):
        eq.replay(windows, CLUSTER, resume=whole.to_dict(), **asked)


def test_windows_without_tokens_are_neither_planned_from_nor_scored() -> None:
    windows = drifting(12)
    windows[[0, 4, 5]] = 0
    found = eq.replay(windows, CLUSTER, planners=["plain-greedy"])
    assert (found.windows_scored, found.windows_idle) == (9, 2)
    # Windows 1 and 6 are met with what was in force: experts in order, and the plan from window 3.
    tables = {t: placed(windows[t - 1].astype(float), "plain-greedy") for t in range(2, 12) if windows[t - 1].any()}
    tables[1] = np.tile(np.arange(20) % EXPERTS, (LAYERS, 1))
    tables[6] = tables[4]
    expected = [plain_balancedness(tables[t], windows[t], 4) for t in range(1, 12) if windows[t].any()]
    assert found.rows[0].balancedness_mean == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("steps", "asked", "sentence"),
    [
        (drifting(1), {}, "has 1 step, which make 1 of 1 a window"),
        (drifting(9), {"window": 5}, "make 1 of 5 a window"),
        (np.zeros((4, 2, 8)), {}, "no tokens after its first window"),
        (drifting(4), {"moving": "later"}, "moving is 'later'"),
        (drifting(4), {"every": 0}, "every is 0"),
        (drifting(4), {"max_transfers": -1}, "max_transfers is -1"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_a_sentence(steps: np.ndarray, asked: dict, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        eq.replay(steps, CLUSTER, planners=["none"], **asked)


def test_unknown_planners_and_rules_and_too_few_slots_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="planner is 'best'; it must be one of 'none'"):
        eq.replay(drifting(4), CLUSTER, planners=["best"])
    with pytest.raises(UnknownNameError, match="dispatch is 'fair'"):
        eq.replay(drifting(4), CLUSTER, dispatch="fair")
    with pytest.raises(InfeasibleError):
        eq.replay(drifting(4), CLUSTER, slots=12)


def test_one_expert_with_everything_and_layers_of_zeros_are_ordinary() -> None:
    windows = np.zeros((5, 3, 8), dtype=np.int64)
    windows[:, 0, 3] = 100
    found = eq.replay(windows, eq.Cluster(4, 3), every=[1, 2], max_transfers=[None, 1])
    best = found.ceilings[12]["oracle"]
    assert best == pytest.approx(1.0)
    assert all(0 < row.balancedness_mean <= best for row in found.rows)


def test_every_planner_that_is_here_replays() -> None:
    names = planner_names()
    assert {"none", "first-window", "oracle", "plain-greedy", "joint-descent", "pruned-restarts"} <= set(names)
    found = eq.replay(drifting(4), CLUSTER, planners=names)
    assert [row.planner for row in found.rows] == names


def test_groups_stay_whole_on_nodes() -> None:
    cluster = eq.Cluster(num_ranks=4, slots_per_rank=5, num_nodes=2)
    windows = drifting(8)
    found = eq.replay(windows, cluster, planners=["joint-descent"], num_expert_groups=4)
    free = eq.replay(windows, cluster, planners=["joint-descent"])
    assert found.rows[0].planned_mean <= free.rows[0].planned_mean


def test_the_recommendation_is_the_best_row_with_its_paired_error() -> None:
    found = eq.replay(drifting(30), CLUSTER, every=[1, 4], planners=["none", "first-window", "joint-descent", "oracle"])
    ranking = [row for row in found.ranked() if row.planner != "oracle"]
    advice = found.recommendation
    assert advice is not None
    assert advice.best == ranking[0].setting
    assert advice.value == ranking[0].balancedness_mean
    first, second = (found.series[row.setting].balancedness for row in ranking[:2])
    assert advice.gain == pytest.approx((first - second).mean())
    assert advice.error == pytest.approx((first - second).std(ddof=1) / len(first) ** 0.5)
    assert 'num_redundant_experts": 4' in advice.flags["vllm"]
    assert "--ep-num-redundant-experts 4" in advice.flags["sglang"]


def test_forecast_plans_for_the_forecast_from_the_windows_before() -> None:
    windows = drifting(9)
    found = eq.replay(windows, CLUSTER, planners=["forecast"], every=2, max_transfers=[None, 2], history=4)
    for row in found.rows:
        held, scores = eq.Placement.in_order(LAYERS, CLUSTER, EXPERTS), []
        for t in range(1, 9):
            if (t - 1) % 2 == 0:
                problem = eq.PlacementProblem(eq.forecast(windows[max(0, t - 4) : t]), CLUSTER)
                how = PARAMETERS["joint-descent"]
                held = eq.solve(problem, current=held, max_transfers=row.max_transfers, **how).placement
            scores.append(plain_balancedness(held.physical_to_logical, windows[t], 4))
        assert row.balancedness_mean == pytest.approx(np.mean(scores), abs=1e-12)


def test_plug_in_plans_as_the_plug_ins_do() -> None:
    from equipoise.engines.settings import Settings
    from equipoise.traces.planners import WHAT_PAYS

    assert Settings().budget() == WHAT_PAYS
    windows = drifting()
    found = eq.replay(windows, CLUSTER, planners=["joint-descent", "plug-in"])
    free, pays = found.rows
    assert 0 < pays.transfers_per_window < free.transfers_per_window
