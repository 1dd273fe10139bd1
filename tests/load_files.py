"""Files of loads: the same counts in every format, and what is wrong with others."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from made_files import npz, pt, zipped
from made_files import saved as npy

COUNTS = np.array([[5, 3, 2], [0, 0, 0], [1, 1, 4]])
STEPS = np.stack([COUNTS, COUNTS * 2])


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def csv(array: Any) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in array).encode()


def long(header: str = "layer_id,expert_id,count", order: Any = (0, 1, 2), sign: str = ",") -> bytes:
    rows = [(layer, expert, COUNTS[layer, expert]) for layer in range(3) for expert in range(3)]
    lines = [header] + [sign.join(str(row[i]) for i in order) for row in rows]
    return "\n".join(lines).encode() + b"\n"


GOOD = {
    "npy": npy(COUNTS),
    "npy uint16": npy(COUNTS.astype(np.uint16)),
    "npy float16": npy(COUNTS.astype(np.float16)),
    "npy big endian": npy(COUNTS.astype(">i4")),
    "npy Fortran order": npy(np.asfortranarray(COUNTS)),
    "npy version 2": npy(COUNTS, (2, 0)),
    "npy version 3": npy(COUNTS, (3, 0)),
    "npz with one array": npz(anything=COUNTS),
    "npz compressed": npz(compressed=True, anything=COUNTS),
    "npz with a known name": npz(logical_count=COUNTS, other=np.zeros(3)),
    "npz, counts": npz(counts=COUNTS, other=np.zeros(3)),
    "npz, load": npz(load=COUNTS, other=np.zeros(3)),
    "JSON list": text(COUNTS.tolist()),
    "JSON floats": text(COUNTS.astype(float).tolist()),
    "JSON object": text({"logical_count": COUNTS.tolist(), "rank": 0}),
    "JSON indented": json.dumps(COUNTS.tolist(), indent=2).encode(),
    "JSON with a byte order mark": b"\xef\xbb\xbf" + text(COUNTS.tolist()),
    "CSV": csv(COUNTS),
    "CSV with a header": b"first,second,third\n" + csv(COUNTS),
    "CSV, Windows line ends": csv(COUNTS).replace(b"\n", b"\r\n"),
    "CSV, old Mac line ends": csv(COUNTS).replace(b"\n", b"\r"),
    "CSV with blanks, quotes and blank lines at the end": b'5, 3 ,"2"\n0,0,0\n1e0,1.0,4\n\n\n',
    "CSV with a byte order mark": b"\xef\xbb\xbf" + csv(COUNTS),
    "CSV, semicolons": csv(COUNTS).replace(b",", b";"),
    "CSV, tabs": csv(COUNTS).replace(b",", b"\t"),
    "CSV, blanks": csv(COUNTS).replace(b",", b"  "),
    "CSV, gzip": gzip.compress(csv(COUNTS)),
    "CSV, gzip in two parts": gzip.compress(csv(COUNTS[:1])) + gzip.compress(csv(COUNTS[1:])),
    "CSV with the numbers of experts on top": b"0,1,2\n" + csv(COUNTS),
    "CSV with permuted experts on top": b"2,0,1\n" + csv(COUNTS[:, [2, 0, 1]]),
    "CSV as a data frame writes it": b",0,1,2\n0,5,3,2\n1,0,0,0\n2,1,1,4\n",
    "CSV with named index and experts": b"layer,expert_0,expert_1,expert_2\n0,5,3,2\n1,0,0,0\n2,1,1,4\n",
    "CSV with experts from 1": b"E1;E2;E3\n5;3;2\n0;0;0\n1;1;4\n",
    "CSV with names of layers": b"x,0,1,2\nlayer_0,5,3,2\nlayer_1,0,0,0\nlayer_2,1,1,4\n".replace(b"x", b"Layer"),
    "CSV with a header and an index without name": b"0 1 2\n0 5 3 2\n1 0 0 0\n2 1 1 4\n",
    "CSV with sums beside": b"layer,0,1,2,total\n0,5,3,2,10\n1,0,0,0,0\n2,1,1,4,6\n",
    "CSV turned, and named so": b"expert,layer_0,layer_1,layer_2\n0,5,0,1\n1,3,0,1\n2,2,0,4\n",
    "CSV long": long(),
    "CSV long, other names and order": long("tokens;Expert ID;LayerIdx", [2, 1, 0], ";"),
    "CSV long, blanks under a remark": b"# layer expert load\n" + long("", [0, 1, 2], " ").lstrip(b"\n"),
    "CSV long, with an index": b",layer,expert,count\n"
    + b"".join(b"%d,%s\n" % (i, row) for i, row in enumerate(long("").split())),
    "CSV long, of two ranks": b"rank,layer,expert,count\n"
    + b"".join(b"0,%s\n1,%s0\n" % (row, row[: row.rindex(b",") + 1]) for row in long("").split()),
    "npz, gzip": gzip.compress(npz(load=COUNTS)),
    "torch tensor": pt(torch.tensor(COUNTS)),
    "torch int32": pt(torch.tensor(COUNTS, dtype=torch.int32)),
    "torch bfloat16": pt(torch.tensor(COUNTS, dtype=torch.bfloat16)),
    "torch dict": pt({"rank": 0, "logical_count": torch.tensor(COUNTS), "average_utilization_rate_over_window": None}),
    "torch dict of lists": pt({"logical_count": COUNTS.tolist()}),
    "torch legacy tensor": pt(torch.tensor(COUNTS), legacy=True),
    "torch legacy dict": pt({"logical_count": torch.tensor(COUNTS)}, legacy=True),
}
"""Names and contents: ``COUNTS`` in every format."""

BAD = {
    # what is wrong: (content, what the sentence says)
    "empty": (b"", "is empty; it must hold numbers"),
    "blank": (b" \n\t\n", "is empty"),
    "only a byte order mark": (b"\xef\xbb\xbf", "is empty"),
    "binary rubbish": (bytes(range(200, 256)), "starts like none of the formats that can be read: .npy, .npz or torch"),
    "PNG": (b"\x89PNG\r\n\x1a\n\x00\x00", "starts like none of the formats"),
    "UTF-16": ("[[1,2]]".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "pickle": (pickle.dumps([[1, 2]]), "pickle, which is not loaded because unpickling runs code; .* numpy.save"),
    # numpy
    "npy, objects": (npy(np.array([[1, None]], dtype=object)), "holds Python objects, which are not loaded"),
    "npy, strings": (npy(np.array([["1", "2"]])), "holds <U1 values; it must hold integers or floats"),
    "npy, booleans": (npy(np.array([[True]])), "holds booleans; loads must be counts"),
    "npy, complex": (npy(np.array([[1j]])), "holds complex128 values"),
    "npy, dates": (npy(np.array([["2020-01-01"]], dtype="M8[D]")), "it must hold integers or floats"),
    "npy, records": (npy(np.zeros((2, 2), dtype=[("ä", "f8")]), (3, 0)), "it must hold integers or floats"),
    "npy, one axis": (
        npy(np.ones(3)),
        r"the array has shape \(3,\); it must be \(layers, experts\) or \(steps, layers",
    ),
    "npy, no axis": (npy(np.float64(3)), r"the array has shape \(\)"),
    "npy, four axes": (npy(np.ones((1, 1, 1, 1))), r"shape \(1, 1, 1, 1\)"),
    "npy, no layers": (npy(np.ones((0, 3))), r"shape \(0, 3\), which is empty"),
    "npy, no experts": (npy(np.ones((3, 0))), r"shape \(3, 0\), which is empty"),
    "npy, NaN": (npy(np.array([[1, np.nan]])), "is nan at layer 0, expert 1; loads must be finite and not negative"),
    "npy, infinite": (npy(np.array([[[1, 2]], [[1, np.inf]]])), "is inf at step 1, layer 0, expert 1"),
    "npy, negative": (npy(np.array([[1, 2], [-7, 2]])), "is -7.0 at layer 1, expert 0"),
    "npy, too large": (npy(np.full((1, 2), 1e308)), "sums to more than float64 can hold"),
    "npy, truncated data": (
        npy(COUNTS)[:-1],
        r"is truncated: its header promises shape \(3, 3\) of int64, 72 bytes, and 71",
    ),
    "npy, truncated header": (npy(COUNTS)[:30], "damaged or truncated .npy header"),
    "npy, truncated magic": (npy(COUNTS)[:7], "damaged or truncated .npy header"),
    "npy, open bracket in the header": (
        npy(COUNTS).replace(b"(3, 3), }", b"(3, 3 , {"),
        "damaged or truncated .npy header",
    ),
    "npy, bytes left over": (npy(COUNTS) + b"x", "has bytes left over: .* and 73 follow"),
    "npy, impossible size": (npy(COUNTS).replace(b"(3, 3), }", b"(3000000000000, 3), }")[:128], "is truncated"),
    "npz, no arrays": (npz(), "is a zip file that neither numpy nor torch wrote"),
    "npz, several": (npz(intent=COUNTS, law=COUNTS), "none of the keys .*; its keys are 'intent', 'law'. Name one"),
    "npz, two known": (npz(counts=COUNTS, load=COUNTS), "holds 'counts' and 'load'; name one of them as key"),
    "npz, objects": (npz(load=np.array([[None]])), "loads: load holds Python objects"),
    "npz, NaN": (npz(load=np.array([[np.nan]])), "loads: load is nan at layer 0, expert 0"),
    "npz, truncated": (npz(load=COUNTS)[:-10], "truncated or damaged"),
    "npz, damaged": (npz(load=COUNTS).replace(b"\x04\0\0\0\0\0\0\0", b"\x05\0\0\0\0\0\0\0"), "loads: load is damaged"),
    "npz, damaged version": (
        npz(load=COUNTS).replace(b"PK\x01\x02-\x03-", b"PK\x01\x02-\x03\xee"),
        "truncated or damaged",
    ),
    "another zip": (zipped(("README.md", b"hello")), "a zip file that neither numpy nor torch wrote"),
    # JSON
    "JSON, truncated": (text(COUNTS.tolist())[:-3], "line 1, column .*: the JSON ends before it is complete"),
    "JSON, truncated string": (b'{"logical_co', "line 1, column 2: the JSON ends before it is complete"),
    "JSON, no JSON": (b"[[1, 2],\n [3 4]]", "line 2, column 5: this is not JSON"),
    "JSON, two documents": (b"[[1]] [[2]]", "line 1, column 7: this is not JSON"),
    "JSON, NaN": (b"[[1, NaN]]", "is nan at layer 0, expert 1"),
    "JSON, infinite": (b"[[1, 2], [1e999, 3]]", "is inf at layer 1, expert 0"),
    "JSON, negative": (
        text({"logical_count": [[[1, -2]]]}),
        "loads: logical_count is -2.0 at step 0, layer 0, expert 1",
    ),
    "JSON, ragged": (b"[[1, 2], [3]]", "layer 1 has width 1, layer 0 has width 2; every layer needs the same"),
    "JSON, ragged in a step": (b"[[[1, 2]], [[3]]]", r"step 1 has shape \(1, 1\), step 0 has \(1, 2\)"),
    "JSON, ragged inside": (b"[[[1, 2], [3]]]", "step 0, layer 1 has width 1"),
    "JSON, a flat list": (b"[1, 2, 3]", "layer 0 is 1; it must be a list of numbers"),
    "JSON, four axes": (b"[[[[1]]]]", "step 0, layer 0, expert 0 is a list; it must be a number"),
    "JSON, empty list": (b"[]", "the document is an empty list; it must be a nested list"),
    "JSON, empty layer": (b"[[]]", "layer 0 is an empty list"),
    "JSON, empty step": (b"[[[1]], []]", "step 1 is an empty list; it must be a list of layers"),
    "JSON, a string": (b'[[1, "2"]]', "layer 0, expert 1 is '2'; it must be a number"),
    "JSON, a boolean": (b"[[1, true]]", "layer 0, expert 1 is true; it must be a number"),
    "JSON, null": (b"[[1, 2], [null, 1]]", "layer 1, expert 0 is null"),
    "JSON, an object inside": (b'[[1, 2], {"a": 1}]', "layer 1 is an object with keys; it must be a list"),
    "JSON, no known key": (text({"recorded": [], "meta": 1}), "its keys are 'recorded', 'meta'. Name one"),
    "JSON, no keys": (b"{}", "its keys are none"),
    "JSON, many keys": (text({str(i): 1 for i in range(50)}), "'9' and 40 more"),
    "JSON, count is null": (text({"logical_count": None}), "logical_count is null; it must be a nested list"),
    "JSON, a key twice": (b'{"load": [[1]], "load": [[2]]}', "has the key 'load' twice in one object"),
    "JSON, two known keys": (text({"counts": [[1]], "load": [[2]]}), "holds 'counts' and 'load'; name one"),
    "JSON, a huge integer": (b"[[1" + b"0" * 400 + b"]]", "layer 0 holds a number that float64 cannot hold"),
    "JSON, thousands of digits": (b"[[1" + b"0" * 9000 + b"]]", "number with thousands of digits"),
    "JSON, endless nesting": (b"[" * 200_000, "nests lists too deeply|ends before it is complete"),
    "JSON, not UTF-8": (b'["' + b"a" * 5000 + b'\xff"]', "byte 5002: this is not UTF-8 text"),
    # CSV
    "CSV, ragged": (b"1,2\n3\n", "line 2 has width 1, line 1 has width 2; every line"),
    "CSV, ragged under a header": (b"a,b,c\n1,2\n", "line 2 has width 2, line 1 has width 3"),
    "CSV, a word": (b"1,2\n3,x\n", "line 2, column 2 holds 'x'; it must be a number"),
    "CSV, a header half of numbers": (b"strange,0,1\n0,5,3\n", "line 1, column 1 holds 'strange' beside the numbers"),
    "CSV, a hole": (b"1,2\n3,\n", "line 2, column 2 holds nothing"),
    "CSV, an empty line": (b"1,2\n\n3,4\n", "line 2 is empty; each line must hold one layer"),
    "CSV, NaN": (b"1,2\n3,nan\n", "line 2, column 2 is nan; loads must be finite"),
    "CSV, NaN first": (b"nan,nan\n", "line 1, column 1 is nan"),
    "CSV, infinite": (b"1,1e999\n", "line 1, column 2 is inf"),
    "CSV, negative": (b"a,b\n1,2\n3,-4\n", "line 3, column 2 is -4.0; loads must be finite and not negative"),
    "CSV, header alone": (b"a,b\n", "holds a header and no numbers"),
    "CSV, commas between thousands": (b"1;2\n3,500;4\n", "line 2, column 1 holds '3,500'; write decimals with a point"),
    "CSV, commas, then semicolons": (b"1,2\n3;4\n", "line 2, column 1 holds '3;4'; it must be a number"),
    "CSV, underscores": (b"1,1_000\n", "line 1, column 2 holds '1_000'"),
    "CSV, an open quote": (b'1,2\n3,"4\n', "line 2: this is not CSV"),
    "CSV, prose": (b"# Loads\n\nThese are loads.\n", "holds a header and no numbers"),
    "CSV, layers and counts alone": (b"layer,count\n3,5\n4,6\n", "has a column 'count' and none that names the expert"),
    "CSV, counts by slot": (b"layer,physical_expert_id,count\n3,0,1\n", "counts by slot .* nothing about experts"),
    "CSV, two counts": (
        b"layer,expert,count,tokens\n0,0,1,2\n",
        "several columns could be their counts: 'count'",
    ),
    "CSV, a pair twice": (b"layer,expert,count\n3,0,5\n3,0,6\n", "line 3 is a second line of layer 3, expert 0"),
    "CSV, a layer twice": (b"layer,0,1\n3,5,6\n3,7,8\n", "line 3 is a second line of layer 3; name the steps"),
    "CSV, half a layer": (b"layer,expert,count\n0.5,0,5\n", "line 2: the layer is 0.5; it must be a whole number"),
    "CSV, rows of counts without a header": (b"3,0,5\n3,1,6\n4,0,7\n4,1,8\n", "rows of layer, expert and count"),
    "CSV, an expert without a column": (b"expert_0,expert_2\n1,2\n", "none for expert 1"),
    "CSV, a column twice": (b"layer,layer,0\n1,2,3\n", "two columns called 'layer'"),
    "CSV, columns of steps": (b"step_0,step_1\n1,2\n", "a column for each step"),
    "CSV, columns of slots": (b"slot_0,slot_1\n1,2\n", "a column for each slot"),
    "CSV, a column of ranks": (b"rank,0,1\n0,5,3\n", "a load is the sum over ranks"),
    "YAML of a balancer": (
        b"num_slots: 4\ninitial_global_assignments:\n  3: [0, 1]\n",
        "is a placement, the load",
    ),
    "bzip2": (b"BZh91AY", "is packed by bzip2; unpack it first"),
    "gzip, cut off": (gzip.compress(csv(COUNTS))[:-6], "truncated or damaged: what gzip packed"),
    "gzip, nothing": (gzip.compress(b""), "is empty"),
    "map of SGLang": (
        text({"physical_to_logical_map": [[0, 1]]}),
        "is a placement, a map of SGLang, and a load",
    ),
    "map of vLLM-Ascend": (
        text({"moe_layer_count": 1, "layer_list": []}),
        "is a placement, an expert map of vLLM",
    ),
    "npz of a plan's table": (npz(physical_to_logical=np.ones((2, 2)), x=np.ones(1)), "is a placement, a plan, or the"),
    "a table of slots": (npy(np.array([[0, 1, 2, 3, 1], [3, 2, 1, 0, 0]])), "is a placement, the expert in each slot"),
    "a pattern": (npy(np.array([[[1, 1, 0, 0]], [[0, 0, 1, 1]]])), "looks like a placement, a pattern of 0 and 1"),
    # torch
    "torch, truncated": (pt(torch.tensor(COUNTS))[:-20], "truncated or damaged"),
    "torch, legacy truncated": (pt(torch.tensor(COUNTS), legacy=True)[:-20], "truncated or damaged"),
    "torch, booleans": (pt(torch.tensor([[True]])), "holds booleans"),
    "torch, complex": (pt(torch.tensor([[1j]])), "holds complex"),
    "torch, sparse": (pt(torch.eye(2).to_sparse()), "_rebuild_sparse_tensor, which is not loaded .* dense tensors"),
    "torch, one axis": (pt({"logical_count": torch.ones(3)}), r"loads: logical_count has shape \(3,\)"),
    "torch, NaN": (pt(torch.tensor([[1.0, float("nan")]])), "the array is nan at layer 0, expert 1"),
    "torch, negative": (pt({"load": torch.tensor([[-1]])}), "load is -1.0 at layer 0, expert 0"),
    "torch, no known key": (pt({"weight": torch.ones(1)}), "its keys are 'weight'"),
    "torch, text": (pt({"logical_count": "many"}), "logical_count is 'many'"),
    "torch, a number": (pt(3), "the document is 3; it must be a nested list"),
    "torch, an object": (pt(Path("x")), "not loaded because unpickling runs code"),
    "torch, a numpy array": (pt({"load": np.ones((2, 2))}), "torch.save"),
}
"""Names, contents, and the pattern of the sentence that refuses them."""
