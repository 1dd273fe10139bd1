"""What a placement says and a format cannot: slots that hold nothing, and shares that are not even."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipoise.dispatch import Shares
from equipoise.engines.layered import LayeredPlacement
from equipoise.errors import InvalidInputError, listed, numbered
from equipoise.placement import Placement

__all__ = ["check_filled", "check_shares"]


def check_filled(placement: LayeredPlacement, name: str, able: Sequence[str]) -> None:
    """Refuse empty slots for a format without a sign for them; say why they are empty, and which formats have one."""
    if placement.physical_to_logical.min() >= 0:
        return
    lost = placement.empty_ranks
    if lost:
        ranks = f"{numbered('rank', lost)}, which {'are' if len(lost) > 1 else 'is'} lost,"
        left = (placement.num_ranks or 0) - len(lost)
        raise InvalidInputError(
            f"{placement.source} leaves the slots of {ranks} empty, and {name} has no sign for an empty slot. "
            f"Start the engine on {left} ranks with a plan for them (equipoise plan --ranks {left}), re-plan with the "
            f"ranks back (equipoise replan --restored-ranks), or write {listed(able)}, which says -1."
        )
    layer, slot = (int(i) for i in np.argwhere(placement.physical_to_logical < 0)[0])
    raise InvalidInputError(
        f"{placement.source}: layer {placement.layer_ids[layer]}, slot {slot} is empty, and {name} has no sign for "
        f"an empty slot. Re-plan with more --max-transfers, which fills it, or write {listed(able)}, which says -1."
    )


def check_shares(placement: LayeredPlacement, name: str) -> None:
    """Refuse shares that are not even for a format that cannot say them."""
    if placement.shares is None:
        return
    shares = Shares(placement.shares, Placement(placement.physical_to_logical, 1, placement.num_logical_experts))
    if not shares.is_even:
        what = "dormant replicas" if shares.num_dormant.any() else "uneven shares"
        raise InvalidInputError(
            f"{placement.source} has {what}, and a file of {name} cannot say so: all replicas would get even parts. "
            "Plan without --gpu and --shares for it."
        )
