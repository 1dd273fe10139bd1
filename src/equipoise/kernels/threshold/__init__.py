"""A lower bound on the busiest rank from the sizes of replicas. The contract and the proof.

    bound(load, low, achieved, num_ranks, slots_per_rank) -> float64 [layers]

``load`` float64 [layers, experts]; ``low`` float64 [layers], bounds known already; the result is never less.
``achieved`` float64 [layers], what some placement is known to reach, infinite where none is: the result is the same.

Let T be the busiest rank and 0 < theta <= T / 2. Call a replica large if it weighs more than T - theta, and small if at
most theta. A rank with a large replica has no second one (two weigh more than T), and its other S - 1
replicas weigh less than theta together, so they are all small. Therefore (S - 1) * large <= small, counted over
the layer. Give each large replica the price S - 1, each small one -1, and every slot a further price mu: an
expert with load w pays least with one of three counts, the least that T allows, the least that
makes its replicas not large, or the least that makes them small (for mu >= 1 more only adds). If the
least payments of all experts add up to more than mu * P, no counts that fill the P slots satisfy the
inequality, and T is impossible. Duplicates on a rank are allowed throughout.

The kernel tries a grid of theta, each a share of T, and a few mu, and for each theta halves a grid of T, from the
best that another theta has refuted on. Each refuted T is a bound by itself, so the coarse grids cost tightness, never
truth.
"""
