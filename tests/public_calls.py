"""Every public call with arguments that fit, and what callers pass in their stead by mistake or on purpose."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

import equipoise as eq
from equipoise import (
    advice,
    backends,
    capacity,
    certificate,
    checker,
    dispatch,
    eplb,
    metrics,
    models,
    online,
    replan,
    report,
    steps,
    testing,
    timed,
)
from equipoise.engines import formats, layered, planning, settings, vllm_ascend
from equipoise.how import How
from equipoise.load import LoadPreset, LoadStatistics, drift_load, generate_load, read_load
from equipoise.provenance import Provenance
from equipoise.restarts import Settings as Widths
from equipoise.restarts import check_seed, pack_items
from equipoise.strategies import STRATEGIES
from equipoise.timing import certify_time

Call = tuple[Callable[..., Any], dict[str, Any]]

MODULES = (
    "equipoise",
    "equipoise.advice",
    "equipoise.backends",
    "equipoise.bounds",
    "equipoise.capacity",
    "equipoise.certificate",
    "equipoise.checker",
    "equipoise.dispatch",
    "equipoise.engines.formats",
    "equipoise.engines.layered",
    "equipoise.engines.planning",
    "equipoise.engines.settings",
    "equipoise.engines.vllm_ascend",
    "equipoise.eplb",
    "equipoise.forecasting",
    "equipoise.latency",
    "equipoise.load",
    "equipoise.metrics",
    "equipoise.models",
    "equipoise.steps",
    "equipoise.migration",
    "equipoise.migration.schedule",
    "equipoise.online",
    "equipoise.placement",
    "equipoise.plan",
    "equipoise.problem",
    "equipoise.replan",
    "equipoise.replan.frontier",
    "equipoise.report",
    "equipoise.restarts",
    "equipoise.solver",
    "equipoise.testing",
    "equipoise.timed",
    "equipoise.timing",
)
"""What people import from: the package, its rooms, and the files that the docs name."""

INTERNAL = {
    "equipoise.bounds": {"Bound", "raise_floor"},
    "equipoise.checker": {"recount_time"},
    "equipoise.engines.layered": {"fill_layers", "refuse_duplicates", "shifted"},
    "equipoise.engines.planning": {"Next"},
    "equipoise.engines.vllm_ascend": {"is_map", "read_map", "register", "write_map"},
    "equipoise.dispatch": {"keep_even"},
    "equipoise.metrics": {"as_layers"},
    "equipoise.models": {"Model"},
    "equipoise.problem": {"as_problem", "check_counts", "count", "finite"},
}
"""What one room lends another, which calls it with what is checked already."""

LOAD = np.array([[8.0, 2.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
WHOLE = LOAD.astype(np.int64)
CLUSTER = eq.Cluster(2, 3)
PROBLEM = eq.PlacementProblem(LOAD, CLUSTER)
PLAN = eq.solve(PROBLEM, "plain-greedy")
HERE = PLAN.placement
EVEN = eq.Shares.even(HERE)
THERE = eq.Placement([[3, 2, 1, 0, 0, 1]] * 2, 2, 4)
SCHEDULE = eq.MigrationSchedule(HERE, THERE)
RANKS = HERE.rank_load(LOAD)
LAYER = np.array([1.0, 2.0])
OUTLOOK = online.Outlook(0.5, 0.9, 100.0, 60.0, 3, 0.1, 0.01)
HOW = How.of("plain-greedy", threads=1)
GREEDY = settings.Settings(strategy="plain-greedy", threads=1)
LAYERED = layered.LayeredPlacement.of(HERE)
STATISTICS = LoadStatistics(LOAD)
MODEL = eq.LatencyModel(20, 12, 4, 0.06)
TIMED = eq.PlacementProblem(LOAD, CLUSTER, latency=MODEL, routed_per_step=(8, 400))
IN_TIME = eq.solve(TIMED, "plain-greedy")
TIMES = eq.slot_times(PROBLEM, MODEL, [4, 200], 1, strategy="plain-greedy")
WINDOWS = np.stack([LOAD, LOAD[:, ::-1], LOAD, LOAD + 1, LOAD[:, ::-1], 2 * LOAD])
FORECAST = eq.forecast(WINDOWS)
CAPACITY = eq.slots_for(PROBLEM, 0.9, strategy="plain-greedy")
TRACE = eq.Trace([LOAD] * 3)
REPLAYED = eq.replay(TRACE, CLUSTER, planners=["none"], threads=1)
PLANNED: dict[str, Any] = {"problem": PROBLEM, "strategy": "plain-greedy", "threads": 1}

TIME_FIELDS = ("latency", "routed_per_step", "shares", "max_rank_time", "lower_bound")
SLOT_FIELDS = ("num_slots", "num_redundant_experts", "active", "everything", "extra_bytes")


def calls(folder: Path) -> dict[str, Call]:
    """Return every public call by name, with arguments that fit; what it may write goes to ``folder``."""
    saved, load = folder / "plan.json", folder / "load.npy"
    PLAN.save(saved)
    np.save(load, LOAD)
    greedy, average, window = STRATEGIES["plain-greedy"](), online.ExponentialAverage(), online.SlidingSum()
    balancer = online.Balancer(HERE, CLUSTER, check_every=10**6)
    where = {"placement": HERE, "cluster": CLUSTER}
    found = {"strategy": greedy, "seed": 0, "implementation": "numba", "stages": {}, "digest": "0"}
    told = {
        "strategy": "x",
        "parameters": {},
        "seed": 0,
        "implementation": "numba",
        "stages": {},
        "problem_digest": "0",
        "version": "0",
    }
    parts = {name: getattr(PLAN, name) for name in ("cluster", "placement", "certificate", "metrics", "provenance")}
    rows = {"mean_rank_load": LAYER, "max_rank_load": LAYER, "num_duplicates": np.array([0, 0])}
    preset = {
        "name": "x",
        "num_layers": 2,
        "num_logical_experts": 16,
        "experts_per_token": 2,
        "sigma": (0.5, 0.6),
        "hottest_to_mean": 5.0,
        "group_size": 4,
    }
    return {
        # what is asked
        "Cluster": (eq.Cluster, {"num_ranks": 2, "slots_per_rank": 3}),
        "Cluster.from_slots": (eq.Cluster.from_slots, {"num_ranks": 2, "num_slots": 6}),
        "PlacementProblem": (eq.PlacementProblem, {"load": LOAD, "cluster": CLUSTER}),
        "PlacementProblem.of_layers": (PROBLEM.of_layers, {"layers": np.array([1])}),
        "LoadStatistics": (LoadStatistics, {"tokens_per_expert": LOAD, "source": "x", "layer_ids": (3, 4)}),
        "LoadStatistics.grouped": (STATISTICS.grouped, {"steps": 1}),
        "LoadStatistics.window": (STATISTICS.window, {"selection": 0}),
        "LoadPreset": (LoadPreset, preset),
        "generate_load": (generate_load, {"preset": LoadPreset(**preset), "tokens_per_window": 100}),
        "drift_load": (drift_load, {"load": WHOLE, "sigma": 0.5}),
        "read_load": (read_load, {"path": load}),
        "PlacementProblem.mean_tokens": (TIMED.mean_tokens, {"routed_per_step": 8}),
        "LatencyModel": (
            eq.LatencyModel,
            {"fixed": 1, "floor": 2, "base": 1, "per_token": 0.1, "source": "x", "error": 0.1, "is_estimate": False},
        ),
        "LatencyModel.preset": (
            eq.LatencyModel.preset,
            {
                "gpu": "h200",
                "phase": "decode",
                "shape": "deepseek-v3",
                "hidden": 8,
                "intermediate": 8,
                "bytes_per_weight": 1,
            },
        ),
        "LatencyModel.fit": (
            eq.LatencyModel.fit,
            {"tokens": np.arange(8.0)[:, None], "microseconds": np.arange(1.0, 9.0), "source": "x"},
        ),
        "LatencyModel.rank_time": (MODEL.rank_time, {"tokens": LOAD}),
        "LatencyModel.expected_rank_time": (MODEL.expected_rank_time, {"mean_tokens": LOAD}),
        "LatencyModel.expected_slot_time": (MODEL.expected_slot_time, {"mean_tokens": LOAD}),
        "LatencyModel.describe": (MODEL.describe, {}),
        "LatencyModel.to_dict": (MODEL.to_dict, {}),
        "forecast": (eq.forecast, {"windows": WINDOWS}),
        "Forecast": (eq.Forecast, {"windows": WINDOWS}),
        "Forecast.update": (FORECAST.update, {"window": LOAD}),
        "Forecast.without": (FORECAST.without, {"errors": np.zeros(5, dtype=np.bool_)}),
        "Forecast.of_layers": (FORECAST.of_layers, {"layers": np.array([1])}),
        "PlacementProblem (forecast)": (eq.PlacementProblem, {"load": FORECAST, "cluster": CLUSTER}),
        "solve (forecast)": (
            eq.solve,
            {"problem": eq.PlacementProblem(FORECAST, CLUSTER), "current": HERE, "max_transfers": 2, "threads": 1},
        ),
        # what is answered
        "solve": (eq.solve, {**PLANNED, "current": HERE, "max_transfers": 2, "shares": "best", "connected": True}),
        "solve (joint-descent)": (
            eq.solve,
            {"problem": PROBLEM, "max_gap": 0.1, "effort": "fast", "deadline": 1.0, "stop_after": 1},
        ),
        "solve (pruned-restarts)": (
            eq.solve,
            {
                "problem": PROBLEM,
                "strategy": "pruned-restarts",
                "restarts": 8,
                "refined": 2,
                "noise": 0.2,
                "swaps": 3,
                "extremes": 2,
            },
        ),
        "advise_slots": (report.advise_slots, {"problem": PROBLEM}),
        "describe_answer": (report.describe_answer, {"capacity": CAPACITY, "answer": CAPACITY.mean}),
        "slots_for": (eq.slots_for, {**PLANNED, "balancedness": 0.9, "most_slots": 12}),
        "Backend": (backends.Backend, {"name": "x", "runs_on": "cpu", "needs": (), "install": ""}),
        "Backend.load": (backends.BACKENDS["numba"].load, {}),
        "choose_backend": (backends.choose_backend, {"name": "numba"}),
        "Settings": (Widths, {"restarts": 8}),
        "Settings.scale": (Widths(restarts=8).scale, {"restart": 3}),
        "check_seed": (check_seed, {"seed": 0}),
        "pack_items": (
            pack_items,
            {
                "weight": WHOLE,
                "num_packs": 2,
                "settings": Widths(restarts=8, refined=2),
                "seed": 0,
                "backend": HOW.backend,
                "threads": 1,
            },
        ),
        "balanced_packing": (
            eplb.balanced_packing,
            {"weight": LOAD, "num_packs": 2, "restarts": 8, "refined": 2, "threads": 1},
        ),
        "replicate_experts": (eplb.replicate_experts, {"weight": LOAD, "num_phy": 6}),
        "rebalance_experts": (
            eplb.rebalance_experts,
            {
                "weight": LOAD,
                "num_replicas": 6,
                "num_groups": 1,
                "num_nodes": 1,
                "num_gpus": 2,
                "strategy": "plain-greedy",
            },
        ),
        # nouns
        "Placement": (
            eq.Placement,
            {"physical_to_logical": HERE.physical_to_logical, "num_ranks": 2, "num_logical_experts": 4},
        ),
        "Placement.in_order": (eq.Placement.in_order, {"num_layers": 2, "cluster": CLUSTER, "num_logical_experts": 4}),
        "Placement.rank_load": (HERE.rank_load, {"load": LOAD}),
        "Shares": (eq.Shares, {"values": EVEN.values, "placement": HERE}),
        "Shares.even": (eq.Shares.even, {"placement": HERE}),
        "Shares.rank_load": (EVEN.rank_load, {"load": LOAD}),
        "share": (eq.share, {"placement": HERE, "load": LOAD}),
        "certify_shares": (dispatch.certify_shares, {"shares": EVEN, "load": LOAD}),
        "SharesCertificate": (
            dispatch.SharesCertificate,
            {"lower_bound": LAYER, "max_rank_load": LAYER, "tight_ranks": np.ones((2, 2), np.bool_)},
        ),
        "count_components": (dispatch.count_components, {"placement": HERE}),
        "fewest_components": (dispatch.fewest_components, {"placement": HERE}),
        "flexibility": (
            eq.flexibility,
            {"placement": HERE, "load": LOAD, "drift": 0.1, "samples": 2, "shares": "even"},
        ),
        "Provenance.connected": (PLAN.provenance.connected, {"placement": HERE, "load": LOAD}),
        "foresee": (dispatch.foresee, {"load": np.stack([LOAD] * 5)}),
        "Foresight": (dispatch.Foresight, {"expected": LOAD, "errors": LOAD[None], "weight": np.ones((1, 2))}),
        "cautious_shares": (dispatch.cautious_shares, {"placement": HERE, "load": np.stack([LOAD] * 5)}),
        "refresh": (eq.refresh, {"plan": PLAN, "load": LOAD}),
        "choose_shares": (dispatch.choose_shares, {"name": "best"}),
        "Certificate": (eq.Certificate, {"lower_bound": LAYER, "max_rank_load": LAYER, "bound": ("mean", "mean")}),
        "certify": (certificate.certify, {"problem": PROBLEM, "placement": HERE, "shares": EVEN}),
        "check_placement": (
            certificate.check_placement,
            {"problem": PROBLEM, "placement": HERE, "shares": EVEN},
        ),
        "lower_bounds": (import_module("equipoise.bounds").lower_bounds, {"problem": PROBLEM}),
        "Metrics": (eq.Metrics, rows),
        "balancedness": (metrics.balancedness, {"rank_load": RANKS}),
        "imbalance_ratio": (metrics.imbalance_ratio, {"rank_load": RANKS}),
        "vllm_balancedness": (metrics.vllm_balancedness, {"rank_load": RANKS}),
        "sglang_utilization": (metrics.sglang_utilization, {"rank_load": RANKS}),
        "Provenance": (Provenance, told),
        "Provenance.of": (Provenance.of, found),
        "Provenance.with_forecast": (PLAN.provenance.with_forecast, {"said": {"num_windows": 3, "num_errors": 0}}),
        "Plan": (eq.Plan, {**parts, "num_expert_groups": None, "shares": EVEN}),
        "Plan.of": (eq.Plan.of, {"problem": PROBLEM, "placement": HERE, "provenance": PLAN.provenance}),
        "Plan.shares_for": (IN_TIME.shares_for, {"routed_per_step": 30}),
        "solve_in_time": (timed.solve_in_time, {"problem": TIMED, "how": HOW}),
        "TimeCertificate": (
            eq.TimeCertificate,
            {name: getattr(IN_TIME.time, name) for name in TIME_FIELDS},
        ),
        "TimeCertificate.nearest": (IN_TIME.time.nearest, {"routed_per_step": 30}),
        "TimeCertificate.describe": (IN_TIME.time.describe, {}),
        "TimeCertificate.to_dict": (IN_TIME.time.to_dict, {}),
        "certify_time": (
            certify_time,
            {"problem": TIMED, "placement": IN_TIME.placement, "shares": IN_TIME.time.shares},
        ),
        "check_time": (
            checker.check_time,
            {"problem": TIMED, "placement": IN_TIME.placement, "shares": IN_TIME.shares, "routed_per_step": 8},
        ),
        "slot_times": (
            eq.slot_times,
            {**PLANNED, "latency": MODEL, "tokens_per_rank": [4], "top_k": 1, "most_slots": 6, "bytes_per_expert": 1.0},
        ),
        "SlotTimes": (
            eq.SlotTimes,
            {name: getattr(TIMES, name) for name in ("latency", "tokens_per_rank", "points")},
        ),
        "SlotTimes.describe": (TIMES.describe, {}),
        "SlotTime": (advice.SlotTime, {name: getattr(TIMES.points[0], name) for name in SLOT_FIELDS}),
        "plan_maps": (eplb.plan_maps, {"plan": IN_TIME, "routed_per_step": 8}),
        "brute_force_time": (testing.brute_force_time, {"problem": TIMED}),
        "Plan.joined": (eq.Plan.joined, {"parts": [PLAN, PLAN], "problem_digest": "0"}),
        "Plan.named": (PLAN.named, {"layer_ids": list(range(3, 3 + PLAN.placement.num_layers))}),
        "Plan.summary": (PLAN.summary, {"balancedness": 0.9}),
        "Plan.to_json": (PLAN.to_json, {}),
        "Plan.to_pandas": (PLAN.to_pandas, {}),
        "Steps": (steps.Steps, {"number": 3, "mean_balancedness": 0.9}),
        "Steps.of": (steps.Steps.of, {"placement": HERE, "windows": np.stack([LOAD, LOAD])}),
        "realised_balancedness": (steps.realised_balancedness, {"placement": HERE, "windows": LOAD}),
        "find_model": (models.find_model, {"name": "kimi-k2"}),
        "Plan.save": (PLAN.save, {"path": saved}),
        "Plan.from_json": (eq.Plan.from_json, {"text": PLAN.to_json()}),
        "Plan.load": (eq.Plan.load, {"path": saved}),
        "Answer": (capacity.Answer, {"found": 6, "undecided": (), "impossible": (), "never": False}),
        "CapacityPoint": (
            capacity.CapacityPoint,
            {"cluster": CLUSTER, "num_redundant_experts": 2, "balancedness": LAYER / 2, "limit": LAYER / 2},
        ),
        "Capacity": (eq.Capacity, {"target": 0.9, "points": CAPACITY.points, "ceiling": np.ones(2)}),
        # what moves
        "count_transfers": (eq.count_transfers, {"current": HERE, "target": THERE}),
        "keep_slots": (
            replan.keep_slots,
            {"physical_to_logical": HERE.physical_to_logical, "current": THERE.physical_to_logical, "num_ranks": 2},
        ),
        "match_ranks": (
            replan.match_ranks,
            {
                "physical_to_logical": HERE.physical_to_logical,
                "current": THERE.physical_to_logical,
                "num_ranks": 2,
                "threads": 1,
            },
        ),
        "frontier": (eq.frontier, {"problem": PROBLEM, "current": HERE, "threads": 1}),
        "Frontier": (
            eq.Frontier,
            {"balancedness": np.ones((2, 3)), "transfers": np.array([0, 1, 2]), "bytes_per_expert": 8},
        ),
        "Frontier.summary": (eq.frontier(PROBLEM, HERE).summary, {}),
        "LinkSpeeds": (eq.LinkSpeeds, {}),
        "MigrationSchedule": (eq.MigrationSchedule, {"current": HERE, "target": THERE, "threads": 1}),
        "MigrationSchedule.rank_of": (SCHEDULE.rank_of, {"slot": np.array([0, 5])}),
        "MigrationSchedule.seconds": (SCHEDULE.seconds, {}),
        "MigrationSchedule.summary": (SCHEDULE.summary, {}),
        # beside an engine
        "Balancer": (online.Balancer, where),
        "Balancer.record": (balancer.record, {"counts": LOAD}),
        "Balancer.step": (balancer.step, {}),
        "Balancer.wait": (balancer.wait, {}),
        "Balancer.resume": (online.Balancer(HERE, CLUSTER).resume, {"peers": None, "weights": None, "lost_ranks": [1]}),
        "Counters": (online.Counters, {"name": "x"}),
        "Counters.publish": (online.Counters().publish, {}),
        "Decision": (online.Decision, {"step": 3, "migrate": True, "reason": "x", "outlook": OUTLOOK}),
        "Outlook": (online.Outlook, vars(OUTLOOK)),
        "TokenGain": (online.TokenGain, {}),
        "TokenGain.weigh": (online.TokenGain().weigh, {"outlook": OUTLOOK}),
        "FixedInterval": (online.FixedInterval, {}),
        "FixedInterval.weigh": (online.FixedInterval().weigh, {"outlook": OUTLOOK}),
        "Threshold": (online.Threshold, {}),
        "Threshold.weigh": (online.Threshold().weigh, {"outlook": OUTLOOK}),
        "SlidingSum": (online.SlidingSum, {}),
        "SlidingSum.add": (window.add, {"counts": LOAD}),
        "SlidingSum.tokens_per_step": (window.tokens_per_step, {}),
        "ExponentialAverage": (online.ExponentialAverage, {}),
        "ExponentialAverage.add": (average.add, {"counts": LOAD}),
        "ExponentialAverage.tokens_per_step": (average.tokens_per_step, {}),
        "plan_sharded": (online.plan_sharded, {"problem": PROBLEM, "peers": None}),
        # inside engines
        "PlacementFormat": (formats.PlacementFormat, vars(formats.PLACEMENT_FORMATS["sglang"])),
        "LoadFormat": (formats.LoadFormat, vars(formats.LOAD_FORMATS["lmdeploy"])),
        "find_placement_format": (formats.find_placement_format, {"name": "sglang"}),
        "find_load_format": (formats.find_load_format, {"name": "lmdeploy"}),
        "read_placement": (formats.read_placement, {"path": saved}),
        "read_plan": (formats.read_plan, {"path": saved}),
        "save_placement": (
            formats.save_placement,
            {"placement": LAYERED, "name": "sglang", "path": folder / "map.json"},
        ),
        "save_load": (formats.save_load, {"load": STATISTICS, "name": "lmdeploy", "path": folder / "counts.json"}),
        "LayeredPlacement": (
            layered.LayeredPlacement,
            {
                "physical_to_logical": HERE.physical_to_logical,
                "layer_ids": (3, 4),
                "num_ranks": 2,
                "source": "x",
                "shares": EVEN.values,
            },
        ),
        "LayeredPlacement.of": (layered.LayeredPlacement.of, {"placement": HERE}),
        "LayeredPlacement.of_plan": (layered.LayeredPlacement.of_plan, {"plan": PLAN}),
        "LayeredPlacement.with_ranks": (LAYERED.with_ranks, {"num_ranks": 2}),
        "LayeredPlacement.select": (LAYERED.select, {"keep": np.array([True, False])}),
        "LayeredPlacement.with_draft_layers": (LAYERED.with_draft_layers, {"number": 1}),
        "LayeredPlacement.starting_at": (LAYERED.starting_at, {"first_layer": 3}),
        "LayeredPlacement.by_rank": (LAYERED.by_rank, {"wanted_by": "the engine"}),
        "plan_next": (
            planning.plan_next,
            {
                "load": LOAD,
                "num_slots": 6,
                "num_groups": 1,
                "num_nodes": 1,
                "num_ranks": 2,
                "settings": GREEDY,
                "current": THERE.physical_to_logical,
            },
        ),
        "describe": (planning.describe, {"found": PLAN}),
        "SavedPlans": (planning.SavedPlans, {"plans": (("x", PLAN),)}),
        "SavedPlans.read": (planning.SavedPlans.read, {"paths": (str(saved),)}),
        "SavedPlans.find": (
            planning.SavedPlans((("x", PLAN),)).find,
            {"num_layers": 2, "num_experts": 4, "num_slots": 6, "num_ranks": 2},
        ),
        "engines Settings": (settings.Settings, {}),
        "engines Settings.from_environment": (
            settings.Settings.from_environment,
            {"prefix": "EQUIPOISE_VLLM", "environment": {}},
        ),
        "engines Settings.budget": (GREEDY.budget, {}),
        "engines Settings.check": (GREEDY.check, {}),
        "engines Settings.how": (GREEDY.how, {}),
        "EquipoisePolicy": (vllm_ascend.EquipoisePolicy, {"settings": GREEDY}),
        "EquipoisePolicy.rebalance_experts": (
            vllm_ascend.EquipoisePolicy(GREEDY).rebalance_experts,
            {"current_expert_table": [[[0, 1], [2, 0]]], "expert_workload": [[[4, 9], [1, 4]]]},
        ),
        # recorded traces
        "Trace": (eq.Trace, {"steps": [LOAD] * 3, "times": [1.0, 2.0, 3.0], "phases": ["decode"] * 3}),
        "Trace.of_tokens": (
            eq.Trace.of_tokens,
            {"experts": np.array([[[0, 1]], [[1, 2]]]), "step": np.array([0, 1]), "num_logical_experts": 4},
        ),
        "Trace.read": (eq.Trace.read, {"path": load}),
        "Trace.pieces": (TRACE.pieces, {}),
        "Trace.statistics": (TRACE.statistics, {}),
        "replay (a trace)": (eq.replay, {"trace": TRACE, "cluster": CLUSTER, "planners": ["none"], "threads": 1}),
        "Replay": (eq.Replay, vars(REPLAYED)),
        "Replay.ranked": (REPLAYED.ranked, {}),
        "Replay.to_dict": (REPLAYED.to_dict, {}),
        "Replay.to_json": (REPLAYED.to_json, {}),
        "Replay.summary": (REPLAYED.summary, {}),
        # for tests
        "assert_valid_placement": (testing.assert_valid_placement, {"problem": PROBLEM, "placement": HERE}),
        "avoidable_duplicates": (testing.avoidable_duplicates, {"problem": PROBLEM, "placement": HERE}),
        "brute_force_optimum": (testing.brute_force_optimum, {"problem": PROBLEM}),
        "every_share": (testing.every_share, {"num_experts": 3, "num_ranks": 2, "slots_per_rank": 2}),
        "random_load": (testing.random_load, {"num_layers": 2, "num_experts": 4, "rng": np.random.default_rng(0)}),
        "random_problems": (testing.random_problems, {"number": 2}),
        "recorded_load": (testing.recorded_load, {}),
        "replay": (testing.replay, {"schedule": SCHEDULE}),
    }


def odd() -> list[Any]:
    """Return what fits nowhere, or only in some places: of wrong kinds, too large, too small, empty, or no number."""
    nan, inf = float("nan"), float("inf")
    return [
        None, True, False, 0, -1, 1, 3, 1.5, -0.5, nan, inf, -inf, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400,
        "x", "", "0", "a\0b", "\ud800", b"x", [], [1, 2], [[1, 2], [3]], [nan], [None], (1,), {}, {"x": 1}, {1, 2},
        object(), int, len, iter([0]), range(3), 1j, np.float64(nan), np.int64(2), np.bool_(True), np.array(0),
        np.array(2), np.array([1, 2]), np.array([[1, 2]]), np.array([["x", "y"]]), np.array([{}, None]),
        np.array([[nan, 1.0]]), np.array([[-1.0, 2.0]]), np.array([[2.0**1000, inf]]), np.empty((0, 4)),
        np.zeros((2, 2, 2)), np.zeros((1, 1, 1, 1)), np.full((2, 6), 2**63, np.uint64), np.full((2, 6), -5),
        np.array([[1j]]), np.array(["2020-01-01"], "M8[D]"), np.ma.masked_array([[1.0, 2.0]], [[True, False]]),
        np.broadcast_to(np.zeros(1), (10**6, 10**6)), np.zeros((2, 4)), np.zeros((2, 6), np.int64),
        torch.ones(2, 4), torch.tensor(3), torch.tensor([1, 2]), torch.zeros(1).expand(10**6, 10**6),
        torch.ones(2, 2).to_sparse(), torch.ones(2, 4, dtype=torch.complex64), torch.empty(2, 4, device="meta"),
        torch.ones(2, 4, requires_grad=True), [torch.ones(4), torch.ones(4)],
        LOAD, CLUSTER, PROBLEM, PLAN, HERE, SCHEDULE, PLAN.certificate, eq.Cluster, Hostile(),
    ]  # fmt: skip


class Hostile:
    """Raises whatever it is asked to be."""

    def _raise(self, *_: Any) -> Any:
        raise RuntimeError

    __repr__ = __index__ = __float__ = __len__ = __iter__ = __eq__ = __bool__ = _raise  # type: ignore[assignment]
    __hash__ = object.__hash__
