"""One plan made by many ranks: each plans some layers, all get the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise import __version__, errors
from equipoise.errors import EquipoiseError, InvalidInputError
from equipoise.migration.peers import check_peers, check_timeout
from equipoise.placement import Placement
from equipoise.plan import Plan
from equipoise.problem import PlacementProblem, as_problem
from equipoise.replan.in_force import known_lost
from equipoise.solver import solve
from equipoise.strategies import DEFAULT

__all__ = ["plan_sharded"]

OF_ALL_LAYERS = ("max_transfers_total", "max_layers", "deadline", "stop_after")
"""What one rank cannot keep to for the others."""


def plan_sharded(
    problem: PlacementProblem,
    peers: Any,
    strategy: str = DEFAULT,
    *,
    seed: int = 0,
    backend: str = "auto",
    threads: int | None = None,
    current: Placement | Plan | None = None,
    max_transfers: int | None = None,
    lost_ranks: Iterable[int] = (),
    timeout: float = 300.0,
    **parameters: Any,
) -> Plan:
    """Return what ``solve`` returns for the same arguments, planned by all ranks of a group together.

    Collective: every rank of ``peers`` calls it with the same arguments. Layers are planned independently, so rank r
    of n plans the layers from ``r / n`` to ``(r + 1) / n`` of them, none if there are fewer, and the ranks exchange
    what they found.

    Parameters
    ----------
    problem, strategy, seed, current, max_transfers, lost_ranks, **parameters
        As in ``solve``. The same on every rank.
    peers : equipoise.migration.peers.Peers
        The ranks that plan: any number, whatever ``problem`` asks for.
    backend, threads
        As in ``solve``; they may differ from rank to rank.
    timeout : float, default 300.0
        Seconds within which this returns or raises. Where a rank needs more than two fifths of it, all give up.

    Returns
    -------
    Plan
        The same on every rank, bit for bit, and the same as that of ``solve``, on machines that run the same backend.

    Raises
    ------
    DisagreementError
        On every rank, if they do not have the same arguments, or the same version; nothing is planned.
    InvalidInputError
        On every rank, if a limit is for all layers together, or as in ``solve``; at once, if ``peers``, ``timeout`` or
        ``lost_ranks`` is not what it is to be.
    EquipoiseError
        On every rank, what ``solve`` raises on one of them. The message says on which, and for which layers; what
        follows counts from the first of these.
    RanksLostError
        On every rank that is left, if a rank does not answer, with the lost ranks: none if one only came too late.
    """
    check_peers(peers)
    timeout = check_timeout(timeout)
    lost = known_lost(current, lost_ranks)
    arguments = {"strategy": strategy, "seed": seed, "max_transfers": max_transfers, **parameters}
    digest = _digest(problem, current, lost, arguments)
    peers.together(lambda s: peers.insist_on_the_same(digest, "what to plan, so nothing is planned", s), timeout)
    _check_sharable(problem, parameters)
    edges = [problem.num_layers * rank // peers.size for rank in range(peers.size + 1)]
    layers = np.arange(edges[peers.rank], edges[peers.rank + 1])
    part, failure = None, None
    try:
        if len(layers):
            part = _plan_layers(
                problem, layers, current, lost_ranks=lost, backend=backend, threads=threads, **arguments
            )
    except Exception as error:  # the others wait for an answer, whatever it is
        failure = error
    told = None if failure is None else (type(failure).__name__, str(failure))
    everyone = peers.together(lambda s: peers.gather((part, told), s), timeout)
    for rank, (_, wrong) in enumerate(everyone):
        if wrong is not None:
            raise _failure(rank, edges[rank], edges[rank + 1], *wrong) from failure
    return Plan.joined([part for part, _ in everyone if part is not None], problem.digest)


def _check_sharable(problem: Any, parameters: dict[str, Any]) -> None:
    """Insist on a problem whose layers can be planned apart: no limit is for all of them together."""
    for name in OF_ALL_LAYERS:
        if parameters.get(name) is not None:
            raise InvalidInputError(
                f"{name} is for all layers together, and here each rank plans some of them; leave it out, or call "
                "solve on every rank."
            )
    as_problem(problem)


def _digest(problem: Any, current: Any, lost: tuple[int, ...], arguments: dict[str, Any]) -> str:
    """Return a SHA-256 of everything that the plan depends on; of what is no problem or placement, its kind."""
    asked = problem.digest if isinstance(problem, PlacementProblem) else type(problem).__name__
    facts = (__version__, asked, type(current).__name__, lost, sorted(arguments.items()))
    digest = hashlib.sha256(repr(facts).encode())
    placement = getattr(current, "placement", current)
    if isinstance(placement, Placement):
        table = placement.physical_to_logical
        digest.update(repr((table.shape, placement.num_ranks, placement.num_logical_experts)).encode())
        digest.update(table.astype("<i4", copy=False).tobytes())
    return digest.hexdigest()


def _plan_layers(problem: PlacementProblem, layers: NDArray[np.int64], current: Any, **arguments: Any) -> Plan:
    """Return the plan of some layers alone."""
    placement = getattr(current, "placement", current)
    if isinstance(placement, Placement) and placement.num_layers == problem.num_layers:
        table = placement.physical_to_logical[layers]
        placement = Placement(table, placement.num_ranks, placement.num_logical_experts)
    return solve(problem.of_layers(layers), current=placement, **arguments)


def _failure(rank: int, first: int, end: int, name: str, sentence: str) -> EquipoiseError:
    """Return the error of one rank as all ranks raise it: of its own kind, if equipoise raises such on purpose."""
    kind = getattr(errors, name, None)
    if kind is None:
        kind, sentence = EquipoiseError, f"{name}: {sentence}"
    raised: EquipoiseError = kind(f"rank {rank} could not plan its layers, {first} to {end - 1}: {sentence}")
    return raised
