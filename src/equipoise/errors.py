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

Each message names the value, the rule it breaks, and the smallest change that helps. The value comes from a caller or
from a stranger's file, so it goes through ``shown``, or ``listed`` if there are several.
``PreconditionError`` is an ``AssertionError`` too, because callers of the published
``rebalance_experts`` catch that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
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
    "counted",
    "listed",
    "numbered",
    "reason",
    "shown",
]

LONGEST = 80  # characters of a value that an error quotes


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


def shown(value: Any) -> str:
    """Return ``value`` as an error quotes it: as ``repr`` writes it, but in one line of at most 80 characters.

    Never fails, and takes no time for what it leaves out: of long texts, long numbers and nested lists it looks at the
    beginning.

    >>> shown("a"), shown(10**400), shown([[1, 2, 3], "x"] * 1000)
    ("'a'", 'an int of 1329 bits', "[[1, 2, 3], 'x', [1, 2, 3], 'x', [1, 2, 3], 'x', [1, 2, 3], 'x', [1, 2, 3], '...")
    """
    try:
        text = _shown(value, 2)
    except Exception:  # a repr of somebody else's may raise anything
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def listed(values: Iterable[Any], most: int = 10) -> str:
    """Return the first ``most`` of ``values``, and how many more there are, as an error lists them.

    >>> listed(["a", 2]), listed(range(12), most=2), listed([])
    ("'a', 2", '0, 1 and 10 more', 'none')
    """
    known = list(values)
    if not known:
        return "none"
    text = ", ".join(map(shown, known[:most]))
    return text if len(known) <= most else f"{text} and {len(known) - most:,} more"


def counted(number: int, noun: str) -> str:
    """Return a number of things as a sentence has it.

    >>> counted(1, "layer"), counted(1200, "layer")
    ('1 layer', '1,200 layers')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if abs(number) < 10**12 else f"{shown(number)} {noun}s"


def numbered(noun: str, numbers: Iterable[int]) -> str:
    """Return things by their numbers, as a sentence has them.

    >>> numbered("rank", [3]), numbered("rank", (3, 7)), numbered("rank", ())
    ('rank 3', 'ranks 3, 7', 'no rank')
    """
    known = list(numbers)
    return f"{noun}{'s' if len(known) > 1 else ''} {listed(known)}" if known else f"no {noun}"


def reason(error: Exception) -> str:
    """Return what the system says in ``error``, as the end of a sentence."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


def _shown(value: Any, depth: int) -> str:
    """Return at most a few lines; ``depth`` lists inside each other are looked into."""
    if isinstance(value, str | bytes):
        return repr(value[:LONGEST])
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        bits = value.bit_length()
        return int.__repr__(value) if bits <= 256 else f"an int of {bits} bits"
    if isinstance(value, Mapping):
        inside = (f"{_shown(key, 0)}: {_shown(value[key], depth - 1)}" for key in islice(value, LONGEST // 4))
        return "{" + ", ".join(inside) + "}" if depth > 0 else "{...}"
    if isinstance(value, list | tuple | set | frozenset):
        left, right = "[]" if isinstance(value, list) else "()" if isinstance(value, tuple) else "{}"
        inside = (_shown(item, depth - 1) for item in islice(value, LONGEST // 3))
        return left + ", ".join(inside) + right if depth > 0 else f"{left}...{right}"
    if getattr(value, "shape", ()) and hasattr(value, "dtype"):
        return f"a {type(value).__name__} of shape {tuple(value.shape)} and type {value.dtype}"
    return " ".join(repr(value).split())
