"""The assignment problem: one row for each column, at the least total cost. The contract of all implementations.

    assign(cost) -> row_of

``cost`` int64 [n, n], sums below 2**62. ``row_of`` int64 [n]: the row that each column takes, each taken once.
No other choice has a smaller sum of ``cost[row_of[column], column]``. Of equal choices an implementation always
returns the same one, but implementations may differ.
"""
