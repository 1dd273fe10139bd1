"""The assignment problem, native: shortest augmenting paths, cubic in the number of rows."""

from __future__ import annotations

import numpy as np

from equipoise.kernels.native import native

__all__ = ["assign"]


@native
def assign(cost):
    """Return for each column the row that takes it at the least total cost: one shortest augmenting path a row.

    Prices keep every reduced cost at 0 or more, and are changed once a path: a column that a path passed at distance
    d, when the path ends at distance D, becomes D - d dearer to all rows. Of columns equally near, a free one ends the
    path at once; with overlaps for costs, which tie often, most paths are short for that reason.
    """
    n = len(cost)
    row_price, column_price = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    row_of, column_of = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    distance, came_from = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    open_columns = np.empty(n, dtype=np.int64)
    for start in range(n):
        distance[:] = np.iinfo(np.int64).max
        for column in range(n):
            open_columns[column] = column
        num_open, row, reached = n, start, np.int64(0)
        end = -1
        while end < 0:
            nearest, shortest = -1, np.iinfo(np.int64).max
            base = reached - row_price[row]
            for i in range(num_open):
                column = open_columns[i]
                reach = base + cost[row, column] - column_price[column]
                if reach < distance[column]:
                    distance[column] = reach
                    came_from[column] = row
                tie = distance[column] == shortest
                if distance[column] < shortest or (tie and row_of[column] < 0 <= row_of[open_columns[nearest]]):
                    nearest, shortest = i, distance[column]
            reached = shortest
            column = open_columns[nearest]
            # The open columns are the first ones; the closed ones stay behind them, for the prices.
            num_open -= 1
            open_columns[nearest], open_columns[num_open] = open_columns[num_open], column
            if row_of[column] < 0:
                end = column
            else:
                row = row_of[column]
        row_price[start] += reached
        for i in range(num_open, n):
            column = open_columns[i]
            if column != end:
                row_price[row_of[column]] += reached - distance[column]
                column_price[column] -= reached - distance[column]
        column = end
        while True:
            row = came_from[column]
            row_of[column] = row
            column, column_of[row] = column_of[row], column
            if row == start:
                break
    return row_of
