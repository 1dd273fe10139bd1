"""What a walk recorded, as the scores of planners side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from equipoise.dispatch.rules import split_evenly
from equipoise.errors import InvalidInputError
from equipoise.placement import Placement
from equipoise.traces.lanes import key_of
from equipoise.traces.planners import NONE, ORACLE
from equipoise.traces.recommend import recommend
from equipoise.traces.result import Replay, Row, Series
from equipoise.traces.settings import Setting
from equipoise.traces.walk import Walk

__all__ = ["result_of"]

Floats = NDArray[np.float64]


def result_of(walk: Walk) -> Replay:
    """Return the scores of the windows that ``walk`` has done."""
    trace, asked = walk.trace, walk.asked
    silent = np.concatenate(walk.idle)
    scored = np.flatnonzero(~silent)
    if not len(scored):
        raise InvalidInputError(
            f"{trace.source} has no tokens after its first window; there is nothing to score a plan on."
        )
    series = {key: _series(walk, key, scored) for key in walk.lanes}
    rows = tuple(_row(walk, setting, series[key_of(setting)], scored) for setting in walk.settings)
    ceilings = {
        slots: {
            "oracle": float(series[Setting(ORACLE, slots, 1, None)].balancedness.mean()),
            "sampling": float(np.concatenate(parts)[scored].mean()),
            "perfect": 1.0,
        }
        for slots, parts in walk.sampling.items()
    }
    measure = "balancedness_mean" if asked.latency is None else "net_microseconds"
    first: dict[Setting, Setting] = {}
    for setting in walk.settings:  # settings of one lane are the same thing
        first.setdefault(key_of(setting), setting)
    values = {s: _measured(series[key], measure) for key, s in first.items() if s.planner != ORACLE}
    baseline = {s.slots: _measured(series[key_of(s)], measure) for s in walk.settings if s.planner == NONE}
    done = walk.done
    return Replay(
        trace.source, trace.num_layers, trace.num_logical_experts, trace.num_steps, asked, walk.num_windows, done,
        len(scored), done - len(scored) - int(silent[0]), rows, ceilings,
        recommend(values, measure, trace.num_logical_experts, asked.window, baseline), _by_batch(walk, rows), series,
        scored,
        {**walk.state()} if done < walk.num_windows else None,
    )  # fmt: skip


BATCHES = (1, 4, 16, 64, 256, 1024)  # tokens of a rank in a step


def _by_batch(walk: Walk, rows: Sequence[Row]) -> tuple[dict[str, float], ...]:
    """Return the expected time of a step by slots and batch, of the best setting's last placement on the last load."""
    latency, many = walk.asked.latency, walk.asked.experts_per_token
    if latency is None or many is None:
        return ()
    best: dict[int, Row] = {}
    for row in sorted((row for row in rows if row.planner != ORACLE), key=lambda row: -row.balancedness_mean):
        best.setdefault(row.slots, row)
    total = walk.last_load.sum(axis=1, keepdims=True)
    part = np.divide(walk.last_load, total, out=np.zeros_like(walk.last_load), where=total > 0)
    ranks, found = walk.asked.cluster.num_ranks, []
    for slots, row in sorted(best.items()):
        held = Placement(walk.states[key_of(row.setting)].held, ranks, part.shape[1])
        each = split_evenly(held, part).reshape(len(part), ranks, -1)
        for size in BATCHES:
            time = latency.expected_rank_time(each * (size * ranks * many)).max(axis=1).sum()
            found.append({"slots": slots, "tokens_per_rank": size, "microseconds": float(time)})
    return tuple(found)


def _measured(series: Series, measure: str) -> Floats:
    return series.net if measure == "net_microseconds" else series.balancedness


def _series(walk: Walk, key: Setting, scored: NDArray[np.int64]) -> Series:
    record = walk.records[key]
    stretch = scored * walk.num_stretches // walk.num_windows
    number = np.bincount(stretch, minlength=walk.num_stretches)[:, None]
    by_layer = np.divide(record.by_layer, number, out=np.full_like(record.by_layer, np.nan), where=number > 0)
    time = record.column("microseconds")[scored]
    moving = record.column("seconds")[scored] * 1e6 / walk.asked.window
    net = time + moving if walk.asked.moving == "stalled" else np.maximum(time, moving)
    return Series(record.column("balancedness")[scored], net, by_layer, record.worst)


def _row(walk: Walk, setting: Setting, series: Series, scored: NDArray[np.int64]) -> Row:
    record, asked = walk.records[key_of(setting)], walk.asked
    balance = series.balancedness
    is_oracle = setting.planner == ORACLE
    transfers = None if is_oracle else float(record.column("transfers")[scored].mean())
    size = asked.bytes_per_expert
    dispatched = asked.dispatch is not None
    return Row(
        setting.planner,
        setting.slots,
        setting.every,
        setting.max_transfers,
        float(balance.mean()),
        float(np.quantile(balance, 0.1)),
        float(balance.min()),
        float(balance.std(ddof=1) / np.sqrt(len(balance))) if len(balance) > 1 else None,
        float(record.column("planned")[scored].mean()),
        float(record.column("realised")[scored].mean()) if dispatched else None,
        float(record.column("active")[scored].mean()) if dispatched or asked.latency is not None else None,
        transfers,
        None if size is None or transfers is None else transfers * size,
        None if size is None or is_oracle else float(record.column("seconds")[scored].mean()),
        None if asked.latency is None else float(record.column("microseconds")[scored].mean()),
        None if asked.latency is None else float(series.net.mean()),
    )
