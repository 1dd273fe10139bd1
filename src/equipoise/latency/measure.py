"""Times of a grouped expert GEMM on this machine's CUDA device, as a table that ``LatencyModel.fit`` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from equipoise.arguments import count
from equipoise.errors import InvalidInputError, MissingDependencyError

__all__ = ["ACTIVE", "TOKENS", "measure"]

ACTIVE = (1, 2, 4, 8)
TOKENS = (1, 4, 16, 64, 128, 256, 512)
REPEATS, WARM_UPS = 20, 3


def measure(
    hidden: int = 7168,
    intermediate: int = 2048,
    active: Sequence[int] = ACTIVE,
    tokens: Sequence[int] = TOKENS,
    step: Callable[[str], None] = lambda what: None,
) -> dict[str, list[float]]:
    """Time gate-and-up, SwiGLU and down projection of a rank's active experts, in bf16, on the current CUDA device.

    Parameters
    ----------
    hidden, intermediate : int
        Of one expert: its weights are ``[2 * intermediate, hidden]`` and ``[hidden, intermediate]``.
    active : sequence of int
        Numbers of active experts. Weights for the most of them must fit the device.
    tokens : sequence of int
        Tokens of each active expert.
    step : callable
        Told before each measurement what is measured.

    Returns
    -------
    dict
        ``active_experts``, ``tokens_per_active_expert`` and ``microseconds``, a list each.

    Raises
    ------
    MissingDependencyError
        If torch is not installed or finds no CUDA device.
    InvalidInputError
        If a number is not at least 1, or the weights do not fit the device.

    Notes
    -----
    All active experts get as many tokens, so that a grouped GEMM is a batched one (``torch.bmm``), each with weights
    of its own. It runs in a CUDA graph: what is timed are the reads of the weights and the multiplications, without the
    launches. What an engine's own kernel takes is measured by timing that, and fitting the table. The median of 20 runs
    is taken, the L2 cache written over before each.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("measuring needs torch; pip install torch.") from None
    if not torch.cuda.is_available():
        raise MissingDependencyError("measuring needs a CUDA device, and torch finds none; run it where there is one.")
    hidden, intermediate = count(hidden, "hidden", most=2**17), count(intermediate, "intermediate", most=2**17)
    active = sorted({count(each, "active", most=4096) for each in active})
    tokens = sorted({count(each, "tokens", most=2**16) for each in tokens})
    if not active or not tokens:
        raise InvalidInputError("active and tokens name nothing to measure; give at least one number of each.")
    try:
        return _measure(torch, (hidden, intermediate), active, tokens, step)
    except torch.cuda.OutOfMemoryError:
        raise InvalidInputError(
            f"{active[-1]} experts of {hidden} x {intermediate} do not fit the device; measure fewer active experts."
        ) from None


def _measure(
    torch: Any, shape: tuple[int, int], active: list[int], tokens: list[int], step: Callable[[str], None]
) -> dict[str, list[float]]:
    hidden, intermediate = shape
    options = {"device": "cuda", "dtype": torch.bfloat16}
    up = torch.randn(active[-1], 2 * intermediate, hidden, **options) * hidden**-0.5
    down = torch.randn(active[-1], hidden, intermediate, **options) * intermediate**-0.5
    cache = torch.empty(2**28, dtype=torch.uint8, device="cuda")  # larger than any L2
    table: dict[str, list[float]] = {"active_experts": [], "tokens_per_active_expert": [], "microseconds": []}
    for each in tokens:
        given = torch.randn(active[-1], each, hidden, **options)
        for number in active:
            step(f"{number} experts, {each} tokens")

            def run(number: int = number, given: Any = given) -> None:
                """Run both products of some experts."""
                gate, value = torch.bmm(given[:number], up[:number].transpose(1, 2)).chunk(2, dim=-1)
                torch.bmm(torch.nn.functional.silu(gate) * value, down[:number].transpose(1, 2))

            table["active_experts"].append(number)
            table["tokens_per_active_expert"].append(each)
            table["microseconds"].append(_median_time(torch, run, cache))
    return table


def _median_time(torch: Any, run: Callable[[], None], cache: Any) -> float:
    """Return the median time of ``run`` in microseconds, captured in a graph, with a cold L2 cache."""
    beside = torch.cuda.Stream()
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(WARM_UPS + REPEATS):
        cache.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(1e3 * begin.elapsed_time(end))
    return float(sorted(times[WARM_UPS:])[REPEATS // 2])
