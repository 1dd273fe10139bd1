"""Arrays at the door: whatever callers hold becomes checked numpy, and goes back as it came.

torch is looked for only among the modules that the caller has already imported, so that a
program without it never pays for it.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import InvalidInputError, shown
from equipoise.limits import MOST_CELLS, MOST_LAYERS, MOST_LOADS, MOST_SLOTS

__all__ = [
    "CheckedLoad",
    "as_load",
    "as_load_and_steps",
    "as_numpy",
    "as_windows",
    "check_loads",
    "check_shape",
    "check_size",
    "check_table",
    "check_values",
    "in_parts",
    "is_torch",
    "like",
]

CHECKED_AT_ONCE = 1 << 20  # loads; what is refused takes no memory for a copy of all


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_numpy(value: Any, name: str) -> NDArray[Any]:
    """Return ``value`` as a numpy array on the host, or say why that cannot be."""
    if is_torch(value):
        check_size(tuple(value.shape), name)
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
    if _is_frame(value):
        value = _of_frame(value, name)
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{name} is a masked array; say what the masked entries are, such as {name}.filled(0).")
    try:
        array = np.asarray(_without_tensors(value, name))
    except InvalidInputError:
        raise
    except ValueError:
        raise InvalidInputError(f"{name} is ragged; every row needs the same number of entries.") from None
    except Exception:  # whatever the entries raise when they are to become numbers
        raise InvalidInputError(f"{name} is {shown(value)}; pass an array of integers or floats.") from None
    if array.dtype.kind not in "biuf":
        raise InvalidInputError(f"{name} holds {array.dtype} values; it must hold integers or floats.")
    check_size(array.shape, name)  # a view may be larger than any memory
    return array


def _is_frame(value: Any) -> bool:
    return isinstance(value, getattr(sys.modules.get("pandas"), "DataFrame", ()))


def _of_frame(frame: Any, name: str) -> Any:
    """Return the counts of a pandas DataFrame with a column for each expert: numbers that may lack as float64."""
    named = next((column for column in frame.columns if isinstance(column, str) and not re.search(r"\d", column)), None)
    if named is not None:
        raise InvalidInputError(
            f"{name} is a table with a column {shown(named)}, which is no expert; pass the counts alone, a column for "
            "each expert, or write the table to a file, which read_load reads."
        )
    kinds = list(frame.dtypes)
    if all(kind.kind in "iuf" for kind in kinds) and not all(isinstance(kind, np.dtype) for kind in kinds):
        return frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return frame.to_numpy()


def _without_tensors(value: Any, name: str, depth: int = 2) -> Any:
    """Return a list, or a list of lists, with arrays in place of torch tensors, whatever their type and device."""
    if depth and "torch" in sys.modules and isinstance(value, list | tuple) and value:
        if is_torch(value[0]):
            return [as_numpy(item, f"{name}[{i}]") if is_torch(item) else item for i, item in enumerate(value)]
        if isinstance(value[0], list | tuple):
            return [_without_tensors(item, f"{name}[{i}]", depth - 1) for i, item in enumerate(value)]
    return value


def check_loads(num_windows: int, num_layers: int, num_experts: int, name: str) -> None:
    """Insist that so many windows, layers and experts are no more than anybody has; see ``equipoise.limits``."""
    if num_layers > MOST_LAYERS or num_experts > MOST_SLOTS or num_windows * num_layers * num_experts > MOST_LOADS:
        raise InvalidInputError(
            f"{name} is of {shown(num_windows)} windows, {shown(num_layers)} layers and {shown(num_experts)} experts; "
            f"{MOST_LAYERS:,} layers of {MOST_SLOTS:,} experts are the most, and {MOST_LOADS:,} loads in all."
        )


def check_table(num_layers: int, num_columns: int, name: str) -> None:
    """Insist that a table with a column for each slot, or expert, is none that nobody has; see ``equipoise.limits``."""
    if num_columns > MOST_SLOTS or num_layers * num_columns > MOST_CELLS:
        raise InvalidInputError(
            f"{name} is of {shown(num_layers)} layers and {shown(num_columns)} slots or experts; {MOST_SLOTS:,} in a "
            f"layer are the most, and {MOST_CELLS:,} in all."
        )


def check_size(shape: tuple[int, ...], name: str) -> None:
    """Insist that an array of this shape holds no more numbers than are taken at once."""
    if math.prod(shape) > MOST_LOADS:
        raise InvalidInputError(f"{name} has shape {shape}; at most {MOST_LOADS:,} numbers are taken at once.")


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
    check_shape(array.shape, name, axis)
    check_values(in_parts(array), name, axis)
    plain = array.dtype == np.float64 and array.flags.c_contiguous and array.flags.aligned
    if not (plain and _is_immutable(array)):
        array = np.array(array, dtype=np.float64, order="C")  # only now is memory taken for it
    array = array.reshape(-1, *array.shape[-2:])
    array.setflags(write=False)
    return array


def _is_immutable(array: Any) -> bool:
    """Whether an array is of bytes, as what a file held is: nobody can write to these."""
    while isinstance(array, np.ndarray) and not array.flags.writeable:
        array = array.base
    return isinstance(array, bytes)


def in_parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array along its first axis, not much at once: checking takes memory for a part."""
    at_once = max(1, CHECKED_AT_ONCE // array[0].size)
    for first in range(0, len(array), at_once):
        yield array[first : first + at_once]


def check_shape(shape: tuple[int, ...], name: str, axis: str = "window") -> None:
    """Insist on the axes of a load, each with something in it, and no more than anybody has; see ``as_windows``."""
    if len(shape) not in (2, 3):
        axes = f"(layers, experts) or ({axis}s, layers, experts)"
        raise InvalidInputError(f"{name} has shape {shape}; it must be {axes}.")
    if 0 in shape:
        raise InvalidInputError(f"{name} has shape {shape}, which is empty; it needs at least one of each.")
    check_loads(shape[0] if len(shape) == 3 else 1, shape[-2], shape[-1], name)


def check_values(parts: Iterable[NDArray[Any]], name: str, axis: str) -> None:
    """Insist that every load is finite and not negative, and that the sums over windows and experts are finite too.

    ``parts`` are a load along its first axis, windows or layers, in order.
    """
    first, total = 0, np.zeros(1)
    for part in parts:
        is_sound = bool(part.min() >= 0)  # not of a NaN
        if part.dtype.kind == "f":  # so many whole numbers are no more than float64 can hold
            with np.errstate(over="ignore", invalid="ignore"):
                sums = part.sum(axis=(0, 2) if part.ndim == 3 else 1, dtype=np.float64)
            total = total + sums if part.ndim == 3 else sums
            is_sound &= bool(np.isfinite(total).all())
        if not is_sound:
            _name_the_first_wrong(part, first, name, axis)
            _check_sums(total, 0 if part.ndim == 3 else first, name)
        first += len(part)


def _name_the_first_wrong(part: NDArray[Any], first: int, name: str, axis: str) -> None:
    wrong = ~(np.isfinite(part) & (part >= 0))
    if wrong.any():
        at = [int(i) for i in np.argwhere(wrong)[0]]
        value = float(part[tuple(at)])
        at[0] += first
        where = ", ".join(f"{word} {i}" for word, i in zip((axis, "layer", "expert")[-len(at) :], at, strict=True))
        raise InvalidInputError(f"{name} is {value} at {where}; loads must be finite and not negative.")


def _check_sums(total: NDArray[np.float64], first: int, name: str) -> None:
    if not np.isfinite(total).all():
        layer = first + int(np.argmin(np.isfinite(total)))
        raise InvalidInputError(
            f"{name} of layer {layer} sums to more than float64 can hold; divide all loads by 1e10."
        )


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
    return as_load_and_steps(value, name)[0]


def as_load_and_steps(value: Any, name: str = "load") -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return a load as ``as_load`` does, and its steps, shape (num_steps, num_layers, num_logical_experts).

    None where there is one step.
    """
    if isinstance(value, CheckedLoad):
        return value.array, None
    windows = as_windows(value, name, axis="step")
    load: NDArray[np.float64] = windows[0] if len(windows) == 1 else windows.sum(axis=0)
    load.setflags(write=False)
    return load, windows if len(windows) > 1 else None
