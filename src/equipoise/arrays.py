"""Arrays at the door: whatever callers hold becomes checked numpy, and goes back as it came.

torch is looked for only among the modules that the caller has already imported, so that a
program without it never pays for it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InvalidInputError

__all__ = ["CheckedLoad", "as_load", "as_numpy", "as_windows", "is_torch", "like"]


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_numpy(value: Any, name: str) -> NDArray[Any]:
    """Return ``value`` as a numpy array on the host, or say why that cannot be."""
    if is_torch(value):
        if value.is_complex():
            raise InvalidInputError(f"{name} holds {str(value.dtype)[6:]} values; it must hold integers or floats.")
        if value.device.type == "meta" or value.is_quantized or value.layout != sys.modules["torch"].strided:
            raise InvalidInputError(
                f"{name} is a {value.layout} tensor of {value.dtype} on {value.device}, which cannot become a plain "
                "array; pass a dense tensor of integers or floats."
            )
        value = value.detach()
        if value.dtype.is_floating_point:
            value = value.double()  # bfloat16 has no numpy counterpart, and float64 holds every torch float
        return np.asarray(value.cpu().numpy())
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{name} is a masked array; say what the masked entries are, such as {name}.filled(0).")
    try:
        array = np.asarray(value)
    except ValueError:
        raise InvalidInputError(f"{name} is ragged; every row needs the same number of entries.") from None
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} holds {array.dtype} values; it must hold integers or floats.")
    return array


def like(template: Any, *arrays: NDArray[Any]) -> tuple[Any, ...]:
    """Return ``arrays`` as the same kind of array as ``template``, on the same device."""
    if is_torch(template):
        torch = sys.modules["torch"]
        return tuple(torch.from_numpy(np.ascontiguousarray(array)).to(template.device) for array in arrays)
    return arrays


def as_windows(value: Any, name: str = "load", axis: str = "window") -> NDArray[np.float64]:
    """Return a load as a read-only float64 copy of shape (num_windows, num_layers, num_logical_experts).

    A load of shape (num_layers, num_logical_experts) becomes one window. ``axis`` is the caller's
    word for the first axis.

    Raises
    ------
    InvalidInputError
        If it has not 2 or 3 axes, is empty, holds a NaN, an infinity or a negative number, or sums to
        more than a float64 can hold. The message names the first such entry.
    """
    value = getattr(value, "tokens_per_expert", value)  # LoadStatistics
    array = as_numpy(value, name)
    if array.ndim not in (2, 3):
        raise InvalidInputError(
            f"{name} has shape {array.shape}; it must be (layers, experts) or ({axis}s, layers, experts)."
        )
    if array.size == 0:
        raise InvalidInputError(f"{name} has shape {array.shape}, which is empty; it needs at least one of each.")
    array = np.array(array, dtype=np.float64, order="C")
    wrong = ~(np.isfinite(array) & (array >= 0))
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        axes = (axis, "layer", "expert")[-array.ndim :]
        where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=True))
        raise InvalidInputError(f"{name} is {array[index]} at {where}; loads must be finite and not negative.")
    array = array.reshape(-1, *array.shape[-2:])
    with np.errstate(over="ignore"):
        total = array.sum(axis=0).sum(axis=1)
    if not np.isfinite(total).all():
        layer = int(np.argmin(np.isfinite(total)))
        raise InvalidInputError(
            f"{name} of layer {layer} sums to more than float64 can hold; divide all loads by 1e10."
        )
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class CheckedLoad:
    """A load as ``as_load`` returned it, or some layers of one: whoever takes a load takes it as it is."""

    array: NDArray[np.float64]

    def __post_init__(self) -> None:
        self.array.setflags(write=False)


def as_load(value: Any, name: str = "load") -> NDArray[np.float64]:
    """Return a load as a read-only float64 array of shape (num_layers, num_logical_experts), steps summed.

    Raises
    ------
    InvalidInputError
        As ``as_windows`` does.
    """
    if isinstance(value, CheckedLoad):
        return value.array
    windows = as_windows(value, name, axis="step")
    load: NDArray[np.float64] = windows[0] if len(windows) == 1 else windows.sum(axis=0)
    load.setflags(write=False)
    return load
