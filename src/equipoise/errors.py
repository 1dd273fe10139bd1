"""Every error that equipoise raises on purpose.

    EquipoiseError
    ├── InvalidInputError (ValueError)            a value breaks a rule
    │   ├── PreconditionError (AssertionError)    counts that cannot work together
    │   │   ├── IndivisibleError                  one count must divide another
    │   │   └── InfeasibleError                   no placement exists
    │   ├── InvalidPlacementError                 a placement is not what it claims to be
    │   ├── UnknownNameError                      no row of that name in a table
    │   └── FileFormatError                       a file cannot be read as what was asked for
    ├── MigrationError (RuntimeError)             weights could not all be moved
    │   ├── DisagreementError                     ranks do not have the same plan
    │   └── RanksLostError                        ranks are gone; it says where the others stand
    └── MissingDependencyError (ImportError)      an optional package or device is not there

Each message names the value, the rule it breaks, and the smallest change that helps.
``PreconditionError`` is an ``AssertionError`` too, because callers of the published
``rebalance_experts`` catch that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "DisagreementError",
    "EquipoiseError",
    "FileFormatError",
    "IndivisibleError",
    "InfeasibleError",
    "InvalidInputError",
    "InvalidPlacementError",
    "MigrationError",
    "MissingDependencyError",
    "PreconditionError",
    "RanksLostError",
    "UnknownNameError",
]


class EquipoiseError(Exception):
    """The root: catch it to catch everything that equipoise raises on purpose."""


class InvalidInputError(EquipoiseError, ValueError):
    """A value breaks a rule that the message states."""


class PreconditionError(InvalidInputError, AssertionError):
    """Counts that cannot work together; an ``AssertionError`` for drop-in callers."""


class IndivisibleError(PreconditionError):
    """One count must divide another and does not."""


class InfeasibleError(PreconditionError):
    """No placement can satisfy the request."""


class InvalidPlacementError(InvalidInputError):
    """A placement is not what it claims to be."""


class UnknownNameError(InvalidInputError):
    """A name that no row of the table carries."""


class FileFormatError(InvalidInputError):
    """A file that cannot be read as what was asked for."""


class MissingDependencyError(EquipoiseError, ImportError):
    """An optional package or device was asked for by name and is not there."""


class MigrationError(EquipoiseError, RuntimeError):
    """Weights could not all be moved."""


class DisagreementError(MigrationError):
    """Ranks do not have the same plan, and nothing moved."""


class RanksLostError(MigrationError):
    """Ranks are gone.

    Attributes
    ----------
    lost_ranks : tuple of int
        As the schedule counts, those that were lost before among them; the same on every rank that is left.
    placement : Placement or None
        Where the survivors stand, the same on each of them; None on a rank that the others have given up, and where
        nothing is in force yet.
    stranded : tuple of (int, int, int)
        Layer, rank and expert of copies that no slot could take: they lie in that rank's spare buffer.
    """

    def __init__(
        self,
        sentence: str,
        lost_ranks: Sequence[int] = (),
        placement: Any = None,
        stranded: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        super().__init__(sentence)
        self.lost_ranks, self.placement, self.stranded = tuple(lost_ranks), placement, tuple(stranded)
