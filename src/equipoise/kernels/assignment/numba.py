"""The assignment problem, native: shortest augmenting paths, cubic in the number of rows."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import native

__all__ = ["assign"]


@native
def assign(cost):  # type: ignore[no-untyped-def]
    """Return for each column the row that takes it at the least total cost: one shortest augmenting path a row."""
    n = len(cost)
    row_price, column_price = np.zeros(n + 1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
    row_of, came_from = np.full(n + 1, -1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
    distance, done = np.empty(n + 1, dtype=np.int64), np.empty(n + 1, dtype=np.bool_)
    for row in range(n):
        row_of[n] = row  # column n is where every path starts
        distance[:] = np.iinfo(np.int64).max
        done[:] = False
        at = n
        while row_of[at] >= 0:
            done[at] = True
            nearest, shortest = -1, np.iinfo(np.int64).max
            for column in range(n):
                if done[column]:
                    continue
                reach = cost[row_of[at], column] - row_price[row_of[at]] - column_price[column]
                if reach < distance[column]:
                    distance[column] = reach
                    came_from[column] = at
                if distance[column] < shortest:
                    nearest, shortest = column, distance[column]
            for column in range(n + 1):
                if done[column]:
                    row_price[row_of[column]] += shortest
                    column_price[column] -= shortest
                elif column < n:
                    distance[column] -= shortest
            at = nearest
        while at != n:
            row_of[at] = row_of[came_from[at]]
            at = came_from[at]
    return row_of[:n]
