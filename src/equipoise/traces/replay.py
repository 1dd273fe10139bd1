"""``equipoise.replay``: what planners would have made of a recorded trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_instance, as_names, flag
from equipoise.dispatch.rules import find_rule
from equipoise.errors import FileFormatError, InvalidInputError, counted, shown
from equipoise.latency.model import LatencyModel
from equipoise.migration.schedule import LinkSpeeds
from equipoise.problem import Cluster, check_counts
from equipoise.threads import num_threads
from equipoise.traces.outcome import result_of
from equipoise.traces.planners import DEFAULTS, find_planner
from equipoise.traces.result import Replay
from equipoise.traces.settings import Asked, settings_of
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
            f"{trace.source} has {counted(trace.num_steps, 'step')}, which make {whole} of {asked.window:,} a window; "
            "a plan from the past needs a window after it. Record more, or use a smaller window."
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
    return result_of(walk)


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
