"""What uneven shares are worth on placements, side by side: now, and when the load drifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from equipoise.cli.contenders import Contender

if TYPE_CHECKING:
    from rich.table import Table

    from equipoise.problem import PlacementProblem

__all__ = ["connected_one", "sharing_of", "sharing_table"]


def connected_one(problem: PlacementProblem, seed: int, threads: int | None) -> Contender:
    """Plan by the default strategy, with ranks connected."""
    import time

    from equipoise.solver import solve

    start = time.perf_counter()
    plan = solve(problem, seed=seed, threads=threads, connected=True)
    return Contender("connected", plan, time.perf_counter() - start)


def sharing_of(contenders: Sequence[Contender], problem: PlacementProblem, drift: float) -> list[dict[str, Any]]:
    """Return for each contender the mean balancedness with even and with the best shares, at once and after a drift."""
    from equipoise.dispatch import SHARES, count_components, flexibility

    rows: list[dict[str, Any]] = []
    for each in contenders:
        placement, row = each.plan.placement, {"name": each.name, "drift": drift}
        row["components"] = float(count_components(placement).mean())
        for kind in SHARES:
            row[f"{kind}_shares"] = float(flexibility(placement, problem.load, 0, samples=1, shares=kind).mean())
            row[f"{kind}_shares_after_drift"] = float(flexibility(placement, problem.load, drift, shares=kind).mean())
        rows.append(row)
    return rows


def sharing_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows as a table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("\n", no_wrap=True)
    for heading in ("shares now\neven    best", f"after {rows[0]['drift']:.0%} drift\neven    best", "\ncomponents"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['even_shares']:.4f}  {row['best_shares']:.4f}",
            f"{row['even_shares_after_drift']:.4f}  {row['best_shares_after_drift']:.4f}",
            f"{row['components']:.2f}",
        )
    return table
