"""Environments that hold the real engines, built once and kept outside the work tree.

    python tests/engines/environments.py          build what is missing, then run the marked tests in each
    python tests/engines/environments.py vllm     only this one

An engine's wheel is installed without its dependencies, beside the few packages that what is tested of it needs to be
imported; torch, numpy, numba and pytest come from the interpreter that runs this file, so no second torch is
fetched. An engine that is an addition to another one (``host``) lies in a folder of its own, in front of the other's
environment. Where an engine publishes its sources, its own tests are taken from them. equipoise itself is built from
this tree and put in front for one run only; what it compiles is kept beside the environment.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tarfile
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
class Sources:
    """What an engine publishes beside its wheel, of which only its own tests are kept.

    pip reads a source distribution's metadata before it hands it over, so what that takes has to be there.
    """

    tests: str
    needs: tuple[str, ...]
    variables: dict[str, str]


@dataclass(frozen=True)
class Engine:
    """A row: the wheel, what its planner and its machinery need beside it, and the files of tests that run inside."""

    name: str
    version: str
    needs: tuple[str, ...]
    tests: tuple[str, ...]
    sources: Sources | None = None
    host: Engine | None = None

    @property
    def folder(self) -> Path:
        """Where the environment is kept, by engine, version and Python."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return cache / "equipoise" / "engines" / f"{self.name}-{self.version}-{python}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.host.python if self.host else self.folder / "bin" / "python"

    @property
    def recipe(self) -> str:
        """What the folder was made from: another recipe makes it anew."""
        return repr((self.version, self.needs, self.sources))


VLLM = Engine(
    "vllm",
    "0.33.0",
    (
        *(*COMMON, "pillow", "pybase64", "cachetools", "msgspec", "cloudpickle", "uvloop", "py-cpuinfo"),
        *("prometheus_client", "xgrammar==0.2.8", "fastapi", "partial-json-parser", "llguidance", "einops"),
    ),
    ("test_vllm.py", "test_vllm_machinery.py", "test_vllm_own_tests.py", "test_vllm_rules.py"),
    Sources(
        "tests/distributed",
        ("setuptools>=77,<81", "setuptools-rust", "setuptools-scm", "wheel"),
        {"VLLM_TARGET_DEVICE": "empty", "VLLM_VERSION_OVERRIDE": "0.33.0"},
    ),
)
SGLANG = Engine(
    "sglang",
    "0.5.23",
    (*COMMON, "orjson", "pybase64", "pillow", "starlette", "msgspec", "ipython", "einops"),
    ("test_sglang.py", "test_sglang_machinery.py", "test_sglang_rules.py"),
)
ASCEND = Engine(
    "vllm-ascend",
    "0.23.0",
    (),
    ("test_vllm_ascend.py", "test_vllm_ascend_rules.py"),
    Sources("tests/ut/eplb", (), {"SOC_VERSION": "ascend910b1"}),
    host=VLLM,
)
ENGINES = {engine.name: engine for engine in (VLLM, SGLANG, ASCEND)}


def build(engine: Engine) -> None:
    """Build the environment of ``engine`` if it is not there whole."""
    if engine.host:
        build(engine.host)
    finished = engine.folder / "finished"
    if not finished.exists() or finished.read_text() != engine.recipe:
        print(f"building {engine.folder}", flush=True)
        if engine.host:
            _add_to_host(engine)
        else:
            _make_environment(engine)
        if engine.sources:
            _fetch_tests(engine, engine.sources)
        finished.write_text(engine.recipe)
    if not engine.host:
        share(engine)


def _make_environment(engine: Engine) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(engine.folder)], check=True)
    share(engine)
    constraints = engine.folder / "constraints.txt"
    constraints.write_text("".join(f"{package}=={version(package)}\n" for package in SHARED))
    needs = (*engine.needs, *(engine.sources.needs if engine.sources else ()))
    _pip(engine, "install", "--constraint", str(constraints), *needs)
    # Last, because its demands are not met.
    _pip(engine, "install", "--no-deps", f"{engine.name}=={engine.version}")


def _add_to_host(engine: Engine) -> None:
    shutil.rmtree(engine.folder, ignore_errors=True)
    _pip(engine, "install", "--no-deps", "--target", str(engine.folder), f"{engine.name}=={engine.version}")


def _fetch_tests(engine: Engine, sources: Sources) -> None:
    """Keep the engine's own tests, from its source distribution, in the folder ``own_tests``."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = f"{engine.name}=={engine.version}"
        options = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", folder)
        _pip(engine, "download", *options, wanted, **sources.variables)
        (archive,) = Path(folder).iterdir()
        with tarfile.open(archive) as file:
            members = [m for m in file.getmembers() if m.name.split("/", 1)[-1].startswith(f"{sources.tests}/")]
            for member in members:
                member.name = member.name.split("/", 1)[1]
            file.extractall(engine.folder / "own_tests", members=members, filter="data")


def _pip(engine: Engine, command: str, *arguments: str, **variables: str) -> None:
    call = [str(engine.python), "-m", "pip", command, "--quiet", *arguments]
    subprocess.run(call, check=True, env={**os.environ, **variables})


def share(engine: Engine) -> None:
    """Let the environment see what is installed beside the interpreter that runs this file, whichever that is now."""
    folder = engine.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (folder / "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n")


@contextmanager
def installed(engine: Engine) -> Iterator[dict[str, str]]:
    """Install equipoise from this tree for ``engine``, in front of all else; yield the variables that say so."""
    with tempfile.TemporaryDirectory() as target:
        _pip(engine, "install", "--no-deps", "--target", target, str(ROOT))
        compiled = engine.folder / "compiled"
        compiled.mkdir(exist_ok=True)
        yield {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([target, *([str(engine.folder)] if engine.host else [])]),
            "NUMBA_CACHE_DIR": str(compiled),
            "EQUIPOISE_ENGINE_FOLDER": str(engine.folder),
        }


def run(engine: Engine) -> int:
    """Run the tests of ``engine`` in its environment; return their exit status."""
    with installed(engine) as environment:
        tests = [str(ROOT / "tests" / "engines" / "real" / name) for name in engine.tests]
        command = [str(engine.python), "-m", "pytest", "-m", "engines", *tests]
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
        status = max(status, abs(run(ENGINES[name])))  # negative where a signal ended it
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
