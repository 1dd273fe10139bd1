"""What the next window will bring, from past ones: expected loads, and how wrong forecasts were. The contract.

    scale(windows, threads) -> share, tokens
    look(share, tokens, times, threads) -> sums, number
    project(share, tokens, times, alpha, noise, threads) -> ahead

``windows`` float64 [windows, layers, experts], oldest first. ``share`` has the same shape: each layer's window scaled
to a mean of 1 over its experts; ``tokens`` float64 [windows, layers] is what it summed to. A window without tokens is
left out for that layer. A *time* is the last window that is known; what is said of it rests on the last
``MOST_WINDOWS`` windows up to it, on those with tokens: n of them.

``look`` returns of each time and layer whole numbers, in ``WHOLE`` parts, whose sums over layers do not depend on the
layers' order: int64 [times, layers, 4]. With d_k the difference of the k-th window and the one before it, they are the
sums of ``d_k . d_(k-1)`` and of ``|d_k|^2``, of the windows as they are, then of the windows standardised: less their
mean m, over sqrt(m + .001). ``number`` int64 [times, layers] is n.

``project`` returns the forecast float64 [times, layers, experts], scaled as ``share``: an exponentially weighted
moving average with weight ``alpha`` for the newest window, projected by ridge regression on what the windows span;
``noise`` is the variance of one standardised load. Zeros where n is 0.

The arithmetic is float64 in plain loops, in the order of ``reference.py``: the same bits everywhere.

================  =========================================================================
file              idea
================  =========================================================================
``forecast.py``   the noun, the verb ``forecast``, and what a stream adds: one window
``smoothing.py``  the local level model: how fast the load moves, how noisy a window is
``numba.py``      the contract, native
``reference.py``  the contract in plain Python
================  =========================================================================
"""

from __future__ import annotations

from equipoise.forecasting.forecast import Forecast, forecast

__all__ = ["Forecast", "forecast"]
