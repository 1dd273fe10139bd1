"""Constants of GPUs, fitted by ``LatencyModel.fit`` to one published table, with the error that they leave on it."""

from __future__ import annotations

__all__ = ["FITTED", "GPUS", "PHASES", "SHAPES", "SOURCE"]

GPUS = ("h100", "h200", "b200", "gb200")
PHASES = ("decode", "prefill")

SHAPES: dict[str, tuple[int, int, float]] = {"deepseek-v3": (7168, 2048, 1.0)}
"""What was measured: hidden size, intermediate size of one expert, bytes of a weight."""

SOURCE = "grouped expert GEMM of one rank, fp8, measured in ai-dynamo/aiconfigurator (Apache-2.0), fitted here"

FITTED: dict[tuple[str, str], tuple[tuple[float, float, float, float], float]] = {
    ("h100", "decode"): ((21.33, 16.06, 11.23, 0.04959), 0.0089),
    ("h200", "decode"): ((20.23, 11.55, 5.084, 0.06096), 0.0180),
    ("b200", "decode"): ((19.32, 8.229, 2.558, 0.04115), 0.0260),
    ("gb200", "decode"): ((21.04, 7.653, 4.106, 0.032), 0.0313),
    ("h100", "prefill"): ((371.3, 0, 0, 0.08802), 0.0995),
    ("h200", "prefill"): ((358.2, 0.3271, 0, 0.07665), 0.0649),
    ("b200", "prefill"): ((294.1, 0, 0, 0.04981), 0.0818),
    ("gb200", "prefill"): ((495.2, 0, 0, 0.04377), 0.1021),
}
"""By GPU and phase: (fixed, floor, base, per_token) in microseconds, and the median of the relative error.

Decode is the masked kernel of 4 to 256 EP ranks; prefill the contiguous one, which is nearly flat to 256
tokens an expert whatever the number of active experts, and which this form fits less well.
"""
