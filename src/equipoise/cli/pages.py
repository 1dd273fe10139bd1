"""Pages of the commands that plan: what ``--report`` writes, one HTML file each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from equipoise.cli.bars import ratio

if TYPE_CHECKING:
    from equipoise.capacity import Capacity
    from equipoise.cli.contenders import Contender
    from equipoise.pages.html import Figure
    from equipoise.plan import Plan
    from equipoise.problem import PlacementProblem
    from equipoise.replan.frontier import Frontier

__all__ = ["compare_page", "plan_page", "replan_page", "slots_page"]


def plan_page(found: Plan, problem: PlacementProblem, source: str) -> str:
    """Return the page of a plan: what it reached, layer by layer, beside experts in order and what is proved."""
    from equipoise.cli.contenders import in_order
    from equipoise.pages import html

    before = in_order(problem).plan
    metrics, certificate = found.metrics, found.certificate
    answer = (
        f"Mean balancedness {metrics.mean_balancedness:.4f}, worst layer {metrics.worst_balancedness:.4f}; experts in "
        f"order come to {before.metrics.mean_balancedness:.4f} and {before.metrics.worst_balancedness:.4f}."
    )
    proof = (
        f"No placement can leave the busiest rank of a layer more than {ratio(certificate.mean_gap)} less, on average "
        f"over layers; {ratio(certificate.max_gap)} in the layer where least is proved."
    )
    pictures = [_layers(before, found), _worst_layer(before, found, problem), _gaps(found)]
    parts = [
        html.answer([answer, proof]),
        html.section("The plan", [html.facts([("load", source), *_lines(found.summary())])]),
        html.section("Pictures", [html.figure(picture) for picture in pictures]),
    ]
    return html.document(f"Plan for {source}", parts)


def compare_page(contenders: Sequence[Contender], problem: PlacementProblem, source: str) -> str:
    """Return the page that sets no balancing and strategies side by side."""
    from equipoise.pages import charts, html

    headings = ["", "mean balancedness", "worst layer", "mean gap", "largest gap", "duplicates"]
    rows = [
        [
            each.name,
            f"{each.plan.metrics.mean_balancedness:.4f}",
            f"{each.plan.metrics.worst_balancedness:.4f}",
            ratio(each.plan.certificate.mean_gap),
            ratio(each.plan.certificate.max_gap),
            f"{int(each.plan.metrics.num_duplicates.sum()):,}",
        ]
        for each in contenders
    ]
    layers = [float(layer) for layer in range(problem.num_layers)]
    curves = {each.name: (layers, each.plan.metrics.balancedness.tolist()) for each in contenders}
    svg = charts.lines(curves, "layer", "balancedness", [(1.0, "perfect")])
    text = "; ".join(f"{row[0]} {row[1]} on average, {row[2]} in its worst layer" for row in rows)
    picture = html.Figure("Balancedness of each layer, by each way to place", f"{text}.", svg)
    parts = [
        html.section("Side by side", [html.table(headings, rows, "The gap is to a bound that no placement can beat.")]),
        html.section("Picture", [html.figure(picture)]),
    ]
    cluster = problem.cluster
    return html.document(f"{source} on {cluster.num_slots:,} slots of {cluster.num_ranks:,} ranks", parts)


def slots_page(capacity: Capacity, source: str, answers: Sequence[str]) -> str:
    """Return the page of how many redundant experts a balancedness takes."""
    from equipoise.pages import charts, html

    points = capacity.points
    spare = [float(point.num_redundant_experts) for point in points]
    curves = {
        "mean of layers": (spare, [point.mean_balancedness for point in points]),
        "worst layer": (spare, [point.worst_balancedness for point in points]),
        "mean, at most": (spare, [point.mean_limit for point in points]),
        "worst, at most": (spare, [point.worst_limit for point in points]),
    }
    svg = charts.lines(
        curves, "redundant slots in a layer", "balancedness", [(capacity.target, "asked for")], dots=True
    )
    last = points[-1]
    text = (
        f"From {points[0].mean_balancedness:.4f} with {points[0].num_slots:,} slots to {last.mean_balancedness:.4f} "
        f"with {last.num_slots:,}, mean of layers."
    )
    headings = ["slots", "a rank", "redundant", "mean", "worst layer", "mean, at most", "worst, at most"]
    rows = [
        [
            f"{point.num_slots:,}",
            str(point.cluster.slots_per_rank),
            f"{point.num_redundant_experts:,}",
            *(
                f"{value:.4f}"
                for value in (
                    point.mean_balancedness, point.worst_balancedness, point.mean_limit, point.worst_limit,
                )
            ),
        ]
        for point in points
    ]  # fmt: skip
    picture = html.Figure("Balancedness against redundant slots, and what is proved to be out of reach", text, svg)
    parts = [
        html.answer(answers),
        html.section("Picture", [html.figure(picture)]),
        html.section("Sizes", [html.table(headings, rows, "Balancedness found, and proved limits.")]),
    ]
    return html.document(f"How many slots {source} takes", parts)


def replan_page(curve: Frontier, source: str, found: Plan | None) -> str:
    """Return the page of what transfers buy, from the placement in force."""
    import numpy as np

    from equipoise.pages import charts, html

    known = np.flatnonzero(~np.isnan(curve.mean_balancedness))
    budgets = [float(k) for k in known]
    curves = {
        "mean of layers": (budgets, curve.mean_balancedness[known].tolist()),
        "worst layer": (budgets, curve.worst_balancedness[known].tolist()),
    }
    svg = charts.lines(curves, "transfers in a layer, at most", "balancedness", [(1.0, "perfect")])
    knee = curve.knee
    text = (
        f"From {curve.mean_balancedness[known[0]]:.4f} with {known[0]} transfers a layer to "
        f"{curve.mean_balancedness[known[-1]]:.4f} with {known[-1]}; at {knee}, the knee, it is "
        f"{curve.mean_balancedness[knee]:.4f}."
    )
    picture = html.Figure("Balancedness against transfers", text, svg)
    parts = [
        html.answer([f"After {knee} transfers a layer each buys less than on average."]),
        html.section("Picture", [html.figure(picture)]),
    ]
    if found is not None:
        parts.append(html.section("The plan within the limit", [html.facts(_lines(found.summary()))]))
    return html.document(f"What moving buys for {source}", parts)


def _lines(summary: str) -> list[tuple[str, str]]:
    """Return the lines of a summary as names and what they say."""
    return [(line[:13].strip(), line[13:].strip()) for line in summary.splitlines()]


def _layers(before: Plan, found: Plan) -> Figure:
    from equipoise.pages import charts, html

    layers = [float(layer) for layer in range(found.placement.num_layers)]
    curves = {
        "planned": (layers, found.metrics.balancedness.tolist()),
        "experts in order": (layers, before.metrics.balancedness.tolist()),
    }
    svg = charts.lines(curves, "layer", "balancedness", [(1.0, "perfect")], dots=len(layers) < 3)
    text = (
        f"Planned {found.metrics.mean_balancedness:.4f} on average, experts in order "
        f"{before.metrics.mean_balancedness:.4f}."
    )
    return html.Figure("Balancedness of each layer", text, svg)


def _worst_layer(before: Plan, found: Plan, problem: PlacementProblem) -> Figure:
    import numpy as np

    from equipoise.pages import charts, html

    layer = int(before.metrics.balancedness.argmin())
    groups = {}
    for name, plan in (("experts in order", before), ("planned", found)):
        load = plan.placement.rank_load(problem.load)[layer] if plan.shares is None else None
        if load is None:
            assert plan.shares is not None
            load = plan.shares.rank_load(problem.load)[layer]
        groups[name] = (load / max(float(np.mean(load)), 1e-300)).tolist()
    svg = charts.bars(groups, "rank", "load / mean", 1.0)
    text = (
        f"Layer {layer}: the busiest rank carries {max(groups['experts in order']):.3f} times the mean with experts in "
        f"order, and {max(groups['planned']):.3f} times as planned."
    )
    return html.Figure("Rank loads of the layer that was worst", text, svg)


def _gaps(found: Plan) -> Figure:
    from equipoise.pages import charts, html

    gaps = [100 * float(gap) for gap in found.certificate.gap]
    svg = charts.bars({"gap": gaps}, "layer", "gap to the bound, %")
    most = max(range(len(gaps)), key=gaps.__getitem__)
    text = f"At most {gaps[most]:.2g} %, in layer {most}; 0 is proved optimal."
    return html.Figure("How far each layer may be from the best", text, svg)
