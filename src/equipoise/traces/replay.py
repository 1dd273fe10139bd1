"""``equipoise.replay``: what planners would have made of a recorded trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, as_names, flag
from equipoise.dispatch.rules import find_rule, split_evenly
from equipoise.errors import FileFormatError, InvalidInputError, shown
from equipoise.latency.model import LatencyModel
from equipoise.migration.schedule import LinkSpeeds
from equipoise.placement import Placement
from equipoise.problem import Cluster, check_counts
from equipoise.threads import num_threads
from equipoise.traces.lanes import key_of
from equipoise.traces.planners import DEFAULTS, NONE, ORACLE, find_planner
from equipoise.traces.recommend import recommend
from equipoise.traces.result import Replay, Row, Series
from equipoise.traces.settings import Asked, Setting, settings_of
from equipoise.traces.trace import Trace
from equipoise.traces.walk import Walk

__all__ = ["as_trace", "replay"]

Floats = NDArray[np.float64]


def as_trace(value: Any) -> Trace:
    """Return a trace as it is, read it from a path, or make it of an array or load statistics."""
    import os

    if isinstance(value, Trace):
        return value
    return Trace.read(value) if isinstance(value, str | os.PathLike) else Trace(value)


def replay(
    trace: Any,
    cluster: Cluster,
    *,
    planners: Sequence[str] = DEFAULTS,
    slots: int | Sequence[int] | None = None,
    every: int | Sequence[int] = 1,
    max_transfers: int | Sequence[int | None] | None = None,
    window: int = 1,
    history: int | None = None,
    num_expert_groups: int | None = None,
    dispatch: str | None = None,
    experts_per_token: int | None = None,
    bytes_per_expert: int | None = None,
    links: LinkSpeeds | None = None,
    latency: LatencyModel | None = None,
    moving: str = "stalled",
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    keep_interrupted: bool = False,
    resume: Mapping[str, Any] | None = None,
) -> Replay:
    """Walk a recorded trace with planners side by side: each plans from the past, and is scored on what comes next.

    Parameters
    ----------
    trace : Trace, path, array of shape (num_steps, num_layers, num_logical_experts), or LoadStatistics
    cluster : Cluster
        Ranks and nodes.
    planners : sequence of str
        Names; see ``equipoise.traces.planners``.
    slots : int, sequence of int, or None, default None
        Slots in a layer to try; None takes those of ``cluster``.
    every : int or sequence of int, default 1
        Windows from plan to plan.
    max_transfers : int, None, or sequence of both, default None
        Transfers in each layer for each plan, at most; None for no limit. Planners of engines know none, and are
        replayed without.
    window : int, default 1
        Steps of the trace that are one window. Steps at the end that fill none are left out.
    history : int or None, default None
        Windows that a plan is made from, the last before it; None takes those since the plan before.
    num_expert_groups : int or None, default None
        Groups that stay whole on a node, where the nodes divide them.
    dispatch : str or None, default None
        By which rule tokens go to replicas, for ``realised_mean``; see ``equipoise.dispatch.rules``.
    experts_per_token : int or None, default None
        Experts of a token; where only counts are known, tokens are made of so many choices. None takes what the trace
        knows, or 1.
    bytes_per_expert : int or None, default None
        Size of one expert's weights in one layer, to say what moving takes.
    links : LinkSpeeds or None, default None
    latency : LatencyModel or None, default None
        To score in microseconds: of a recorded step as one forward pass, summed over layers, the slowest rank of each.
    moving : str, default "stalled"
        ``stalled``: steps wait while weights move; ``overlapped``: they do not.
    seed : int, default 0
        From which samples and random dispatch follow.
    threads : int or None, default None
        None uses all processors. It never changes the result.
    progress : callable or None, default None
        Called with the windows done and all of them, now and then.
    keep_interrupted : bool, default False
        After a ``KeyboardInterrupt``, return what is done, if any window is.
    resume : dict or None, default None
        ``to_dict()`` of a replay of the same trace and arguments that was interrupted: go on where it ended.

    Returns
    -------
    Replay
        The same for the same arguments.

    Raises
    ------
    InvalidInputError, UnknownNameError, MissingDependencyError, InfeasibleError
        If an argument breaks its rule, the trace has fewer than two whole windows, or no tokens after the first.

    Notes
    -----
    Before window 1, and every ``every`` windows after, each planner is given the windows since its last plan (or the
    last ``history``): so the first plan is made from window 0, and windows 1 to the last are scored, for all settings
    the same. All begin with experts in order. Windows without a token are no ground for a plan and are not scored. All
    transfers count, those of the first plan too, but for ``first-window``, which is loaded before serving goes on.
    ``oracle`` is in every window and layer at least as good as any planner beside it.

    Examples
    --------
    >>> import equipoise as eq
    >>> steps = [[[8, 1, 1, 2]], [[8, 1, 2, 1]], [[1, 8, 1, 2]]]
    >>> found = eq.replay(steps, eq.Cluster(num_ranks=2, slots_per_rank=3), planners=["plain-greedy"])
    >>> found.windows_scored, round(found.rows[0].balancedness_mean, 3)
    (2, 0.795)
    """
    trace = as_trace(trace)
    _check_progress(progress)
    keep_interrupted = flag(keep_interrupted, "keep_interrupted")
    asked = Asked(
        cluster,
        window,
        history,
        num_expert_groups,
        dispatch,
        trace.experts_per_token if experts_per_token is None else experts_per_token,
        bytes_per_expert,
        LinkSpeeds() if links is None else links,
        latency,
        moving,
        seed,
    )
    if dispatch is not None:
        find_rule(dispatch)
    names = as_names(planners, "planners")
    rows = [find_planner(name) for name in dict.fromkeys(names)]
    limited = [row.name for row in rows if row.limited]
    sizes = asked.cluster.num_slots if slots is None else slots
    settings = settings_of(names, sizes, every, max_transfers, limited)
    for setting in settings:
        check_counts(trace.num_logical_experts, asked.cluster_of(setting.slots), asked.num_expert_groups)
    whole = trace.num_steps // asked.window
    if whole < 2:
        raise InvalidInputError(
            f"{trace.source} has {trace.num_steps:,} steps, which make {whole} of {asked.window:,} a window; a plan "
            "from the past needs a window after it. Record more, or use a smaller window."
        )
    num_threads(threads)
    walk = Walk(trace, asked, settings, threads)
    if resume is not None:
        _resume(walk, as_instance(resume, dict, "resume", "what to_dict() of an interrupted replay returned"))
    try:
        walk.run(progress)
    except KeyboardInterrupt:
        if not keep_interrupted or walk.done < 2:
            raise
    return _result(walk)


def _check_progress(progress: Any) -> None:
    """Insist that progress can be told: nothing is done yet."""
    try:
        if progress is not None:
            progress(0, 1)
    except (TypeError, ValueError):
        raise InvalidInputError(f"progress is {shown(progress)}; pass a function of two numbers, or None.") from None


def _resume(walk: Walk, before: Mapping[str, Any]) -> None:
    """Let ``walk`` go on where an interrupted replay ended, or say why that cannot be."""
    now, state = _described(walk), before.get("state")
    for name, value in now.items():
        if before.get(name) != value:
            raise InvalidInputError(
                f"resume is of a replay with {name} {shown(before.get(name))}, and this one has {shown(value)}; give "
                "the same trace and arguments."
            )
    if state is None:
        raise InvalidInputError("resume is of a replay that was not interrupted; there is nothing to go on with.")
    try:
        walk.resume(state)
    except (KeyError, TypeError, ValueError, IndexError):
        raise FileFormatError("resume holds no state that can be gone on with; start again without it.") from None


def _described(walk: Walk) -> dict[str, Any]:
    """Return what a replay must have in common with one that goes on with it."""
    trace = walk.trace
    return {
        "num_layers": trace.num_layers,
        "num_logical_experts": trace.num_logical_experts,
        "num_steps": trace.num_steps,
        **walk.asked.to_dict(),
        "settings": [list(astuple(setting)) for setting in walk.settings],
    }


def _result(walk: Walk) -> Replay:
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
