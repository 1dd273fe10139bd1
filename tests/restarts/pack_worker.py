"""Run packing kernels in a process of their own: ``python pack_worker.py CASES PLANS``, both pickled.

Some settings (interpret Triton, do not compile) are read at import, and so need a fresh process.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import numpy as np

from equipoise.restarts import Settings, counter


def main(cases: Path, plans: Path) -> None:
    """Pack every (backend, weight, num_packs, settings, seed) of one file, and write the plans to the other."""
    results = []
    for backend, weight, num_packs, settings, seed in pickle.loads(cases.read_bytes()):
        kernel = importlib.import_module(f"equipoise.restarts.{backend}")
        plan = kernel.pack(weight, num_packs, Settings(*settings), counter.row_key(weight, seed))
        results.append(tuple(np.asarray(array) for array in plan))
    plans.write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
