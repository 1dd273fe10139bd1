"""Which setting to run, how sure that is, and the flags that switch it on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.traces.settings import Setting

__all__ = ["Recommendation", "recommend"]

Floats = NDArray[np.float64]
SURE = 2.0  # standard errors


@dataclass(frozen=True)
class Recommendation:
    """The best setting by a measure, against the next best.

    Attributes
    ----------
    best : Setting
    measure : str
        ``net_microseconds``, of which less is better, or ``balancedness_mean``, of which more is.
    value : float
    next_best : Setting or None
        None where there is no other.
    gain : float or None
        By how much the best is better than the next best, mean over windows.
    error : float or None
        Standard error of ``gain``, from the differences in each window, which it takes for independent; None with fewer
        than two windows.
    over_none : float or None
        By how much it is better than experts in order with as many slots, where they were replayed and are not it.
    """

    best: Setting
    measure: str
    value: float
    next_best: Setting | None
    gain: float | None
    error: float | None
    over_none: float | None
    flags: dict[str, str]

    @property
    def is_sure(self) -> bool:
        """Whether the gain is more than two standard errors."""
        return self.gain is not None and self.error is not None and self.gain > SURE * self.error

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "is_sure": self.is_sure}


def recommend(
    values: dict[Setting, Floats], measure: str, num_experts: int, window: int, baseline: dict[int, Floats]
) -> Recommendation | None:
    """Return the best of the settings by their ``values`` in each window, None if there are none.

    ``baseline`` holds the values of experts in order, by slots. Among equals the first.
    """
    sign = -1.0 if measure == "net_microseconds" else 1.0
    if not values:
        return None
    ordered = sorted(values, key=lambda setting: -sign * float(values[setting].mean()))
    best, following = ordered[0], ordered[1] if len(ordered) > 1 else None
    gain = error = over = None
    if following is not None:
        difference = sign * (values[best] - values[following])
        gain = float(difference.mean())
        error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else None
    if best.slots in baseline and best.planner != "none":
        over = float(sign * (values[best] - baseline[best.slots]).mean())
    return Recommendation(
        best, measure, float(values[best].mean()), following, gain, error, over, _flags(best, num_experts, window)
    )


def _flags(setting: Setting, num_experts: int, window: int) -> dict[str, str]:
    """Return what switches a setting on, for each engine; nothing where it needs no balancing."""
    spare, steps = setting.slots - num_experts, setting.every * window
    if setting.planner == "none":
        return {"vllm": "leave --enable-eplb out", "sglang": "leave --enable-eplb out"}
    if setting.planner == "first-window":
        return {
            "vllm": f"EQUIPOISE_VLLM_PLAN=plan.json vllm serve MODEL {_vllm(spare, steps)}",
            "sglang": f"python -m sglang.launch_server --model MODEL --ep-num-redundant-experts {spare} "
            "--init-expert-location map.json",
        }
    found = {}
    for engine, builtin in (("vllm", ("vllm",)), ("sglang", ("sglang-deepseek", "sglang-deepseek-vec"))):
        prefix = f"EQUIPOISE_{engine.upper()}"
        if setting.planner in builtin:
            variables = [f"{prefix}=0"]
        elif setting.planner in BUILT_IN:
            continue  # another engine's own
        else:
            variables = (
                [] if setting.planner in ("joint-descent", "forecast") else [f"{prefix}_STRATEGY={setting.planner}"]
            )
            if setting.max_transfers is not None:
                variables.append(f"{prefix}_MAX_TRANSFERS={setting.max_transfers}")
        start = (
            f"vllm serve MODEL {_vllm(spare, steps)}" if engine == "vllm" else _sglang(spare, steps, setting.planner)
        )
        found[engine] = " ".join([*variables, start])
    return found


BUILT_IN = ("vllm", "sglang-deepseek", "sglang-deepseek-vec", "deepseek-eplb")


def _vllm(spare: int, steps: int) -> str:
    config = {"num_redundant_experts": spare, "window_size": steps, "step_interval": steps}
    return f"--enable-expert-parallel --enable-eplb --eplb-config '{json.dumps(config)}'"


def _sglang(spare: int, steps: int, planner: str) -> str:
    algorithm = {"sglang-deepseek": "deepseek", "sglang-deepseek-vec": "deepseek_vec"}.get(planner, "auto")
    return (
        f"python -m sglang.launch_server --model MODEL --enable-eplb --ep-num-redundant-experts {spare} "
        f"--eplb-rebalance-num-iterations {steps} --eplb-algorithm {algorithm}"
    )
