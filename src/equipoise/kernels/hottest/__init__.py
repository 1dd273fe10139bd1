"""A lower bound on the busiest rank from the counts that the hottest expert can have. The contract and the proof.

    bound(load, low, achieved, num_ranks, slots_per_rank) -> float64 [layers]

``load`` float64 [layers, experts], each row descending; ``low`` float64 [layers], bounds known already; the result is
never less. ``achieved`` float64 [layers], what some placement is known to reach, infinite where none is: the result is
the same.

Let T be the busiest rank and 0 < theta < T / 2. Call a replica large if it weighs more than T - theta, and small if at
most theta. A rank with a large replica has no second one (two weigh more than T), and its other S - 1
replicas weigh less than theta together, so they are all small. Let L replicas be large. Then

between     what is neither large nor small lies on the other R - L ranks: it weighs at most (R - L) T;
company     the small ones are (S - 1) L at least;
elsewhere   for every phi > 0, the S (R - L) slots of the other ranks carry at most phi each, and besides no more than
            what replicas that are not large weigh above phi. The rest lies with the large replicas, on ranks that
            carry at most T each. So large replicas weigh w, the others min(replica, phi), and together these are no
            more than L T + S (R - L) phi.

Each is a sum over experts with a limit. Give every slot a price mu besides, and let each expert pay least: it keeps its
replicas large with some count, or takes the least that makes them not large, or (where that is cheaper)
small; more only adds. If the payments exceed the limit plus mu P, no counts that fill the P slots satisfy the
inequality.

The hottest expert pays for the count that it has. Every count is a case of its own, and T is impossible if every case
is refuted: each with theta just above the room T - w / c that its replicas leave, so that they are large, or a little
more. Counts that leave the others fewer slots than they need for T are none. Duplicates on a rank are allowed
throughout.

For each T the kernel tries a few theta and phi, and bisects on T. Each refuted T is a bound by itself, so the coarse
grids cost tightness, never truth. The price mu is found, not guessed: an expert pays the least of several amounts that
are linear in mu, so by how much the payments exceed the limit is concave in mu, and bisecting on its slope leads to the
price that refutes most. Any price would be a proof.

Joint descent asks for this bound too, of layers that one expert dominates: what no plan can reach is no target.
"""

from __future__ import annotations

__all__ = ["DOMINATES"]

DOMINATES = 4
"""Where the hottest expert has less than one part in so many of the load, its counts prove next to nothing."""
