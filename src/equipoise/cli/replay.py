"""``equipoise replay``: what planners would have been worth on a recorded trace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.cli import options
from equipoise.cli.console import advancing, print_json, progress
from equipoise.errors import InvalidInputError, shown

if TYPE_CHECKING:
    from equipoise.traces.result import Replay

__all__ = ["replay"]

INTERRUPTED = 130  # as shells count it

TracePath = Annotated[
    Path,
    typer.Argument(
        metavar="TRACE",
        help="Steps or windows: .npy or .npz of shape (steps, layers, experts), CSV with layer, expert, count, a "
        "folder of dumps, or tokens (see --tokens-per-step). Read in pieces.",
        show_default=False,
    ),
]
SlotsList = Annotated[
    str, typer.Option("--slots", metavar="N,...", help="Slots in a layer, one number or several.", show_default=False)
]
Every = Annotated[str, typer.Option("--every", metavar="N,...", help="Windows from plan to plan, one or several.")]
Limits = Annotated[
    str,
    typer.Option(
        "--max-transfers", metavar="N,...", help="Transfers a layer for each plan, at most; none for no limit."
    ),
]
Planners = Annotated[
    list[str] | None,
    typer.Option(
        "--planner",
        metavar="NAME",
        help="none, first-window, oracle, forecast, a strategy, or an engine's own: vllm, sglang-deepseek, "
        "sglang-deepseek-vec, deepseek-eplb. Repeatable. Left out: none, first-window, plain-greedy, "
        "joint-descent, oracle.",
    ),
]
Window = Annotated[int, typer.Option("--window", metavar="N", help="Steps of TRACE that are one window.")]
History = Annotated[
    int | None,
    typer.Option("--history", metavar="N", help="Windows to plan from. Left out: those since the plan before."),
]
Dispatch = Annotated[
    str | None,
    typer.Option(
        "--dispatch",
        metavar="RULE",
        help="Also score single steps by an engine's rule: even, best, vllm, sglang-static, sglang-dynamic, "
        "tensorrt-llm, ascend.",
    ),
]
TopK = Annotated[int | None, typer.Option("--top-k", metavar="K", help="Experts that the router chooses for a token.")]
TokensPerStep = Annotated[
    int | None,
    typer.Option(
        "--tokens-per-step",
        metavar="N",
        help="TRACE holds the experts of tokens, (tokens, layers, k), N of them a step.",
    ),
]
Bytes = Annotated[
    int | None,
    typer.Option(
        "--bytes-per-expert",
        metavar="N",
        help="Size of one expert's weights in one layer: what moving takes. Left out: as --gpu is for.",
    ),
]
Links = Annotated[
    str | None,
    typer.Option("--links", metavar="NODE,REMOTE", help="Bytes a second within and between nodes, such as 200e9,25e9."),
]
Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="Also score in microseconds, as measured on h100, h200, b200 or gb200, or by four "
        "numbers FIXED,FLOOR,BASE,PER_TOKEN as [bold]equipoise latency[/bold] prints.",
    ),
]
Phase = Annotated[str, typer.Option("--phase", metavar="NAME", help="decode or prefill: which kernels --gpu means.")]
Hidden = Annotated[
    int | None,
    typer.Option("--hidden", metavar="N", help="Hidden size, where it is not DeepSeek-V3's: times become an estimate."),
]
Intermediate = Annotated[
    int | None, typer.Option("--intermediate", metavar="N", help="The same of one expert's inside.")
]
WeightBytes = Annotated[
    float | None, typer.Option("--bytes-per-weight", metavar="X", help="1 for fp8, 2 for bf16. Left out: 1.")
]
Moving = Annotated[
    str,
    typer.Option("--moving", metavar="HOW", help="stalled: steps wait while weights move; overlapped: they do not."),
]
Resume = Annotated[
    Path | None,
    typer.Option("--resume", metavar="FILE", help="Go on with an interrupted replay: FILE is what --json printed."),
]


def replay(
    trace: TracePath,
    ranks: options.Ranks,
    slots: SlotsList,
    every: Every = "1",
    max_transfers: Limits = "none",
    planner: Planners = None,
    window: Window = 1,
    history: History = None,
    nodes: options.Nodes = 1,
    groups: options.Groups = None,
    dispatch: Dispatch = None,
    top_k: TopK = None,
    tokens_per_step: TokensPerStep = None,
    bytes_per_expert: Bytes = None,
    links: Links = None,
    gpu: Gpu = None,
    phase: Phase = "decode",
    hidden: Hidden = None,
    intermediate: Intermediate = None,
    bytes_per_weight: WeightBytes = None,
    moving: Moving = "stalled",
    seed: options.Seed = 0,
    threads: options.Threads = None,
    key: options.Key = None,
    report: options.Report = None,
    resume: Resume = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what planners would have been worth on a recorded trace: each plans from the past, and meets what came next.

    Ctrl-C keeps what is done; with --json it can be gone on with.

    \b
    equipoise replay steps.npz --ranks 8 --slots 40 --window 10
    equipoise replay dumps/ --ranks 32 --slots 288,320 --every 1,4,16 --max-transfers none,8,32 --report report.html
    equipoise replay steps.npy --ranks 32 --slots 288 --planner none --planner vllm --planner joint-descent --json
    """
    from equipoise.traces.planners import DEFAULTS
    from equipoise.traces.replay import replay as walk
    from equipoise.traces.trace import Trace

    latency = None
    if gpu is not None:
        latency = options.latency_of(
            gpu, phase, hidden=hidden, intermediate=intermediate, bytes_per_weight=bytes_per_weight
        )
        bytes_per_expert = bytes_per_expert or _bytes(hidden, intermediate, bytes_per_weight)
    before = None if resume is None else _read_before(resume)
    options.check_report(report)
    asked: dict[str, Any] = {
        "planners": tuple(planner) if planner else DEFAULTS,
        "slots": _numbers(slots, "--slots"),
        "every": _numbers(every, "--every"),
        "max_transfers": _numbers(max_transfers, "--max-transfers", none=True),
        "window": window, "history": history, "num_expert_groups": groups, "dispatch": dispatch,
        "experts_per_token": top_k, "bytes_per_expert": bytes_per_expert, "links": _links(links), "moving": moving,
        "latency": latency,
        "seed": seed, "threads": threads, "keep_interrupted": True, "resume": before,
    }  # fmt: skip
    cluster = _cluster(ranks, asked["slots"][0], nodes)
    with progress("reading"):
        read = Trace.read(trace, key=key, tokens_per_step=tokens_per_step)
    try:
        with advancing("replaying") as step:
            found = walk(read, cluster, progress=step, **asked)
    except KeyboardInterrupt:
        print("interrupted before anything was done; nothing is kept.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    _show(found, report, as_json)


def _show(found: Replay, report: Path | None, as_json: bool) -> None:
    if report is not None:
        from equipoise.traces.page import page

        options.write_report(report, page(found))
    if as_json:
        print_json({**found.to_dict(), "written_to": None if report is None else str(report)})
    else:
        print(found.summary())
        if report is not None:
            print(f"\n{'written to':<13} {report}")
    if found.interrupted:
        print(
            f"interrupted after {found.windows_done:,} of {found.num_windows:,} windows, which are kept. The output of "
            "--json can be gone on with: --resume FILE.",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED)


def _cluster(ranks: int, slots: int, nodes: int) -> Any:
    from equipoise.problem import Cluster

    return Cluster.from_slots(ranks, slots, nodes)


def _bytes(hidden: int | None, intermediate: int | None, bytes_per_weight: float | None) -> int:
    """Return the bytes of one expert: three matrices, of the shape that times are for."""
    from equipoise.latency.presets import SHAPES

    wide, deep, each = SHAPES["deepseek-v3"]
    return round(3 * (hidden or wide) * (intermediate or deep) * (bytes_per_weight or each))


def _read_before(path: Path) -> Any:
    from equipoise.decode.json import decode_json

    found = decode_json(path)
    if not isinstance(found, dict) or "rows" not in found:
        raise InvalidInputError(f"{path} is not what --json of a replay printed; name such a file.")
    return found


def _numbers(text: str, option: str, none: bool = False) -> list[int | None]:
    """Return the numbers of a list such as 288,320, and None for none where that may stand."""
    found: list[int | None] = []
    for part in text.split(","):
        cell = part.strip()
        if none and cell == "none":
            found.append(None)
        elif cell.isascii() and cell.isdigit() and len(cell) < 20:
            found.append(int(cell))
        else:
            either = ", or none," if none else ""
            raise InvalidInputError(
                f"{option} is {shown(text)}; it must be whole numbers{either} with commas between, such as 8,32."
            )
    return found


def _links(text: str | None) -> Any:
    from equipoise.migration.schedule import LinkSpeeds

    if text is None:
        return None
    try:
        node, remote = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidInputError(
            f"--links is {shown(text)}; it must be two speeds in bytes a second, such as 200e9,25e9."
        ) from None
    return LinkSpeeds(node=node, remote=remote)
