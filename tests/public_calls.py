"""Every public call with arguments that fit, by room: a new one gets a row."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

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
from equipoise.load import LoadPreset, LoadStatistics, drift_load, generate_load, read_load
from equipoise.provenance import Provenance
from equipoise.restarts import Settings as Widths
from equipoise.restarts import check_seed, pack_items
from equipoise.timing import certify_time
from public_values import (
    AVERAGE,
    BALANCER,
    CAPACITY,
    CLUSTER,
    EVEN,
    FORECAST,
    FOUND,
    GREEDY,
    HERE,
    HOW,
    IN_TIME,
    LAYER,
    LAYERED,
    LOAD,
    MODEL,
    OUTLOOK,
    PARTS,
    PLAN,
    PLANNED,
    PRESET,
    PROBLEM,
    RANKS,
    REPLAYED,
    ROWS,
    SCHEDULE,
    SLOT_FIELDS,
    STATISTICS,
    THERE,
    TIME_FIELDS,
    TIMED,
    TIMES,
    TOLD,
    TRACE,
    WHERE,
    WHOLE,
    WINDOW,
    WINDOWS,
)

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
    "equipoise.replan.frontier": {"frontier_and_plan"},
    "equipoise.timed": {"Timed", "even_among", "find_in_time", "prove_in_time"},
    "equipoise.problem": {"as_problem", "check_counts", "count", "finite"},
}
"""What one room lends another, which calls it with what is checked already."""


ASKED: dict[str, Call] = {
    "Cluster": (eq.Cluster, {"num_ranks": 2, "slots_per_rank": 3}),
    "Cluster.from_slots": (eq.Cluster.from_slots, {"num_ranks": 2, "num_slots": 6}),
    "PlacementProblem": (eq.PlacementProblem, {"load": LOAD, "cluster": CLUSTER}),
    "PlacementProblem.of_layers": (PROBLEM.of_layers, {"layers": np.array([1])}),
    "LoadStatistics": (LoadStatistics, {"tokens_per_expert": LOAD, "source": "x", "layer_ids": (3, 4)}),
    "LoadStatistics.grouped": (STATISTICS.grouped, {"steps": 1}),
    "LoadStatistics.window": (STATISTICS.window, {"selection": 0}),
    "LoadPreset": (LoadPreset, PRESET),
    "generate_load": (generate_load, {"preset": LoadPreset(**PRESET), "tokens_per_window": 100}),
    "drift_load": (drift_load, {"load": WHOLE, "sigma": 0.5}),
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
    "Forecast.before": (FORECAST.before, {"error": 3}),
    "Forecast.of_layers": (FORECAST.of_layers, {"layers": np.array([1])}),
    "PlacementProblem (forecast)": (eq.PlacementProblem, {"load": FORECAST, "cluster": CLUSTER}),
    "solve (forecast)": (
        eq.solve,
        {"problem": eq.PlacementProblem(FORECAST, CLUSTER), "current": HERE, "max_transfers": 2, "threads": 1},
    ),
}
"""What is asked."""

ANSWERED: dict[str, Call] = {
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
}
"""What is answered."""

NOUNS: dict[str, Call] = {
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
    "Metrics": (eq.Metrics, ROWS),
    "balancedness": (metrics.balancedness, {"rank_load": RANKS}),
    "imbalance_ratio": (metrics.imbalance_ratio, {"rank_load": RANKS}),
    "vllm_balancedness": (metrics.vllm_balancedness, {"rank_load": RANKS}),
    "sglang_utilization": (metrics.sglang_utilization, {"rank_load": RANKS}),
    "Provenance": (Provenance, TOLD),
    "Provenance.of": (Provenance.of, FOUND),
    "Provenance.with_forecast": (PLAN.provenance.with_forecast, {"said": {"num_windows": 3, "num_errors": 0}}),
    "Plan": (eq.Plan, {**PARTS, "num_expert_groups": None, "shares": EVEN}),
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
    "Plan.from_json": (eq.Plan.from_json, {"text": PLAN.to_json()}),
    "Answer": (capacity.Answer, {"found": 6, "undecided": (), "impossible": (), "never": False}),
    "CapacityPoint": (
        capacity.CapacityPoint,
        {"cluster": CLUSTER, "num_redundant_experts": 2, "balancedness": LAYER / 2, "limit": LAYER / 2},
    ),
    "Capacity": (eq.Capacity, {"target": 0.9, "points": CAPACITY.points, "ceiling": np.ones(2)}),
}
"""Nouns."""

MOVES: dict[str, Call] = {
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
}
"""What moves."""

BESIDE: dict[str, Call] = {
    "Balancer": (online.Balancer, WHERE),
    "Balancer.record": (BALANCER.record, {"counts": LOAD}),
    "Balancer.step": (BALANCER.step, {}),
    "Balancer.wait": (BALANCER.wait, {}),
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
    "SlidingSum.add": (WINDOW.add, {"counts": LOAD}),
    "SlidingSum.tokens_per_step": (WINDOW.tokens_per_step, {}),
    "ExponentialAverage": (online.ExponentialAverage, {}),
    "ExponentialAverage.add": (AVERAGE.add, {"counts": LOAD}),
    "ExponentialAverage.tokens_per_step": (AVERAGE.tokens_per_step, {}),
    "plan_sharded": (online.plan_sharded, {"problem": PROBLEM, "peers": None}),
}
"""Beside an engine."""

ENGINES: dict[str, Call] = {
    "PlacementFormat": (formats.PlacementFormat, vars(formats.PLACEMENT_FORMATS["sglang"])),
    "LoadFormat": (formats.LoadFormat, vars(formats.LOAD_FORMATS["lmdeploy"])),
    "find_placement_format": (formats.find_placement_format, {"name": "sglang"}),
    "find_load_format": (formats.find_load_format, {"name": "lmdeploy"}),
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
}
"""Inside engines."""

TRACES: dict[str, Call] = {
    "Trace": (eq.Trace, {"steps": [LOAD] * 3, "times": [1.0, 2.0, 3.0], "phases": ["decode"] * 3}),
    "Trace.of_tokens": (
        eq.Trace.of_tokens,
        {"experts": np.array([[[0, 1]], [[1, 2]]]), "step": np.array([0, 1]), "num_logical_experts": 4},
    ),
    "Trace.pieces": (TRACE.pieces, {}),
    "Trace.statistics": (TRACE.statistics, {}),
    "replay (a trace)": (eq.replay, {"trace": TRACE, "cluster": CLUSTER, "planners": ["none"], "threads": 1}),
    "Replay": (eq.Replay, vars(REPLAYED)),
    "Replay.ranked": (REPLAYED.ranked, {}),
    "Replay.to_dict": (REPLAYED.to_dict, {}),
    "Replay.to_json": (REPLAYED.to_json, {}),
    "Replay.summary": (REPLAYED.summary, {}),
}
"""Recorded traces."""

TESTS: dict[str, Call] = {
    "assert_valid_placement": (testing.assert_valid_placement, {"problem": PROBLEM, "placement": HERE}),
    "avoidable_duplicates": (testing.avoidable_duplicates, {"problem": PROBLEM, "placement": HERE}),
    "brute_force_optimum": (testing.brute_force_optimum, {"problem": PROBLEM}),
    "every_share": (testing.every_share, {"num_experts": 3, "num_ranks": 2, "slots_per_rank": 2}),
    "random_load": (testing.random_load, {"num_layers": 2, "num_experts": 4, "rng": np.random.default_rng(0)}),
    "random_problems": (testing.random_problems, {"number": 2}),
    "recorded_load": (testing.recorded_load, {}),
    "replay": (testing.replay, {"schedule": SCHEDULE}),
}
"""For tests."""


def of_files(folder: Path) -> dict[str, Call]:
    """Return the calls that read and write files, which lie in ``folder``."""
    saved, load = folder / "plan.json", folder / "load.npy"
    PLAN.save(saved)
    np.save(load, LOAD)
    return {
        "read_load": (read_load, {"path": load}),
        "Plan.save": (PLAN.save, {"path": saved}),
        "Plan.load": (eq.Plan.load, {"path": saved}),
        "read_placement": (formats.read_placement, {"path": saved}),
        "read_plan": (formats.read_plan, {"path": saved}),
        "save_placement": (
            formats.save_placement,
            {"placement": LAYERED, "name": "sglang", "path": folder / "map.json"},
        ),
        "save_load": (formats.save_load, {"load": STATISTICS, "name": "lmdeploy", "path": folder / "counts.json"}),
        "SavedPlans.read": (planning.SavedPlans.read, {"paths": (str(saved),)}),
        "Trace.read": (eq.Trace.read, {"path": load}),
    }


def calls(folder: Path) -> dict[str, Call]:
    """Return every public call by name, with arguments that fit; what it may write goes to ``folder``."""
    tables = (ASKED, ANSWERED, NOUNS, MOVES, BESIDE, ENGINES, TRACES, TESTS, of_files(folder))
    return {name: call for table in tables for name, call in table.items()}
