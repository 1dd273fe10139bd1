"""The table of kinds of shares that a plan can be asked for, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from equipoise.dispatch.best import share
from equipoise.dispatch.shares import Shares
from equipoise.errors import UnknownNameError, shown
from equipoise.placement import Placement

__all__ = ["SHARES", "Choose", "choose_shares", "keep_even"]

Choose = Callable[[Placement, Any], Shares | None]
"""A placement and a load to shares; None is even ones."""


def keep_even(placement: Placement, load: Any) -> None:
    """Let every replica get as much as the others of its expert, which a plan says by having no shares."""


SHARES: dict[str, Choose] = {"even": keep_even, "best": share}


def choose_shares(name: str) -> Choose:
    """Return the row of ``SHARES`` called so.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    if not isinstance(name, str) or name not in SHARES:
        raise UnknownNameError(f"shares is {shown(name)}; it must be one of {', '.join(SHARES)}.")
    return SHARES[name]
