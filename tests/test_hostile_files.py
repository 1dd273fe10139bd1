"""Any file may be read: it is read right or refused in a sentence, and refusing takes no memory to speak of."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import equipoise as eq
from equipoise.engines.formats import read_placement
from equipoise.errors import EquipoiseError
from equipoise.load import read_load
from hostile_files import PLAN, READ, REFUSED

EXPERTS = [{"device_id": j, "device_expert": [j, 2]} for j in range(2)]
DOCUMENTS: dict[str, Any] = {
    "plan": PLAN,
    "sglang": {"physical_to_logical_map": [[0, 1, 2, 0], [2, 1, 0, 1]]},
    "vllm-ascend": {
        "moe_layer_count": 1,
        "layer_list": [{"layer_id": 0, "device_count": 2, "device_list": EXPERTS}],
    },
    "counts": {"logical_count": [[[1, 2], [3, 4.5]]], "rank": 0},
}

MOST = 500 << 20  # bytes that refusing a file may take beyond its own
LONGEST = 1000  # characters of a refusal, without the path

pytestmark = pytest.mark.skipif(
    not hasattr(os, "mkfifo") or not Path("/proc/self/statm").exists(), reason="needs Linux"
)

Read = Callable[[str, Path], tuple[str, str, int]]


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """Return what reads a file in a child with limits on its memory; one that hangs is killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).with_name("read_in_child.py"))]
    with subprocess.Popen(program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def ask(reader: str, path: Path) -> tuple[str, str, int]:
            child.stdin.write(json.dumps([reader, str(path)]) + "\n")
            child.stdin.flush()
            answer: tuple[str, str, int] = tuple(json.loads(child.stdout.readline()))
            return answer

        yield ask
        child.stdin.close()


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_in_a_sentence_and_within_its_memory(name: str, read: Read, tmp_path: Path) -> None:
    reader, build = REFUSED[name]
    path = build(tmp_path)
    outcome, said, taken = read(reader, path)
    assert outcome == "refused", said
    assert said.isprintable()
    assert len(said) - len(str(path)) < LONGEST
    size = path.stat().st_size if "\0" not in str(path) and path.is_file() else 0
    assert taken < MOST + size, f"{taken >> 20} MB for {size >> 20} MB"


@pytest.mark.parametrize("name", READ)
def test_an_odd_file_is_read_right(name: str, read: Read, tmp_path: Path) -> None:
    reader, build, expected = READ[name]
    outcome, said, _ = read(reader, build(tmp_path))
    assert outcome == "read", said
    assert expected is None or json.loads(said) == expected


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a document."""
    yield here
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*here, key))


ODD = (None, True, -1, 0.5, 2**63, 10**400, 1e400, float("nan"), "x", "\x1b[2J", [], [[]], {}, {"x": 1}, [[0, 1], [2]])


@pytest.mark.parametrize("name", ["plan", "sglang", "vllm-ascend", "counts"])
def test_a_document_with_any_value_changed_is_read_or_refused(name: str, tmp_path: Path) -> None:
    document, path = DOCUMENTS[name], tmp_path / "file"
    for place in places(document):
        for value in ODD:
            changed = copy.deepcopy(document)
            if not place:
                changed = value
            else:
                inside = changed
                for key in place[:-1]:
                    inside = inside[key]
                inside[place[-1]] = value
            path.write_text(json.dumps(changed))
            for reader in (read_load, read_placement, eq.Plan.load):
                with suppress(EquipoiseError):
                    found = reader(path)
                    if isinstance(found, eq.Plan):
                        found.summary()


def test_nothing_that_a_file_names_is_run(read: Read, tmp_path: Path) -> None:
    """A call in any file would make this file."""
    from made_files import Call, pt, saved, zipped

    made = tmp_path / "made"
    call: Any = Call(os.mkdir, str(made))
    for legacy in (False, True):
        for value in (call, {"load": call}, [call], {"records": [call]}):
            path = tmp_path / "file"
            path.write_bytes(pt(value, legacy))
            assert read("load", path)[0] == "refused"
            assert read("placement", path)[0] in ("refused", "read")
    import numpy as np

    array = saved(np.array([[call]], dtype=object))
    for content in (array, zipped(("load.npy", array))):
        path.write_bytes(content)
        assert read("load", path)[0] == "refused"
    assert not made.exists()
