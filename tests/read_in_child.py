"""Reads files that are made to fill the memory or never to end, each in a child of its own with limits on both.

Run as a program: a line of JSON on stdin names a reader and a path, a line on stdout says what came of it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import warnings
from typing import Any

import equipoise as eq
from equipoise.engines.formats import read_placement
from equipoise.errors import EquipoiseError
from equipoise.load import read_load

READERS = {"load": read_load, "placement": read_placement, "plan": eq.Plan.load}
SECONDS = 60  # before a child that does not end is killed; how long one takes is nobody's business here
BEYOND = 3 << 30  # bytes of address space beyond what the child starts with


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read(reader: str, path: str) -> tuple[str, str, int]:
    """Return "read", "refused" or "raw", what was said, and how many bytes the child took."""
    with open("/proc/self/statm", encoding="ascii") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + BEYOND
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.alarm(SECONDS)
    before = peak()
    try:
        outcome, said = "read", describe(READERS[reader](path))
    except EquipoiseError as error:
        outcome, said = "refused", str(error)
    except BaseException as error:
        outcome, said = "raw", f"{type(error).__name__}: {error}"[:1000]
    return outcome, said, peak() - before


def describe(found: Any) -> str:
    """Return the numbers that were read."""
    if found is None:
        return "nothing"
    array = found.tokens_per_expert if hasattr(found, "tokens_per_expert") else found
    array = getattr(getattr(array, "placement", array), "physical_to_logical", array)
    return str(array.tolist())[:1000]


def main() -> None:
    warnings.simplefilter("ignore")
    # What reading a plan needs is compiled here once, and not counted in each child.
    eq.Plan.from_json(eq.solve(eq.PlacementProblem([[2, 1]], eq.Cluster(1, 2)), "plain-greedy", threads=1).to_json())
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            os.write(writing, json.dumps(read(*json.loads(line))).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        sys.stdout.write((answer.decode() or json.dumps(["ended", f"with status {status}", 0])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
