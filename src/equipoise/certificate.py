"""A proved distance to the optimum, per layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equipoise.arguments import as_ranks
from equipoise.checker import check_placement
from equipoise.dispatch.shares import Shares
from equipoise.errors import InvalidInputError, shown
from equipoise.metrics import as_layers
from equipoise.placement import Placement
from equipoise.problem import Cluster, PlacementProblem, as_problem
from equipoise.threads import part

__all__ = ["Certificate", "certify", "check_placement"]

Floats = NDArray[np.float64]
ROUNDING = 1e-12  # relative; a bound may exceed the load that meets it by float64 rounding, and by no more


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the busiest rank carries, and what it must carry in any placement of the same problem.

    Attributes
    ----------
    lower_bound : float64 array, shape (num_layers,)
        Tokens per window that the busiest rank carries in every possible placement.
    max_rank_load : float64 array, shape (num_layers,)
        Tokens per window that it carries in this one. Never below ``lower_bound``.
    bound : tuple of str, one per layer
        The argument behind each bound: a name in ``equipoise.bounds.BOUNDS``.

    Raises
    ------
    InvalidInputError
        If a load or bound is negative or not finite, or a lower bound exceeds the load that it bounds: then one of the
        two is wrong.
    """

    lower_bound: Floats
    max_rank_load: Floats
    bound: tuple[str, ...]

    def __post_init__(self) -> None:
        lower, largest = (as_layers(getattr(self, name), name) for name in ("lower_bound", "max_rank_load"))
        if not isinstance(self.bound, tuple) or not all(isinstance(name, str) for name in self.bound):
            raise InvalidInputError(f"bound is {shown(self.bound)}; it must be a tuple of names, one per layer.")
        if not len(lower) == len(largest) == len(self.bound):
            raise InvalidInputError(
                f"lower_bound, max_rank_load and bound have {len(lower)}, {len(largest)} and "
                f"{len(self.bound)} entries; each needs one per layer."
            )
        wrong = ~(lower <= largest * (1 + ROUNDING) + np.finfo(np.float64).tiny)  # below that, floats lose their digits
        if wrong.any():
            layer = int(np.argmax(wrong))
            raise InvalidInputError(
                f"layer {layer} claims a lower bound of {lower[layer]} on a busiest rank that carries "
                f"{largest[layer]}; a bound cannot exceed what is achieved."
            )
        lower = np.minimum(lower, largest)
        for array in (lower, largest):
            array.setflags(write=False)
        object.__setattr__(self, "lower_bound", lower)
        object.__setattr__(self, "max_rank_load", largest)

    @property
    def gap(self) -> Floats:
        """Max rank load / lower bound - 1 of each layer; 0 is proved optimal, and infinite where nothing is proved."""
        nothing = np.where(self.max_rank_load > 0, np.inf, 1.0)
        return np.divide(self.max_rank_load, self.lower_bound, out=nothing, where=self.lower_bound > 0) - 1.0

    @property
    def mean_gap(self) -> float:
        """Gap averaged over the layers."""
        return float(self.gap.mean())

    @property
    def max_gap(self) -> float:
        """Gap of the worst layer."""
        return float(self.gap.max())


@part
def certify(
    problem: PlacementProblem,
    placement: Placement,
    *,
    quick: bool = False,
    lost_ranks: Sequence[int] = (),
    shares: Shares | None = None,
) -> Certificate:
    """Check ``placement`` and return how far it can be from the best placement of ``problem``.

    Parameters
    ----------
    problem : PlacementProblem
    placement : Placement
    quick : bool, default False
        Whether to ask only for bounds that take next to no time, and to let slots be empty. A placement that was to
        move little is far from the bounds that take long.
    lost_ranks : sequence of int, default ()
        Ranks of ``problem`` whose slots are empty: the others carry everything, and groups need not keep to nodes.
    shares : Shares or None, default None
        With shares of this placement, that is what its busiest rank carries, and only those bounds are asked that hold
        for any placement with any shares. None: even ones.

    Raises
    ------
    InvalidPlacementError
        If the placement breaks a rule; see ``check_placement``.

    Examples
    --------
    >>> from equipoise import Cluster
    >>> problem = PlacementProblem([[3, 3, 1, 1]], Cluster(num_ranks=2, slots_per_rank=2))
    >>> certificate = certify(problem, Placement([[0, 2, 1, 3]], 2, 4))
    >>> certificate.lower_bound.tolist(), certificate.max_rank_load.tolist(), certificate.bound
    ([4.0], [4.0], ('mean',))
    """
    problem = as_problem(problem).without_forecast
    from equipoise.bounds import lower_bounds  # with numba, which reading a plan does not need

    asked = anywhere = problem
    lost_ranks = as_ranks(lost_ranks)
    if lost_ranks:
        asked = dataclasses.replace(problem, num_expert_groups=None)  # nodes may be uneven now
        left = Cluster(problem.cluster.num_ranks - len(lost_ranks), problem.cluster.slots_per_rank)
        anywhere = dataclasses.replace(asked, cluster=left)
    rank_load = check_placement(asked, placement, allow_empty=quick, shares=shares)
    largest = rank_load.max(axis=1)
    lower, names = lower_bounds(anywhere, achieved=largest, quick=quick, any_shares=shares is not None)
    return Certificate(lower, largest, names)
