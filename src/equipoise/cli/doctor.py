"""``equipoise doctor``: what is installed, what it runs on, and which implementation "auto" takes and why."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from equipoise import __version__
from equipoise.cli import options
from equipoise.cli.console import print_json, progress, results, show, show_table

__all__ = ["doctor"]

PACKAGES = {
    "numpy": "always needed: pip install numpy",
    "numba": "always needed: pip install numba",
    "torch": "optional, for tensors and devices: pip install equipoise[torch]",
    "triton": "optional, comes with torch for CUDA",
}


def doctor(as_json: options.AsJson = False) -> None:
    """Show versions, processors, devices, and which implementation "auto" takes and why.

    \b
    equipoise doctor
    """
    with progress("looking around"):
        versions = {package: _version(package) for package in PACKAGES}
        devices, trouble = _devices()
        found: dict[str, Any] = {
            "equipoise": __version__,
            "python": f"{platform.python_version()} ({platform.python_implementation()})",
            "platform": f"{platform.system()} {platform.machine()}",
            "versions": versions,
            "processors": {"usable": _usable(), "present": os.cpu_count()},
            "devices": devices,
            "torch_trouble": trouble,
            "kernel_cache": _kernel_cache(),
            "backends": _backends(),
            "auto": {kind: _auto(kind) for kind in dict.fromkeys(device["kind"] for device in devices)},
        }
    if as_json:
        print_json(found)
    else:
        _print(found)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _usable() -> int:
    from equipoise.threads import num_threads

    return num_threads()


def _devices() -> tuple[list[dict[str, Any]], str | None]:
    """Return the devices that a load may lie on, and what torch says if it cannot be imported."""
    found: list[dict[str, Any]] = [{"kind": "cpu", "name": platform.processor() or platform.machine()}]
    if importlib.util.find_spec("torch") is None:
        return found, None
    try:
        torch = importlib.import_module("torch")
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            memory = f"{about.total_memory / 2**30:.0f} GiB"
            found.append({"kind": "cuda", "name": f"cuda:{index} {about.name}, {memory}"})
    except Exception as error:  # a broken torch raises anything, and the doctor is there to say so
        return found, f"{type(error).__name__}: {error}"
    return found, None


def _kernel_cache() -> dict[str, Any]:
    """Say where compiled kernels are kept, and what is wrong with the folders that would come first."""
    try:
        numba = importlib.import_module("numba")
        if numba.config.DISABLE_JIT:
            return {"folder": None, "writable": False, "reason": "NUMBA_DISABLE_JIT is set, so nothing is compiled"}
        kept = importlib.import_module("equipoise.kernels.cache_folders")
        folders, trouble = kept.choose_folders(os.path.dirname(str(kept.__file__)), numba.config.CACHE_DIR)
    except Exception as error:  # numba may be broken in any way
        return {"folder": None, "writable": False, "reason": f"{type(error).__name__}: {error}"}
    kept_for, kernels = _kept()
    folder = str(folders[-1].path) if folders else None
    is_writable = folder is not None and os.access(folder, os.W_OK)
    advice = () if is_writable else ("set NUMBA_CACHE_DIR to a folder that you can write to, and nobody else",)
    reason = "; ".join((*trouble, *advice)) or None
    return {"folder": folder, "writable": is_writable, "reason": reason, "kernels": kernels, "compiled_for": kept_for}


def _kept() -> tuple[dict[str, int], int]:
    """Return for which processors kernels are kept, how many each, and how many of them run here."""
    import re

    numba: Any = importlib.import_module("numba")
    choose = importlib.import_module("equipoise.kernels.cache_folders").choose_folders
    target: Any = importlib.import_module("equipoise.kernels.target")
    package = Path(str(importlib.import_module("equipoise").__file__)).parent
    rooms = {path.parent for path in package.rglob("*.py")}
    folders = {folder.path for room in rooms for folder in choose(str(room), numba.config.CACHE_DIR)[0]}
    kept: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("equipoise.*.nbc"):
            found = re.fullmatch(r"(.*)-([0-9a-f]{32})-(.*)\.nbc", file.name)
            if found:
                kept.setdefault(found[3], set()).add(f"{found[1]}-{found[2]}")
    runs_here = {str(importlib.import_module("llvmlite.binding").get_host_cpu_name()), target.baseline()}
    usable: set[str] = set().union(*(kernels for name, kernels in kept.items() if name in runs_here))
    return {name: len(kernels) for name, kernels in sorted(kept.items())}, len(usable)


def _backends() -> list[dict[str, Any]]:
    from equipoise.backends import BACKENDS

    return [
        {
            "name": row.name,
            "runs_on": row.runs_on,
            "needs": list(row.needs),
            "missing": list(row.missing),
            "install": row.install if row.missing else None,
            "obstacle": row.obstacle,
        }
        for row in BACKENDS.values()
    ]


def _auto(kind: str) -> dict[str, str]:
    """Return what "auto" takes for a load on this kind of device, and why not the others."""
    from equipoise.backends import BACKENDS, choose_backend

    chosen = choose_backend("auto", kind)
    reasons = [f"the fastest that runs on {kind} with what is installed"]
    for row in BACKENDS.values():
        if row.name == chosen.name:
            continue
        if row.missing:
            reasons.append(f"{row.name} needs {' and '.join(row.missing)}")
        elif row.runs_on not in (kind, "any"):
            reasons.append(f"{row.name} runs on {row.runs_on}")
        else:
            reasons.append(f"{row.name} is slower there")
    return {"takes": chosen.name, "because": "; ".join(reasons)}


def _print(found: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    console = results()

    def line(name: str, text: str) -> None:
        """Print what something is."""
        show(console, f"{name:<13} {text}")

    line("equipoise", found["equipoise"])
    line("python", f"{found['python']} on {found['platform']}")
    for package, version in found["versions"].items():
        line(package, version or f"not installed ({PACKAGES[package]})")
    processors = found["processors"]
    line("processors", f"{processors['usable']} of {processors['present']} may be used, one thread each")
    for device in found["devices"]:
        line("device", device["name"] if device["kind"] == "cuda" else f"cpu {device['name']}")
    if found["torch_trouble"]:
        line("trouble", f"torch is installed and cannot be used: {found['torch_trouble']}")
    cache = found["kernel_cache"]
    where = f"{cache['folder']}, {'writable' if cache['writable'] else 'read-only'}" if cache["folder"] else "none"
    line("kernel cache", where)
    if cache.get("compiled_for"):
        each = ", ".join(f"{number} for {name}" for name, number in cache["compiled_for"].items())
        line("compiled", f"{each}; equipoise warmup compiles all that is missing")
    elif cache["folder"]:
        line("compiled", "nothing yet; equipoise warmup compiles everything")
    if cache["reason"]:
        line("", cache["reason"])
    show(console, "")

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("backend", "runs on", "needs", "state"):
        table.add_column(heading)
    for row in found["backends"]:
        state = "not here" if row["obstacle"] else "ready"
        table.add_row(row["name"], row["runs_on"], ", ".join(row["needs"]) or "nothing", state)
    show_table(console, table)
    show(console, "")
    for row in found["backends"]:
        if row["obstacle"]:
            line(row["name"], row["obstacle"])
    for kind, auto in found["auto"].items():
        line(f"auto on {kind}", f"takes {auto['takes']}: {auto['because']}.")
