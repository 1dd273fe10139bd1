"""SGLang's ``per_token`` recordings: the experts of each token, forward pass by forward pass.

Beside what ``per_pass`` records (see ``equipoise.load.sglang_files``), each record has ``topk_ids_of_layer`` int32
[layers, tokens, k]: slots, -1 for none. They are turned into experts by the last placement in the file. The tokens of
all ranks in one forward pass are one step, in the order of the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.arrays import as_numpy
from equipoise.decode.torch import decode_torch
from equipoise.errors import FileFormatError
from equipoise.load.sglang_files import is_recording, records_of, slots_of, whole_of
from equipoise.traces.trace import Source, tokens_source

__all__ = ["holds_tokens", "read_tokens"]

TOKENS = "topk_ids_of_layer"


def holds_tokens(document: Any) -> bool:
    """Whether a decoded document is one rank's recording with the experts of each token."""
    if not isinstance(document, Mapping) or not is_recording(document) or not isinstance(document["records"], list):
        return False
    records = document["records"]
    return bool(records) and all(isinstance(record, Mapping) and TOKENS in record for record in records)


def read_tokens(paths: list[Path]) -> Source:
    """Return the tokens in the recordings of all ranks.

    Raises
    ------
    FileFormatError
        If a record breaks a rule, or recordings are of other layers, experts a token or placements.
    """
    found: list[tuple[int, int, NDArray[np.int32]]] = []
    experts, first = 0, paths[0]
    table = slots_of(decode_torch(first), first)
    for path in paths:
        document = decode_torch(path)
        if not np.array_equal(slots_of(document, path), table):
            raise FileFormatError(f"{path} and {first} end with different placements; they are not of one recording.")
        for number, record in records_of(document, path):
            where = f"{path}: record {number}"
            order = whole_of(record, "forward_pass_id", where), whole_of(record, "rank", where)
            found.append((*order, _experts(record, table, where)))
    experts = int(table.max()) + 1
    found.sort(key=lambda each: each[:2])
    widths = {ids.shape[2] for _, _, ids in found}
    if len(widths) > 1:
        raise FileFormatError(f"{first.parent} holds tokens with {min(widths)} and with {max(widths)} experts each.")
    tokens = [ids for _, _, ids in found]
    step = np.concatenate([np.full(len(ids), forward) for forward, _, ids in found])
    return tokens_source(lambda: iter(tokens), (len(step), *tokens[0].shape[1:]), step, experts)


def _experts(record: Mapping[Any, Any], table: NDArray[np.int64], where: str) -> NDArray[np.int32]:
    """Return the experts [tokens, layers, k] of one record."""
    ids = as_numpy(record[TOKENS], f"{where}: {TOKENS}")
    layers, slots = table.shape
    if ids.ndim != 3 or ids.shape[0] != layers or ids.dtype.kind not in "iu" or 0 in ids.shape:
        raise FileFormatError(
            f"{where}: {TOKENS} has shape {ids.shape} and type {ids.dtype}; it must hold slots in the shape ({layers} "
            "layers, tokens, experts a token)."
        )
    if int(ids.min()) < -1 or int(ids.max()) >= slots:
        raise FileFormatError(
            f"{where}: {TOKENS} holds {int(ids.min())} to {int(ids.max())}; slots run to {slots - 1}."
        )
    held = np.pad(table, ((0, 0), (0, 1)), constant_values=-1)  # the last is that of none
    named = held[np.arange(layers)[:, None, None], ids]
    return np.ascontiguousarray(named.transpose(1, 0, 2), np.int32)
