"""How files of every kind are made that no program would write."""

from __future__ import annotations

import io
import json
import math
import os
import socket
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import equipoise as eq

Build = Callable[[Path], Path]

LOAD = np.array([[8.0, 2.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]])


def file(content: bytes | str | Callable[[], bytes | str]) -> Build:
    """Return what writes a file of this content; large ones are made when they are asked for."""

    def build(folder: Path) -> Path:
        path, made = folder / "file", content() if callable(content) else content
        path.write_bytes(made.encode() if isinstance(made, str) else made)
        return path

    return build


def sparse(head: bytes, size: int, tail: bytes = b"") -> Build:
    """Return what writes a file of ``size`` bytes that begins and ends so, with nothing on the disk between."""

    def build(folder: Path) -> Path:
        path = file(head)(folder)
        os.truncate(path, size - len(tail))
        with path.open("ab") as stream:
            stream.write(tail)
        return path

    return build


def zeros(shape: tuple[int, ...], descr: str = "|b1", tail: bytes = b"") -> Build:
    """Return what writes a .npy file of zeros, which take no place on the disk, but for what it ends with."""
    head = npy(shape, descr=descr)
    return sparse(head, len(head) + math.prod(shape) * np.dtype(descr).itemsize, tail)


def special(make: Callable[[Path], Any], inside: str = "") -> Build:
    """Return what makes something that is no ordinary file; ``inside`` is its name in a folder of statistics."""

    def build(folder: Path) -> Path:
        path = folder / "folder"
        path.mkdir()
        if inside.endswith("safetensors"):
            (path / "meta_info.json").write_text('{"num_experts": 4}')
        make(path / (inside or "special"))
        return path if inside else path / "special"

    return build


def link_to(target: str) -> Callable[[Path], Any]:
    return lambda path: path.symlink_to(target)


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


# numpy


def npy(shape: Any, body: bytes = b"", descr: Any = "<f8", version: int = 1) -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + body


def saved(array: Any, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), version)
    return stream.getvalue()


def npz(compressed: bool = False, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def zipped(*entries: tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", how) as archive:
        warnings.simplefilter("ignore")  # two of one name
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def bomb(head: bytes, filler: bytes, times: int) -> bytes:
    """Return a .npz file whose one array unpacks to a ``head`` and so many times a ``filler``."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("load.npy", "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(times):
            member.write(filler)
    return stream.getvalue()


def end_of_zip(size: int, offset: int, members: int = 9) -> bytes:
    return struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, members, members, size, offset, 0)


NPZ = zipped(("load.npy", saved(LOAD)))

# torch


def pt(value: Any, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def program(steps: bytes, *storages: bytes, packed: bool = False) -> bytes:
    """Return a torch file whose pickle takes these steps, and with these storages, packed or as they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + steps + b".")
        for key, storage in enumerate(storages):
            archive.writestr(f"archive/data/{key}", storage, zipfile.ZIP_DEFLATED if packed else None)
    return stream.getvalue()


def whole(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """Return the steps that make a tensor of int64 from storage 0."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nLongStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    shape_, strides_ = (b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (shape, strides))
    arguments = storage + whole(offset) + shape_ + strides_ + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


class Call:
    """Is pickled as a call, and makes it when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> Any:
        return self.how


def nested(depth: int) -> bytes:
    """Return the steps that put a list into a list, and so on."""
    return b"]" * depth + b"a" * (depth - 1)


def shared(levels: int, width: int) -> Any:
    value: Any = [1] * width
    for _ in range(levels):
        value = [value] * width
    return value


SLOTS = torch.tensor([[0, 1, 2, 0]])
COUNTS = torch.ones((1, 4), dtype=torch.int32)


def recording(records: Any = None, slots: Any = SLOTS) -> bytes:
    records = [{"forward_pass_id": 0, "rank": 0, "global_physical_count": COUNTS}] if records is None else records
    return pt({"records": records, "last_physical_to_logical_map": slots})


BYTES = torch.zeros((1000, 1000), dtype=torch.uint8)

# TensorRT-LLM's statistics


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: Any = (4,), place: Any = (0, 32), dtype: Any = "I64") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


def statistics(*ranks: bytes, meta: str = '{"num_experts": 4}', **others: bytes) -> Build:
    """Return what writes a folder of statistics."""

    def build(folder: Path) -> Path:
        path = folder / "statistics"
        path.mkdir()
        (path / "meta_info.json").write_text(meta)
        for name, content in {**{f"rank{i}": content for i, content in enumerate(ranks)}, **others}.items():
            (path / f"{name}.safetensors").write_bytes(content)
        return path

    return build


FOUR = struct.pack("<4q", 1, 2, 3, 4)
RANK = safetensors({"0_3": entry()}, FOUR)

# maps and plans


def json_map(rows: Any) -> Build:
    return file(json.dumps({"physical_to_logical_map": rows}))


def ascend(experts: Any, layer: Any = 0, devices: Any = 1) -> Build:
    devices_ = [{"device_id": 0, "device_expert": experts}]
    layers = [{"layer_id": layer, "device_count": devices, "device_list": devices_}]
    return file(json.dumps({"moe_layer_count": 1, "layer_list": layers}))


def yaml(rows: str, slots: Any = 2) -> Build:
    return file(f"num_slots: {slots}\ninitial_global_assignments: {rows}\n")


LAUGHS = "initial_global_assignments: {3: [0]}\nnum_slots:\n - &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f" - &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 8)
)

PLAN = json.loads(eq.solve(eq.PlacementProblem(LOAD, eq.Cluster(2, 3)), "plain-greedy").to_json())


def plan(**changes: Any) -> Build:
    return file(json.dumps({**PLAN, **changes}))


def how(**changes: Any) -> Build:
    return plan(provenance={**PLAN["provenance"], **changes})
