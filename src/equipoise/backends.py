"""Which implementation runs a kernel: a table, and the one place where "auto" is resolved.

Asked for by name, a backend runs or refuses with a sentence that says what to install. Only "auto"
may choose, and the plan records what it chose. All backends return the same plan.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from equipoise.errors import MissingDependencyError, UnknownNameError

__all__ = ["BACKENDS", "Backend", "choose_backend"]


@dataclass(frozen=True)
class Backend:
    """One implementation of the packing kernel.

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

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that this backend needs and that are not installed."""
        return tuple(package for package in self.needs if importlib.util.find_spec(package) is None)

    def load(self) -> ModuleType:
        """Import the implementation, or say what to install."""
        if self.missing:
            raise MissingDependencyError(
                f"backend {self.name!r} needs {' and '.join(self.missing)}, not installed here; {self.install}."
            )
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


def choose_backend(name: str, device: str = "cpu") -> Backend:
    """Return the backend called ``name``, or for "auto" the fastest one for ``device``.

    Raises
    ------
    UnknownNameError
        If no row of the table has that name.
    MissingDependencyError
        If it was asked for by name and cannot run here.

    Examples
    --------
    >>> choose_backend("auto").name
    'numba'
    """
    if name != "auto":
        if not isinstance(name, str) or name not in BACKENDS:
            raise UnknownNameError(f"backend is {name!r}; it must be auto or one of {', '.join(BACKENDS)}.")
        return BACKENDS[name]
    order = ("triton", "torch", "numba") if device.startswith("cuda") else ("numba",) if device == "cpu" else ("torch",)
    return next(BACKENDS[row] for row in order if row in BACKENDS and not BACKENDS[row].missing)
