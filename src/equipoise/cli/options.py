"""The words that several commands share, each written once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equipoise.errors import InvalidInputError, counted, shown

if TYPE_CHECKING:
    from equipoise.latency import LatencyModel
    from equipoise.models import Model
    from equipoise.problem import PlacementProblem

__all__ = [
    "AsJson",
    "Backend",
    "FirstLayer",
    "Gpu",
    "Groups",
    "Key",
    "Loads",
    "ModelName",
    "MaxGap",
    "MtpLayers",
    "Nodes",
    "Parameters",
    "Ranks",
    "Report",
    "Seed",
    "SkipEmpty",
    "Slots",
    "Strategy",
    "Threads",
    "check_report",
    "Timing",
    "TokensPerRank",
    "TopK",
    "checked_balancedness",
    "checked_gap",
    "how_of",
    "latency_of",
    "layers",
    "parse_parameters",
    "strategy_or_default",
    "write_report",
    "timing_note",
    "timing_of",
]

Loads = Annotated[
    list[Path],
    typer.Argument(
        metavar="LOADS...",
        help="Tokens per expert: .npy, .npz, .json, .csv, .pt or .parquet, of shape (layers, experts) or (steps, "
        "layers, experts), a table of layer, expert and count, or a folder that an engine wrote; gzipped or not, told "
        "apart by content. Several are joined, - is standard input.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option("--key", metavar="NAME", help="Which array of LOADS to read, where there are several."),
]
Ranks = Annotated[int, typer.Option("--ranks", metavar="N", help="EP ranks.", show_default=False)]
Slots = Annotated[
    int,
    typer.Option(
        "--slots", metavar="N", help="Slots in a layer, over all ranks; a multiple of --ranks.", show_default=False
    ),
]
Nodes = Annotated[int, typer.Option("--nodes", metavar="N", help="Nodes that the ranks are spread over.")]
Groups = Annotated[
    int | None,
    typer.Option(
        "--groups",
        metavar="N",
        help="Expert groups that must stay whole on a node, where --nodes divides them. Left out: plan globally.",
    ),
]
Strategy = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="How to plan; [bold]equipoise compare[/bold] shows them all side by side. Left out: the library's own.",
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the strategy, such as restarts=512. Repeatable."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Everything random follows from it.")]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="Which implementation runs; it never changes the plan. See [bold]equipoise doctor[/bold].",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Left out: all processors. It never changes the plan."),
]
MaxGap = Annotated[
    float | None,
    typer.Option(
        "--max-gap",
        metavar="X",
        help="Ask for a gap to the lower bound of at most X in every layer, 0.001 for 0.1 %; exit code 1 if missed.",
    ),
]
FirstLayer = Annotated[
    int | None,
    typer.Option(
        "--first-layer",
        metavar="N",
        help="The model's id of the first layer, 3 for DeepSeek-V3 planned without its dense layers. Left out: as IN "
        "says, else 0.",
    ),
]
MtpLayers = Annotated[
    int,
    typer.Option(
        "--mtp-layers",
        metavar="N",
        help="Add rows for N draft layers (multi-token prediction) after the last, which nothing is known of: expert i "
        "in every slot that is i modulo the experts.",
    ),
]
SkipEmpty = Annotated[
    bool, typer.Option("--skip-empty", help="Leave out layers without tokens: dense layers, as some recorders write.")
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write a page with pictures there: one HTML file. Needs matplotlib."),
]
Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        metavar="NAME",
        help="Show microseconds, and plan for them: h100, h200, b200 or gb200, or four numbers "
        "FIXED,FLOOR,BASE,PER_TOKEN as [bold]equipoise latency[/bold] prints. Needs --tokens-per-rank.",
    ),
]
TokensPerRank = Annotated[
    str | None,
    typer.Option(
        "--tokens-per-rank",
        metavar="N,N",
        help="With --gpu: tokens of each rank in one step, one batch size or several.",
    ),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", metavar="N", help="With --gpu: experts of a token. Left out: of --model, or 8.")
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Take experts, groups, top k and bytes per expert of a model, such as deepseek-v3, qwen3-235b or kimi-k2; "
        "[bold]equipoise models[/bold] lists them with their sources.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead, for machines.")]


TOP_K = 8


def check_report(path: Path | None) -> None:
    """Insist, before anything slow begins, that a page can be drawn and written to ``path``, if it is asked for."""
    from equipoise.files import check_writable
    from equipoise.pages.pictures import check_plotting

    if path is not None:
        check_plotting()
        check_writable(path)


def write_report(path: Path, page: str) -> None:
    """Write a page, whole or not at all."""
    from equipoise.files import write_atomically

    write_atomically(path, page.encode())


@dataclass(frozen=True)
class Timing:
    """What ``--gpu`` and the options beside it say."""

    latency: LatencyModel
    tokens_per_rank: tuple[float, ...]
    top_k: int

    def routed(self, num_ranks: int) -> tuple[float, ...]:
        """Return routed tokens of all ranks in one step, for each batch size."""
        return tuple(size * num_ranks * self.top_k for size in self.tokens_per_rank)

    def asked(self, problem: PlacementProblem, ranks: int | None = None) -> PlacementProblem:
        """Return the problem in time, with tokens on so many ``ranks``; None for all of its cluster.

        Raises
        ------
        InvalidInputError
            If a token goes to more experts than there are.
        """
        if self.top_k > problem.num_logical_experts:
            raise InvalidInputError(
                f"--top-k is {self.top_k}, and the load is of {counted(problem.num_logical_experts, 'expert')}; name "
                "how many of them a token goes to."
            )
        routed = self.routed(problem.cluster.num_ranks if ranks is None else ranks)
        return replace(problem, latency=self.latency, routed_per_step=routed)


def timing_of(
    gpu: str | None, tokens_per_rank: str | None, top_k: int | None, model: Model | None = None
) -> Timing | None:
    """Return what ``--gpu`` asks for, None without it; of a ``model``, its top k and the shape of its experts.

    Raises
    ------
    InvalidInputError
        If one of the options is no number, or given without ``--gpu``, or ``--gpu`` without batch sizes.
    UnknownNameError
        If no preset has that name.

    Examples
    --------
    >>> timing_of("h200", "4,64", None).routed(32)
    (1024.0, 16384.0)
    """
    from equipoise.arguments import count

    if gpu is None:
        for name, value in (("--tokens-per-rank", tokens_per_rank), ("--top-k", top_k)):
            if value is not None:
                raise InvalidInputError(f"{name} is given without --gpu, which says what tokens cost; add --gpu h200.")
        return None
    if tokens_per_rank is None:
        raise InvalidInputError("--gpu needs batch sizes: add --tokens-per-rank, such as 4,64,256.")
    sizes = _numbers(tokens_per_rank, "--tokens-per-rank")
    if not all(0 < size < float("inf") for size in sizes):
        raise InvalidInputError(
            f"--tokens-per-rank is {shown(tokens_per_rank)}; its numbers must be finite and above 0."
        )
    known = TOP_K if model is None else model.experts_per_token
    many = known if top_k is None else count(top_k, "--top-k", most=2**17)
    return Timing(latency_of(gpu, **shape_of(model)), tuple(sorted(set(sizes))), many)


def shape_of(model: Model | None) -> dict[str, Any]:
    """Return what ``LatencyModel.preset`` asks of a model's experts, nothing without one."""
    if model is None:
        return {}
    return {
        "hidden": model.hidden, "intermediate": model.intermediate, "bytes_per_weight": model.format.bits / 8
    }  # fmt: skip


def latency_of(gpu: str, phase: str = "decode", **shape: Any) -> LatencyModel:
    """Return what ``--gpu`` names: a preset, for a ``shape`` as ``LatencyModel.preset`` takes it, or four numbers."""
    from equipoise.latency import LatencyModel

    if "," not in gpu:
        return LatencyModel.preset(gpu, phase, **shape)
    constants = _numbers(gpu, "--gpu")
    if len(constants) != 4:
        raise InvalidInputError(f"--gpu is {shown(gpu)}; four numbers are FIXED,FLOOR,BASE,PER_TOKEN.")
    if not all(0 <= number < float("inf") for number in constants):
        raise InvalidInputError(f"--gpu is {shown(gpu)}; its numbers must be microseconds, finite and not negative.")
    fixed, floor, base, per_token = constants
    return LatencyModel(fixed, floor, base, per_token, source="as given")


def timing_note(timing: Timing) -> str:
    """Say what the column of microseconds is."""
    sizes = ", ".join(f"{size:g}" for size in timing.tokens_per_rank)
    return (
        f"us a layer: what the busiest rank is expected to take at {sizes} tokens a rank, mean of\nlayers with tokens; "
        "all replicas are active but in the plan in time.\n"
        f"model: {timing.latency.describe()}"
    )


def _numbers(text: str, name: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"{name} is {shown(text)}; it must be numbers with commas between.") from None


def parse_parameters(texts: list[str] | None) -> dict[str, Any]:
    """Return what ``--set`` gave: whole numbers, other numbers, true and false, else text.

    Raises
    ------
    InvalidInputError
        If a text is not NAME=VALUE, or a name comes twice.

    Examples
    --------
    >>> parse_parameters(["restarts=512", "noise=0.1"])
    {'restarts': 512, 'noise': 0.1}
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise InvalidInputError(f"--set is {shown(text)}; it must be NAME=VALUE, such as restarts=512.")
        if name in found:
            raise InvalidInputError(f"--set gives {name} twice; keep one of them.")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    for read in (int, float, {"true": True, "false": False}.__getitem__):
        try:
            return read(text)
        except (ValueError, KeyError):
            continue
    return text


def checked_gap(max_gap: float | None) -> float | None:
    """Return ``--max-gap`` if it is a gap: finite and not negative."""
    if max_gap is not None and not 0 <= max_gap < float("inf"):
        raise InvalidInputError(f"--max-gap is {max_gap}; it must be finite and not negative, such as 0.001 for 0.1 %.")
    return max_gap


def checked_balancedness(balancedness: float) -> float:
    """Return ``--balancedness`` if it is one: above 0 and at most 1."""
    if not 0 < balancedness <= 1:
        raise InvalidInputError(
            f"--balancedness is {balancedness}; it must be above 0 and at most 1, such as 0.99. 1 is perfect balance."
        )
    return balancedness


def how_of(
    strategy: str | None,
    parameters: list[str] | None,
    seed: int,
    backend: str,
    threads: int | None,
    max_gap: float | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what ``solve`` is told of how to plan, and the parameters of the strategy, all of them checked.

    Raises
    ------
    UnknownNameError
        If no strategy, backend or parameter has that name.
    InvalidInputError
        If a number is none that it can be.
    """
    from equipoise.how import How
    from equipoise.strategies import parameters_of

    chosen, given = strategy_or_default(strategy), parse_parameters(parameters)
    if checked_gap(max_gap) is not None and "max_gap" in parameters_of(chosen):
        given.setdefault("max_gap", max_gap)  # a strategy that can aim at a gap stops there
    how: dict[str, Any] = {"strategy": chosen, "seed": seed, "backend": backend, "threads": threads}
    How.of(**how, **given)
    return how, given


def strategy_or_default(name: str | None) -> str:
    """Return ``name``, or for None the strategy that ``equipoise.solve`` takes by itself."""
    from equipoise.strategies import DEFAULT

    return DEFAULT if name is None else name


def layers(numbers: tuple[int, ...]) -> str:
    """Spell ascending layer numbers, runs of three or more shortened.

    >>> layers((0, 1, 2, 9)), layers((4,))
    ('layers 0-2, 9', 'layer 4')
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"layer{'' if len(numbers) == 1 else 's'} {', '.join(parts)}"
