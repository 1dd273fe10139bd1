"""What a plug-in does with each call: plan, say what came of it, and keep the load."""

from __future__ import annotations

import logging
import subprocess
import sys
import types

import numpy as np
import pytest

from equipoise.engines import vllm
from equipoise.engines.leader import leads
from equipoise.engines.planner import Planner
from equipoise.engines.settings import Settings
from equipoise.errors import InvalidInputError
from equipoise.load import read_load
from equipoise.metrics import balancedness

LOG = logging.getLogger("equipoise.test")


@pytest.fixture(autouse=True)
def _debug(caplog):
    caplog.set_level(logging.DEBUG, LOG.name)


def load(seed=0, layers=3, experts=32):
    return np.random.default_rng(seed).integers(1, 1000, (layers, experts))


def call(planner, counts, current=None, groups=1, nodes=1):
    placement, _ = planner.place_and_share(counts, 40, groups, nodes, 8, current)
    planner._recorder and planner._recorder.wait()
    return placement.physical_to_logical


def test_one_line_a_plan_says_what_moves_for_what_and_the_next_what_it_was_worth(caplog):
    planner = Planner(Settings(), "X", LOG, lambda: True)
    in_order = np.tile(np.arange(40) % 32, (3, 1))
    held = call(planner, load(), in_order)
    call(planner, load(1), held)
    first, realised, rearranged = (record.getMessage() for record in caplog.records)
    assert first.startswith("equipoise's first plan: 3 layers, 40 slots; balancedness mean 0.99")
    assert "; before it mean 0." in first
    assert " transfers in 3 of 3 layers; planned in " in first
    assert realised.startswith("equipoise's last plan, over the window since: balancedness mean 0.")
    assert "; planned mean 0.99" in realised
    assert rearranged.startswith("equipoise rearranges: ")
    assert " -> mean 0." in rearranged
    caplog.clear()
    held = call(planner, load(1), held)
    caplog.clear()
    call(planner, load(1), held)
    _, stays = (record.getMessage() for record in caplog.records)
    assert stays.startswith("equipoise leaves all 3 layers as they are: balancedness mean 0.9")


def test_a_plan_is_not_judged_before_its_map_is_in_force(caplog):
    planner = Planner(Settings(), "X", LOG, lambda: True)
    in_order = np.tile(np.arange(40) % 32, (3, 1))
    call(planner, load(), in_order)
    call(planner, load(1), in_order)
    assert "since" not in caplog.text


@pytest.mark.parametrize("prefix", ["EQUIPOISE_VLLM", "EQUIPOISE_SGLANG"])
def test_groups_that_hold_the_balance_down_are_named_with_the_variable_that_helps(caplog, prefix):
    hot = np.ones((2, 32))
    hot[:, :4] = 30  # one of eight groups
    planner = Planner(Settings(), prefix, LOG, lambda: True)
    held = call(planner, hot, None, 8, 4)
    call(planner, hot * 2, held, 8, 4)
    assert caplog.text.count("2 layers are held up by expert groups on nodes") == 2
    assert caplog.text.count(f"({prefix}_HIERARCHY=global)") == 2


def test_the_other_processes_say_it_at_debug_and_keep_nothing(caplog, tmp_path):
    planner = Planner(Settings(record=str(tmp_path)), "X", LOG, lambda: False)
    call(planner, load())
    assert {record.levelname for record in caplog.records} == {"DEBUG"}
    assert not list(tmp_path.iterdir())


def test_every_load_is_kept_with_what_was_in_force_and_read_as_windows(tmp_path):
    planner = Planner(Settings(record=str(tmp_path / "new" / "folder")), "X", LOG, lambda: True)
    held = call(planner, load(0))
    for seed in (1, 2):
        current, held = held, call(planner, load(seed), held)
    statistics = read_load(tmp_path / "new" / "folder")
    assert statistics.tokens_per_expert.tolist() == [load(seed).tolist() for seed in (0, 1, 2)]
    files = sorted((tmp_path / "new" / "folder").iterdir())
    with np.load(files[-1]) as record:
        assert record["physical_to_logical"].tolist() == current.tolist()
        assert record["asked"].tolist() == [40, 1, 1, 8]
    with np.load(files[0]) as record:
        assert record["physical_to_logical"].shape == (0, 0)
    assert read_load(files[1]).load.tolist() == load(1).tolist()


def test_a_profiling_run_is_not_kept(tmp_path):
    call(Planner(Settings(record=str(tmp_path)), "X", LOG, lambda: True), load() * 0)
    assert not list(tmp_path.iterdir())


def test_the_oldest_records_leave_when_the_folder_is_full(tmp_path):
    planner = Planner(Settings(record=str(tmp_path), record_mb=1), "X", LOG, lambda: True)
    big = np.random.default_rng(0).integers(1, 1000, (58, 256))  # 119 kB a record
    for seed in range(12):
        planner.place_and_share(big + seed, 288, 1, 1, 32, None)
        planner._recorder.wait()
    statistics = read_load(tmp_path)
    assert statistics.num_windows == 8
    assert statistics.tokens_per_expert[-1].tolist() == (big + 11).tolist()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10**6


def test_a_folder_that_stops_taking_records_is_said_once_and_serving_goes_on(caplog, tmp_path):
    planner = Planner(Settings(record=str(tmp_path / "loads")), "X", LOG, lambda: True)
    (tmp_path / "loads").rmdir()
    for seed in (0, 1):
        assert call(planner, load(seed)).shape == (3, 40)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_a_folder_that_cannot_be_made_stops_the_engine_when_it_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="cannot be made a folder for loads"):
        Planner(Settings(record=str(tmp_path / "file")), "X", LOG)


def test_loads_of_two_models_are_told_apart(tmp_path):
    planner = Planner(Settings(record=str(tmp_path)), "X", LOG, lambda: True)
    call(planner, load())
    call(planner, load(layers=1))
    with pytest.raises(InvalidInputError, match=r"1x32-rank0, 3x32-rank0\. Name one as key"):
        read_load(tmp_path)
    assert read_load(tmp_path, key="1x32-rank0").num_layers == 1
    with pytest.raises(InvalidInputError, match="holds no load '2x32'"):
        read_load(tmp_path, key="2x32")


def test_what_is_half_written_is_no_record(tmp_path):
    planner = Planner(Settings(record=str(tmp_path)), "X", LOG, lambda: True)
    call(planner, load())
    (whole,) = tmp_path.iterdir()
    (tmp_path / (whole.name + ".0.tmp")).write_bytes(whole.read_bytes()[:100])
    assert read_load(tmp_path).num_windows == 1
    whole.write_bytes(whole.read_bytes()[:100])
    with pytest.raises(InvalidInputError, match="load-3x32-rank0"):
        read_load(tmp_path)


def test_gauges_have_the_names_of_the_balancers(monkeypatch, tmp_path):
    prometheus = pytest.importorskip("prometheus_client")
    planner = Planner(Settings(metrics=True), "EQUIPOISE_TEST", LOG, lambda: True)
    held = call(planner, load(), np.tile(np.arange(40) % 32, (3, 1)))
    call(planner, load(1), held)
    value = lambda name: prometheus.REGISTRY.get_sample_value(  # noqa: E731
        f"equipoise_{name}", {"balancer": "equipoise_test_3x32"}
    )
    assert value("checks") == 2
    assert value("migrations") == 2
    assert value("transfers") > 0
    assert 0 < value("balancedness_realised") < value("balancedness_planned") <= 1


@pytest.mark.parametrize("rank", [0, 3])
def test_the_first_of_vllms_expert_group_speaks(monkeypatch, rank):
    state = types.SimpleNamespace(get_ep_group=lambda: types.SimpleNamespace(rank_in_group=rank))
    monkeypatch.setitem(sys.modules, "vllm.distributed.parallel_state", state)
    assert vllm._leads() is (rank == 0)
    state.get_ep_group = lambda: (_ for _ in ()).throw(AssertionError("not initialised"))
    assert vllm._leads()
    assert leads()


def test_what_a_plug_in_loads_before_its_first_plan_compiles_nothing():
    code = (
        "import logging, sys; from equipoise.engines.planner import Planner; from equipoise.engines.settings import "
        "Settings; Planner(Settings(), 'X', logging.getLogger()); print('numba' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_what_shares_in_force_were_worth_is_measured_with_them(caplog):
    settings = Settings(shares=True, min_gain=0.5, threads=1)
    planner = Planner(settings, "X", LOG, lambda: True)
    load = np.random.default_rng(0).gamma(0.5, size=(2, 16))
    placement, shares = planner.place_and_share(load, 24, 1, 1, 8)
    drifted = load * np.random.default_rng(1).uniform(0.7, 1.3, load.shape)
    caplog.clear()
    again, fresh = planner.place_and_share(drifted, 24, 1, 1, 8, placement.physical_to_logical)
    assert again == placement
    before, after = (balancedness(each.rank_load(drifted)).mean() for each in (shares, fresh))
    assert before < after
    assert f"over the window since: balancedness mean {before:.4f}" in caplog.text
