"""What was routed where: load statistics, the readers that bring them in, and a generator of realistic ones.

    load = read_load("counts.json")                    # told apart by content
    load = generate_load("deepseek-v3", seed=0)        # nothing at hand: make one up
    problem = eq.PlacementProblem(load, cluster)

====================  =======================================================================
file                  idea
====================  =======================================================================
``statistics.py``     the noun: tokens per (window, layer, logical expert), and where from
``readers.py``        the table of file formats; a new format is one row there
``documents.py``      from a decoded document to the noun; a new JSON or dict layout is one row
``numpy_files.py``    .npy and .npz
``text_files.py``     JSON, and tables in text
``headers.py``        headers of several lines, one name a column
``records.py``        tables in JSON
``numbers.py``        what number a cell is, decimals and thousands
``column_files.py``   Parquet and Arrow, and other columns with names
``tables.py``         from a table to the noun: a row a count, or a row a layer
``columns.py``        what a column is, by its name
``torch_files.py``    .pt
``sglang_files.py``   SGLang's dumps and per-pass recordings
``folders.py``        several files as one load
``doubts.py``         placements that were taken for loads, and axes in another order
``recorded_files.py``  what our own plug-ins keep while an engine runs
``tensorrt_llm_files.py``  TensorRT-LLM's folders of statistics
``draws.py``          random numbers that are the same under every numpy
``generate.py``       loads that look like real ones, and the drift of a given one
====================  =======================================================================
"""

from __future__ import annotations

from equipoise.load.generate import PRESETS, LoadPreset, drift_load, generate_load
from equipoise.load.readers import read_load
from equipoise.load.statistics import LoadStatistics

__all__ = ["PRESETS", "LoadPreset", "LoadStatistics", "drift_load", "generate_load", "read_load"]
