"""Environments that hold the real engines, built once and kept outside the work tree.

    python tests/engines/environments.py          build what is missing, then run the marked tests in each
    python tests/engines/environments.py vllm     only this one

An engine's wheel is installed without its dependencies, beside the few packages that its planner needs to be
imported; torch, numpy, numba and pytest come from the interpreter that runs this file, so no second torch is
fetched. equipoise itself is built from this tree and put in front for one run only.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMON = (
    *("psutil", "pyzmq", "urllib3", "regex", "pydantic", "cbor2", "transformers>=5.16.1,<5.21"),
    *("aiohttp", "requests", "openai_harmony", "openai"),
)
SHARED = ("torch", "numpy", "numba")  # never replaced by what a wheel would like


@dataclass(frozen=True)
class Engine:
    """A row: the wheel, and what its planner needs beside it."""

    name: str
    version: str
    needs: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where the environment is kept, by engine, version and Python."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return cache / "equipoise" / "engines" / f"{self.name}-{self.version}-{python}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def tests(self) -> Path:
        """The tests that run inside."""
        return ROOT / "tests" / "engines" / "real" / f"test_{self.name}.py"


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("vllm", "0.33.0", COMMON),
        Engine("sglang", "0.5.23", (*COMMON, "orjson", "pybase64", "pillow", "starlette", "msgspec", "ipython")),
    )
}


def build(engine: Engine) -> None:
    """Build the environment of ``engine`` if it is not there whole."""
    finished = engine.folder / "finished"
    if finished.exists():
        share(engine)
        return
    print(f"building {engine.folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(engine.folder)], check=True)
    share(engine)
    constraints = engine.folder / "constraints.txt"
    constraints.write_text("".join(f"{package}=={version(package)}\n" for package in SHARED))
    pip = [str(engine.python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
    subprocess.run([*pip, *engine.needs], check=True)
    subprocess.run([*pip, "--no-deps", f"{engine.name}=={engine.version}"], check=True)  # last: its demands are not met
    finished.touch()


def share(engine: Engine) -> None:
    """Let the environment see what is installed beside the interpreter that runs this file, whichever that is now."""
    folder = engine.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (folder / "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n")


@contextmanager
def installed(engine: Engine) -> Iterator[dict[str, str]]:
    """Install equipoise from this tree for ``engine``, in front of all else; yield the variables that say so."""
    with tempfile.TemporaryDirectory() as target:
        pip = [str(engine.python), "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", target, str(ROOT)], check=True)
        yield {**os.environ, "PYTHONPATH": target}


def run(engine: Engine) -> int:
    """Run the tests of ``engine`` in its environment; return their exit status."""
    with installed(engine) as environment:
        command = [str(engine.python), "-m", "pytest", "-m", "engines", str(engine.tests)]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main(names: list[str]) -> int:
    """Build and run; return the worst exit status."""
    for package in SHARED:
        try:
            version(package)
        except PackageNotFoundError:
            sys.exit(f"{package} is not installed beside {sys.executable}; install the development extra first.")
    status = 0
    for name in names or list(ENGINES):
        build(ENGINES[name])
        status = max(status, run(ENGINES[name]))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
