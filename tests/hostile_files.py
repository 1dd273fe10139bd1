"""Files made to fill the memory, never to end, to run code, or to be misread; and some that are only odd."""

from __future__ import annotations

import gzip
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


def zeros(shape: tuple[int, ...], descr: str = "|b1") -> Build:
    """Return what writes a .npy file of zeros, which take no place on the disk."""
    head = npy(shape, descr=descr)
    return sparse(head, len(head) + math.prod(shape) * np.dtype(descr).itemsize)


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


REFUSED: dict[str, tuple[str, Build]] = {
    # no files
    "a pipe": ("load", special(os.mkfifo)),
    "a pipe, for a placement": ("placement", special(os.mkfifo)),
    "a pipe, for a plan": ("plan", special(os.mkfifo)),
    "zeros without end": ("load", special(link_to("/dev/zero"))),
    "zeros without end, for a plan": ("plan", special(link_to("/dev/zero"))),
    "a terminal": ("placement", special(link_to("/dev/tty"))),
    "a socket": ("load", special(listen)),
    "a link to itself": ("plan", special(link_to("special"))),
    "a name with NUL": ("plan", lambda folder: folder / "a\0b"),
    "a folder of a pipe": ("load", special(os.mkfifo, "a.pt")),
    "a folder of a rank that is a pipe": ("load", special(os.mkfifo, "rank0.safetensors")),
    "a folder of a rank without end": ("load", special(link_to("/dev/zero"), "rank0.safetensors")),
    "a folder of a rank that is a folder": ("load", special(Path.mkdir, "rank0.safetensors")),
    # numpy
    "npy: a negative shape": ("placement", file(npy((-1, -8), bytes(64)))),
    "npy: a shape that is not there": ("load", file(npy((10**6, 10**6)))),
    "npy: a shape of 10^400": ("load", file(npy((10**400, 1)))),
    "npy: nothing, of 10^30 rows": ("placement", file(npy((0, 10**30)))),
    "npy: a hundred axes": ("load", file(npy((1,) * 100, bytes(8)))),
    "npy: a header of two gigabytes": ("load", sparse(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31), 2**31)),
    "npy: a header of brackets": ("load", file(b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000)),
    "npy: a header with a call": ("load", file(npy((1, 1), bytes(8)).replace(b"False", b"f().x"))),
    "npy: eighty gigabytes": ("load", zeros((10**9, 10), "<f8")),
    "npy: a gigabyte of truth values": ("load", zeros((2**10, 2**20))),
    "npy: a gigabyte of experts in bytes": ("load", zeros((2**10, 2**20), "|u1")),
    "npy: a gigabyte of one-byte loads, the last negative": (
        "load",
        sparse(npy((2**14, 2**6, 2**10), descr="|i1"), len(npy((2**14, 2**6, 2**10), descr="|i1")) + 2**30, b"\xff"),
    ),
    "npy: records": ("load", file(saved(np.zeros((2, 2), [("a", "f8")])))),
    "npy: arrays in an array": ("load", file(npy((2,), bytes(64), descr=("<f8", (4,))))),
    "npy: dates": ("load", file(saved(np.zeros((2, 2), "M8[s]")))),
    "npy: complex numbers": ("load", file(saved(np.zeros((2, 2), complex)))),
    "npy: texts": ("load", file(saved(np.array([["1", "2"]])))),
    "npy: objects": ("load", file(saved(np.array([[Call(os.system, "exit 1")]], dtype=object)))),
    "npy: more than float64 holds": ("load", file(saved(np.full((1, 2), np.longdouble(10) ** 4000)))),
    "npy: a pattern of 10^8 ranks": ("placement", zeros((10**8, 1, 1))),
    "npy: a pattern of a gigabyte": ("placement", zeros((2**10, 2**10, 2**10))),
    # zip files
    "npz: a gigabyte behind a small header": ("load", file(lambda: bomb(npy((10, 10)), bytes(1 << 20), 600))),
    "npz: a gigabyte of zeros": ("load", file(lambda: bomb(npy((600, 1 << 17)), bytes(1 << 20), 600))),
    "npz: a header of a gigabyte": (
        "load",
        file(lambda: bomb(b"\x93NUMPY\x02\x00" + struct.pack("<I", 600 << 20), b" " * (1 << 20), 600)),
    ),
    "npz: 10^5 arrays": (
        "load",
        file(lambda: zipped(*((f"{i}.npy", b"") for i in range(10**5)), how=zipfile.ZIP_STORED)),
    ),
    "npz: ten million bytes of contents": ("load", sparse(b"PK\x03\x04", 10**7 + 26, end_of_zip(10**7, 4))),
    "npz: four gigabytes of contents": ("load", sparse(b"PK\x03\x04", 2**32 - 1, end_of_zip(2**32 - 99, 4))),
    "npz: a name twice": ("load", file(zipped(("load.npy", saved(LOAD)), ("load.npy", saved(LOAD * 2))))),
    "npz: objects": ("load", file(zipped(("load.npy", saved(np.array([[None]], dtype=object)))))),
    "npz: names of 60,000 letters": (
        "load",
        file(lambda: zipped(*((f"{i}{'x' * 60_000}.npy", b"") for i in range(20)))),
    ),
    "npz: packed by lzma": ("load", file(zipped(("load.npy", saved(LOAD)), how=zipfile.ZIP_LZMA))),
    "npz: under a password": (
        "load",
        file(NPZ.replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0")),
    ),
    "npz: cut off": ("load", file(NPZ[:-9])),
    "npz: cut in the middle": ("load", file(NPZ[:60])),
    "npz: no array": ("load", file(zipped(("load.npy", b"")))),
    "zip: neither": ("load", file(zipped(("a.txt", b"hello")))),
    # torch
    "pt: a tensor of 10^12 from one number": ("load", file(pt(torch.zeros(1).expand(10**6, 10**6)))),
    "pt: a tensor of 4 x 10^8 from one number": (
        "load",
        file(pt(torch.zeros(1, dtype=torch.int64).expand(20000, 20000))),
    ),
    "pt: a tensor beyond its storage": ("load", file(program(view((2, 4), (4, 1), offset=2), bytes(64)))),
    "pt: a tensor that walks backwards": ("load", file(program(view((2, 2), (-2, 1), offset=2), bytes(64)))),
    "pt: strides of 2^62": ("load", file(program(view((2, 2), (2**62, 2**62)), bytes(64)))),
    "pt: no axis but many": ("load", file(program(view((0, 2**62), (1, 1)), bytes(64)))),
    "pt: no storage": ("load", file(program(view((2, 2), (2, 1))))),
    "pt: a packed storage": (
        "load",
        file(lambda: program(view((2, 2), (2, 1)), bytes(1 << 28), packed=True)),
    ),
    "pt: lists in one another, shared": ("load", file(pt(shared(2, 1000)))),
    "pt: lists in one another, shared and deep": ("load", file(pt({"load": shared(30, 10)}))),
    "pt: a list in itself": ("load", file(program(b"]q\x00h\x00a"))),
    "pt: 100,000 lists in one another": ("load", file(program(nested(10**5)))),
    "pt: a million numbers twice over": ("load", file(lambda: program(b"](" + b"K\x01" * (3 * 10**6) + b"e"))),
    "pt: ten gigabytes by a call": ("load", file(pt(Call(bytearray, 10**10)))),
    "pt: a command": ("load", file(pt({"load": Call(os.system, "exit 1")}))),
    "pt: a command, before 1.6": ("load", file(pt(Call(os.system, "exit 1"), legacy=True))),
    "pt: a command in protocol 4": ("load", file(program(b"\x8c\x02os\x8c\x06system\x93\x8c\x04exit\x85R"))),
    "pt: a place far away in the memo": ("load", file(program(b"Nr\xff\xff\xff\xff"))),
    "pt: a text of 2^60 bytes": ("load", file(program(b"\x8d" + struct.pack("<Q", 2**60) + b"x"))),
    "pt: bytes of four gigabytes": ("load", file(program(b"B\xff\xff\xff\xffx"))),
    "pt: a name without end": ("load", file(program(b"c" + b"x" * 10**7))),
    "pt: nothing on the stack": ("load", file(program(b"0"))),
    "pt: a call of a number": ("load", file(program(b"K\x01)R"))),
    "pt: a number of 80 bits": ("load", file(program(b"](\x8a\x0a" + b"\x01" * 10 + b"e"))),
    "pt: a number of 400 digits": ("load", file(pt([[10**400]]))),
    "pt: a key that is a list": ("load", file(program(b"}]K\x01s"))),
    "pt: a sparse tensor": ("load", file(pt(torch.eye(3).to_sparse()))),
    "pt: a quantised tensor": ("load", file(program(b"ctorch._utils\n_rebuild_qtensor\n)R"))),
    "pt: a numpy array": ("load", file(pt({"load": LOAD}))),
    "pt: a storage of 10^15, before 1.6": (
        "load",
        file(pt(torch.ones(1, 1), legacy=True)[:-12] + struct.pack("<Qf", 10**15, 1.0)),
    ),
    "pt: a module's weights": ("load", file(pt(torch.nn.Linear(2, 2)))),
    "pt: an expert of 10^10": ("load", file(recording(slots=torch.tensor([[0, 1, 2, 10**10]])))),
    "pt: an expert of 10^10 in a map": (
        "placement",
        file(pt({"physical_to_logical_map": torch.tensor([[0, 10**10]])})),
    ),
    "pt: a recording of one tensor 10^4 times": (
        "load",
        file(
            recording(
                [{"forward_pass_id": i, "rank": 0, "global_physical_count": BYTES} for i in range(10**4)],
                torch.arange(1000).expand(1000, 1000).clone(),
            )
        ),
    ),
    "pt: a recording of a tensor's name": ("load", file(recording([{"gatherer_key": SLOTS, "rank": 0}]))),
    "pt: three tensors, the second not there": (
        "placement",
        file(
            pt(
                {
                    "physical_to_logical_map": torch.arange(10**4).clamp(max=5 * 10**3)[None].expand(8, -1).clone(),
                    "logical_to_physical_map": torch.zeros((1, 1, 1), dtype=torch.int64),
                    "expert_count": torch.tensor([[1] * (5 * 10**3) + [5 * 10**3]] * 8),
                }
            )
        ),
    ),
    # JSON
    "json: a million lists in one another": ("load", file("[" * 10**6)),
    "json: a million lists that end": ("load", file("[" * 10**6 + "]" * 10**6)),
    "json: 900 lists in one another": ("load", file("[" * 900 + "]" * 900)),
    "json: a million objects in one another": ("placement", file('{"a":' * 10**6)),
    "json: thirty million empty lists": ("load", file(lambda: "[" + "[]," * 3 * 10**7 + "1]")),
    "json: two hundred megabytes of one number": ("load", file(lambda: "[[" + "300," * 5 * 10**7 + "x]]")),
    "json: a text of 200 megabytes, four bytes a letter": (
        "load",
        file(lambda: '["\U0001f600' + "a" * (2 * 10**8) + '"]'),
    ),
    "json: ten gigabytes": ("placement", sparse(b"[", 10**10)),
    "json: a number of 400 digits": ("load", file("[[1" + "0" * 400 + "]]")),
    "json: a number of 10^6 digits": ("load", file("[[1" + "0" * 10**6 + "]]")),
    "json: 1e400": ("load", file("[[1e400]]")),
    "json: NaN": ("load", file("[[NaN, 1]]")),
    "json: Infinity": ("load", file("[[1, Infinity]]")),
    "json: a key twice among 500,000": (
        "load",
        file("{" + ",".join(f'"{i}":1' for i in range(500_000)) + ',"7":1}'),
    ),
    "json: half a letter for a key": ("load", file('{"\\ud800": 1}')),
    "json: a key of a million letters": ("load", file(json.dumps({"x" * 10**6: 1}))),
    "json: an expert of 3 x 10^8": ("placement", json_map([[0, 1, 300_000_000]])),
    "json: an expert of 10^400": ("placement", json_map([[0, 10**400]])),
    "json: truth among experts": ("placement", json_map([[0, True]])),
    "json: experts in three axes": ("placement", json_map([[[0, 1]]])),
    "json: a map of nothing": ("placement", json_map([])),
    "json: a map of no slots": ("placement", json_map([[]])),
    "json: layer true of an expert map": ("placement", ascend([0, 1], layer=False)),
    "json: a device count of 1.0": ("placement", ascend([0, 1], devices=1.0)),
    "json: an expert of 2^64 in an expert map": ("placement", ascend([0, 2**64])),
    # CSV
    "csv: a line of ten million letters": ("load", file(lambda: "1," + "9" * 10**7)),
    "csv: a line of five million numbers": ("load", file(lambda: "1," * 5 * 10**6 + "x")),
    "csv: a gigabyte": ("load", file(lambda: "1,2\n" * 5 * 10**6)),
    "csv: 10^5 layers": ("load", file(lambda: "1,2\n" * 10**5)),
    "csv: truth": ("load", file("1,2\nTrue,3\n")),
    "csv: Arabic digits": ("load", file("1,2\n٣,4\n")),
    "csv: not a number": ("load", file("1,2\nnan,3\n")),
    "csv: 1e400": ("load", file("1,2\n1e400,3\n")),
    "csv: expert 10^9": ("load", file("layer,expert,count\n0,1000000000,1\n")),
    "csv: a million pairs, the last twice": (
        "load",
        file(lambda: "l,e,n\n" + "".join(f"{i >> 10},{i & 1023},1\n" for i in range(10**6)) + "0,0,1\n"),
    ),
    "csv: three million rows without names": ("load", file(lambda: "1,2,3\n" * 3 * 10**6)),
    "gzip: a gigabyte of zeros": ("load", file(lambda: gzip.compress(bytes(1 << 30), 1))),
    "gzip: in gzip": ("load", file(gzip.compress(gzip.compress(b"1,2\n")))),
    "gzip: cut off": ("placement", file(gzip.compress(b"[[1, 2]]")[:-5])),
    "parquet: nothing behind its sign": ("load", file(b"PAR1" + bytes(99) + b"PAR1")),
    "arrow: nothing behind its sign": ("load", file(b"ARROW1" + bytes(99))),
    "csv: a quote without end": ("load", file('1,2\n3,"4' + "\n5" * 10**5)),
    # YAML
    "yaml: an expert of 10^9": ("placement", yaml("{3: [0, 1000000000]}")),
    "yaml: an expert of 400 digits": ("placement", yaml("{3: [0, " + "9" * 400 + "]}")),
    "yaml: a layer of 10^9": ("placement", yaml("{1000000000: [0, 1]}")),
    "yaml: a billion texts in ten lines": ("placement", file(LAUGHS)),
    "yaml: a row by reference": ("placement", yaml("{3: &a [0, 1], 4: *a}")),
    "yaml: a row merged in": ("placement", yaml("{<<: {3: [0, 1]}}")),
    "yaml: a tag that calls": ("placement", yaml("{3: !!python/object/apply:os.system [exit]}")),
    "yaml: a tag": ("placement", yaml("{3: !!set {0, 1}}")),
    "yaml: a layer twice": ("placement", yaml("{3: [0, 1], 3: [1, 0]}")),
    "yaml: an octal expert": ("placement", yaml("{3: [0, 01]}")),
    "yaml: an expert in base 60": ("placement", yaml("{3: [0, 0:01]}")),
    "yaml: truth": ("placement", yaml("{3: [0, true]}")),
    "yaml: a count of 1e9": ("placement", yaml("{3: [0, 1]}", slots="1000000000")),
    "yaml: 500,000 lists in one another": ("placement", yaml("[" * 500_000)),
    "yaml: ten megabytes": ("placement", yaml("{3: [" + "0," * 5 * 10**6 + "]}")),
    "yaml: two documents": ("placement", yaml("{3: [0, 1]}\n---\nnum_slots: 3")),
    # safetensors
    "safetensors: a header of 2^60 bytes": ("load", statistics(safetensors({}, length=2**60))),
    "safetensors: a header of a million lists": ("load", statistics(safetensors(b"[" * 10**6))),
    "safetensors: a shape that is not there": ("load", statistics(safetensors({"0_3": entry((10**12,))}, FOUR))),
    "safetensors: a shape of 400 digits": ("load", statistics(safetensors({"0_3": entry((10**400,))}, FOUR))),
    "safetensors: a negative shape": ("load", statistics(safetensors({"0_3": entry((-4, -1))}, FOUR))),
    "safetensors: bytes that are not there": ("load", statistics(safetensors({"0_3": entry((8,), (0, 64))}, FOUR))),
    "safetensors: bytes before the first": ("load", statistics(safetensors({"0_3": entry((4,), (-8, 24))}, FOUR))),
    "safetensors: 10^4 times the same bytes": (
        "load",
        statistics(safetensors({f"{i}_3": entry() for i in range(10**4)}, FOUR)),
    ),
    "safetensors: another type": ("load", statistics(safetensors({"0_3": entry(dtype="F8")}, FOUR))),
    "safetensors: a truth value for a shape": ("load", statistics(safetensors({"0_3": entry((True, 4))}, FOUR))),
    "safetensors: a rank under two names": ("load", statistics(RANK, rank00=RANK, rank1=RANK)),
    "safetensors: a layer under two names": (
        "load",
        statistics(safetensors({"0_3": entry(), "0_03": entry((4,), (32, 64))}, FOUR + FOUR)),
    ),
    "safetensors: a layer of Arabic digits": ("load", statistics(safetensors({"0_٣": entry()}, FOUR))),
    "safetensors: a layer of 10^8": ("load", statistics(safetensors({"0_100000000": entry()}, FOUR))),
    "safetensors: 10^12 experts": ("load", statistics(RANK, meta='{"num_experts": 1000000000000}')),
    "safetensors: true experts": ("load", statistics(RANK, meta='{"num_experts": true}')),
    # plans
    "plan: 3 x 10^8 experts": ("plan", plan(num_logical_experts=3 * 10**8)),
    "plan: 10^12 experts": ("plan", plan(num_logical_experts=10**12)),
    "plan: 10^30 ranks": ("plan", plan(cluster={"num_ranks": 10**30, "slots_per_rank": 3, "num_nodes": 1})),
    "plan: a load of 10^400": ("plan", plan(max_rank_load=[10**400, 1])),
    "plan: a load of 1e400": (
        "plan",
        file(json.dumps(PLAN).replace('"max_rank_load": [', '"max_rank_load": [1e400, ')),
    ),
    "plan: a load that is not a number": ("plan", plan(mean_rank_load=[float("nan")] * 2)),
    "plan: a load in a text": ("plan", plan(max_rank_load=["9", "9"])),
    "plan: a limit in a text": ("plan", how(parameters={"max_transfers": "x"})),
    "plan: a limit that is negative": ("plan", how(parameters={"max_layers": -1})),
    "plan: a seed of 10^400": ("plan", how(seed=10**400)),
    "plan: a true seed": ("plan", how(seed=True)),
    "plan: a strategy of a million letters": ("plan", how(strategy="x" * 10**6)),
    "plan: a strategy that writes over the line above": ("plan", how(strategy="\x1b[1Aproved optimal")),
    "plan: a stage of 10^400": ("plan", how(stages={"swaps": 10**400})),
    "plan: a stage over two lines": ("plan", how(stages={"swaps\nproved": 1})),
    "plan: two experts, says one key": ("plan", file(json.dumps(PLAN)[:-1] + ', "num_logical_experts": 4}')),
    "plan: a million lists in one another": (
        "plan",
        file('{"format": "equipoise.plan", "version": 1, "cluster": ' + "[" * 10**6),
    ),
}
"""By name, the reader and what writes the file: all of them are to be refused."""

ROWS = [[8.0, 2.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]]
INTS = LOAD.astype(np.int64)
WIDE = torch.tensor(np.concatenate([INTS, INTS * 5], axis=1))

READ: dict[str, tuple[str, Build, Any]] = {
    "npy: format version 3": ("load", file(saved(LOAD, (3, 0))), [ROWS]),
    "npy: columns first": ("load", file(saved(np.asfortranarray(LOAD))), [ROWS]),
    "npy: big-endian": ("load", file(saved(INTS.astype(">i2"))), [ROWS]),
    "npy: 16-byte floats": ("load", file(saved(LOAD.astype(np.longdouble))), [ROWS]),
    "npy: half floats": ("load", file(saved(LOAD.astype(np.float16))), [ROWS]),
    "npz: a hundred times smaller than it is": ("load", file(zipped(("a.npy", saved(np.zeros((1000, 100)))))), None),
    "npz: a name in other letters": ("load", file(zipped(("Zähler.npy", saved(LOAD)))), [ROWS]),
    "pt: a tensor turned round": ("load", file(pt(torch.tensor(INTS.T.copy()).T)), [ROWS]),
    "pt: a part of a tensor": ("load", file(pt(WIDE[:, :4])), [ROWS]),
    "pt: one tensor twice": ("load", file(pt({"load": WIDE[:, :4], "also": WIDE})), [ROWS]),
    "pt: bfloat16": ("load", file(pt(torch.tensor(LOAD).bfloat16())), [ROWS]),
    "pt: 16 bits without sign": ("load", file(pt(torch.tensor(INTS.astype(np.uint16)))), [ROWS]),
    "pt: a parameter": ("load", file(pt(torch.nn.Parameter(torch.tensor(LOAD)))), [ROWS]),
    "pt: protocol 4": ("load", file(program(b"](](K\x08K\x02e](K\x01K\x02ee")), [[[8.0, 2.0], [1.0, 2.0]]]),
    "pt: before 1.6": ("load", file(pt({"load": torch.tensor(INTS)}, legacy=True)), [ROWS]),
    "pt: a recording": ("load", file(recording()), [[[2.0, 1.0, 1.0]]]),
    "safetensors: two ranks": ("load", statistics(RANK, RANK), [[[2.0, 4.0, 6.0, 8.0]]]),
    "safetensors: counts of one byte": (
        "load",
        statistics(safetensors({"0_3": entry((4,), (0, 4), "U8")}, b"\x01\x02\x03\xff")),
        [[[1.0, 2.0, 3.0, 255.0]]],
    ),
    "csv: all kinds of ends": ("load", file("8,2,1,1\r\n1,2,3,4\r\r\n\n"), [ROWS]),
    "yaml: in blocks": ("placement", yaml("\n  3:\n  - 0\n  - 1\n  4: [1,\n    0]"), [[0, 1], [1, 0]]),
    "yaml: with remarks": ("placement", yaml("{3: [0, 1]} # a remark"), [[0, 1]]),
    "json: a plan": ("placement", plan(), PLAN["physical_to_logical"]),
    "plan: as it was": ("plan", plan(), PLAN["physical_to_logical"]),
    "plan: with a word more": ("plan", plan(remark="mine"), PLAN["physical_to_logical"]),
}
"""By name, the reader, what writes the file, and what is read; None is anything."""
