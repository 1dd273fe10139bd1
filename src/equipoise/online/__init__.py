"""Beside a serving engine: count, decide whether moving experts pays, and move them between forward passes.

    balancer = Balancer(placement, cluster, weights=weights, peers=peers)
    for batch in batches:
        counts = model(batch)             # tokens per expert of this step
        balancer.record(counts)
        if balancer.step():
            model.use(balancer.placement)

================  =========================================================================
file              idea
================  =========================================================================
``window.py``     what of the past counts: a sum over the last steps, or an average that forgets
``counts.py``     what an engine counts in a step, checked
``policy.py``     when moving pays: a token-weighted gain, a fixed interval, a threshold
``counters.py``   what happened, as plain numbers and as Prometheus gauges
``planning.py``   a plan and its schedule, made in a thread beside the engine, and what is expected of it
``settings.py``   what a balancer is told, checked before it begins
``movers.py``     who moves what, and what the ranks of a group find together
``balancer.py``   the loop: record, plan in the background, weigh, migrate or wait
``sharded.py``    one plan made by many ranks, each some of the layers
================  =========================================================================
"""

from equipoise.online.balancer import Balancer, Decision
from equipoise.online.counters import Counters
from equipoise.online.policy import FixedInterval, Outlook, Threshold, TokenGain
from equipoise.online.sharded import plan_sharded
from equipoise.online.window import ExponentialAverage, SlidingSum

__all__ = [
    "Balancer",
    "Counters",
    "Decision",
    "ExponentialAverage",
    "FixedInterval",
    "Outlook",
    "SlidingSum",
    "Threshold",
    "TokenGain",
    "plan_sharded",
]
