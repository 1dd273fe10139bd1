"""Which implementation runs: a table, and the one place where "auto" is resolved and what is asked for by name refused.

Asked for by name, a backend runs or refuses with a sentence that says what to install, or what else runs. Only "auto"
may choose, and the plan records what it chose. All backends return the same plan.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from equipoise.arguments import as_instance, as_names
from equipoise.errors import InvalidInputError, MissingDependencyError, UnknownNameError, shown

__all__ = ["BACKENDS", "Backend", "choose_backend"]


@dataclass(frozen=True)
class Backend:
    """One implementation of pruned restarts; ``numba`` is what all other strategies run on too.

    Attributes
    ----------
    name : str
    runs_on : str
        "cpu", "cuda", or "any" device that torch knows.
    needs : tuple of str
        Packages that must be importable.
    install : str
        What to type when they are not.
    """

    name: str
    runs_on: str
    needs: tuple[str, ...]
    install: str

    def __post_init__(self) -> None:
        for field in ("name", "runs_on", "install"):
            as_instance(getattr(self, field), str, field, "a text")
        as_names(self.needs, "needs")

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that this backend needs and that are not installed."""
        return tuple(package for package in self.needs if importlib.util.find_spec(package) is None)

    @property
    def obstacle(self) -> str | None:
        """What keeps it from running here, and what helps; None if nothing does."""
        if self.missing:
            return f"needs {' and '.join(self.missing)}, not installed here; {self.install}"
        if self.runs_on != "cuda":
            return None
        try:
            found = importlib.import_module("torch").cuda.is_available()
        except Exception as error:  # a broken torch raises anything
            return f"needs torch, which cannot be imported here ({type(error).__name__}: {error})"
        return None if found else "needs a CUDA device, and torch finds none here; use backend 'torch', or 'auto'"

    def load(self) -> ModuleType:
        """Import the implementation of a backend that ``choose_backend`` has returned."""
        return importlib.import_module(f"equipoise.restarts.{self.name}")


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("reference", "cpu", (), "nothing to install"),
        Backend("numba", "cpu", ("numba",), "pip install numba"),
        Backend("torch", "any", ("torch",), "pip install 'equipoise[torch]'"),
        Backend("triton", "cuda", ("torch", "triton"), "pip install 'equipoise[torch]' triton"),
    )
}


def choose_backend(name: str, device: str = "cpu", among: Sequence[str] = tuple(BACKENDS), by: str = "this") -> Backend:
    """Return the backend called ``name``, or for "auto" the fastest one for ``device``, of those that ``by`` runs on.

    Raises
    ------
    UnknownNameError
        If no row of the table has that name.
    MissingDependencyError
        If it was asked for by name and cannot run here.
    InvalidInputError
        If it was asked for by name and is not ``among`` those that ``by``, the strategy, runs on.

    Examples
    --------
    >>> choose_backend("auto").name
    'numba'
    """
    as_instance(device, str, "device", "a name such as 'cpu' or 'cuda:0'")
    among = tuple(name for name in as_names(among, "among") if name in BACKENDS) or ("numba",)
    if not isinstance(name, str) or name not in ("auto", *BACKENDS):
        raise UnknownNameError(f"backend is {shown(name)}; it must be auto or one of {', '.join(BACKENDS)}.")
    if name != "auto":
        obstacle = BACKENDS[name].obstacle
        if obstacle is not None:
            raise MissingDependencyError(f"backend {shown(name)} {obstacle}.")
        if name not in among:
            raise InvalidInputError(
                f"backend is {shown(name)}, and {by} runs on {' or '.join(among)}; use backend {shown(among[0])} or "
                f"'auto', or a strategy that runs on {name}."
            )
        return BACKENDS[name]
    order: tuple[str, ...] = ("numba",)
    if device != "cpu":
        order = ("triton", "torch", "numba") if device.startswith("cuda") else ("torch", "numba")
    return next(BACKENDS[row] for row in order if row in among and not BACKENDS[row].missing)
