"""Every error that equipoise raises on purpose.

    EquipoiseError
    ├── InvalidInputError (ValueError)            a value breaks a rule
    │   ├── PreconditionError (AssertionError)    counts that cannot work together
    │   │   ├── IndivisibleError                  one count must divide another
    │   │   └── InfeasibleError                   no placement exists
    │   ├── InvalidPlacementError                 a placement is not what it claims to be
    │   ├── UnknownNameError                      no row of that name in a table
    │   └── FileFormatError                       a file cannot be read as what was asked for
    └── MissingDependencyError (ImportError)      an optional package or device is not there

Each message names the value, the rule it breaks, and the smallest change that helps.
``PreconditionError`` is an ``AssertionError`` too, because callers of the published
``rebalance_experts`` catch that.
"""

from __future__ import annotations

__all__ = [
    "EquipoiseError",
    "FileFormatError",
    "IndivisibleError",
    "InfeasibleError",
    "InvalidInputError",
    "InvalidPlacementError",
    "MissingDependencyError",
    "PreconditionError",
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
