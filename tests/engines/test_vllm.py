"""The vLLM plug-in against a stand-in for vLLM; ``real/test_vllm.py`` runs it in the real one."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import equipoise as eq
from engines.fake_engines import BuiltinPolicy, add_module, add_vllm
from equipoise.engines import vllm
from equipoise.engines.settings import VARIABLES
from equipoise.errors import InvalidInputError, MissingDependencyError, UnknownNameError

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _clean(monkeypatch, caplog):
    for suffix in VARIABLES:
        monkeypatch.delenv(vllm.PREFIX + suffix, raising=False)
    caplog.set_level(logging.INFO, "vllm.equipoise")


@pytest.fixture
def policy(monkeypatch):
    policies = add_vllm(monkeypatch)
    vllm.register()
    return policies["default"]


def load(layers=3, experts=16, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(1, 1000, (layers, experts)).astype(np.int32))


def stays(new, old, ranks):
    """Return the slots whose expert was on the same rank before, and those of them that hold it still."""
    stayed = kept = 0
    for a, b in zip(new.reshape(len(new), ranks, -1).tolist(), old.reshape(len(old), ranks, -1).tolist(), strict=True):
        for here, there in zip(a, b, strict=True):
            stayed += sum(min(here.count(e), there.count(e)) for e in set(here))
            kept += sum(x == y for x, y in zip(here, there, strict=True))
    return stayed, kept


def test_the_default_policy_is_replaced_and_keeps_its_other_methods(policy):
    assert issubclass(policy, BuiltinPolicy)
    assert policy.helper() == "kept"


def test_six_positional_arguments_give_an_int64_map_on_the_cpu(policy):
    new = policy.rebalance_experts(load(), 24, 4, 2, 8, torch.arange(24).repeat(3, 1) % 16)
    assert new.dtype == torch.int64
    assert new.device.type == "cpu"
    assert new.shape == (3, 24)
    assert all(len(set(row.tolist())) == 16 for row in new)


def test_ranks_that_plan_alone_agree(policy):
    old = torch.arange(24).repeat(3, 1) % 16
    assert torch.equal(*(policy.rebalance_experts(load(), 24, 1, 1, 8, old) for _ in range(2)))


def test_a_profiling_run_without_load_changes_nothing_and_logs_nothing(policy, caplog):
    old = torch.stack([torch.randperm(16) for _ in range(3)])
    caplog.clear()
    assert torch.equal(policy.rebalance_experts(torch.zeros(3, 16, dtype=torch.int32), 16, 1, 1, 8, old), old)
    assert policy.rebalance_experts(torch.zeros(3, 16, dtype=torch.int32), 24, 1, 1, 8).shape == (3, 24)
    assert not caplog.records


def test_an_expert_that_stays_on_its_rank_keeps_its_slot(policy):
    old = policy.rebalance_experts(load(seed=1), 24, 1, 1, 8)
    new = policy.rebalance_experts(load(seed=2), 24, 1, 1, 8, old)
    stayed, kept = stays(new, old, 8)
    assert stayed == kept > 0


def test_added_ranks_come_as_minus_one_and_leaving_ranks_as_extra_columns(policy):
    old = policy.rebalance_experts(load(seed=1), 16, 1, 1, 4)
    grown = torch.cat([old, torch.full((3, 8), -1)], dim=1)
    new = policy.rebalance_experts(load(seed=2), 24, 1, 1, 6, grown)
    stayed, kept = stays(new, grown, 6)
    assert new.min() == 0
    assert stayed == kept > 0
    shrunk = policy.rebalance_experts(load(seed=3), 16, 1, 1, 4, new)
    stayed, kept = stays(shrunk, new[:, :16], 4)
    assert stayed == kept > 0
    narrow = policy.rebalance_experts(load(seed=3), 24, 1, 1, 6, old)
    assert stays(narrow[:, :16], old, 4)[1] > 0


def test_the_plan_in_force_stays_when_it_is_as_good_as_the_new_one(policy):
    old = policy.rebalance_experts(load(), 24, 1, 1, 8)
    assert torch.equal(policy.rebalance_experts(load() * 3, 24, 1, 1, 8, old), old)


def test_groups_that_do_not_divide_are_planned_globally(policy):
    assert policy.rebalance_experts(load(), 24, 3, 2, 8).shape == (3, 24)
    assert policy.rebalance_experts(load(), 24, 0, 2, 8).shape == (3, 24)


def test_slots_that_ranks_do_not_divide_raise_an_assertion_error(policy):
    with pytest.raises(AssertionError, match="7 slots do not spread evenly over 4 ranks"):
        policy.rebalance_experts(load(1, 4), 7, 2, 2, 4)
    with pytest.raises(AssertionError, match="at least 8 slots per layer"):
        policy.rebalance_experts(load(), 8, 2, 2, 4)


def test_a_second_call_changes_nothing_and_the_switch_restores_the_built_in_policy(monkeypatch, caplog):
    policies = add_vllm(monkeypatch)
    vllm.register()
    first = policies["default"]
    vllm.register()
    assert policies["default"] is first
    monkeypatch.setenv("EQUIPOISE_VLLM", "0")
    vllm.register()
    assert policies["default"] is BuiltinPolicy
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


def test_one_line_says_what_was_replaced_and_one_how_good_the_first_plan_is(policy, caplog):
    for seed in (0, 1):
        policy.rebalance_experts(load(seed=seed), 24, 1, 1, 8)
    lines = [record.getMessage() for phase in ("setup", "call") for record in caplog.get_records(phase)]
    assert len(lines) == 3
    assert "replaced BuiltinPolicy" in lines[0]
    assert "balancedness mean" in lines[1]
    assert "gap to the proved lower bound mean" in lines[1]
    assert "balancedness mean" in lines[2]


@pytest.mark.parametrize("change", ["renamed", "one more", "no table", "no default"])
def test_a_vllm_of_another_contract_is_left_alone_with_one_line(monkeypatch, caplog, change):
    class Renamed:
        @classmethod
        def rebalance_experts(cls, weight, num_slots, num_groups, num_nodes, num_ranks, old=None):
            return None

    class OneMore:
        @classmethod
        def rebalance_experts(
            cls, weight, num_replicas, num_groups, num_nodes, num_ranks, old_global_expert_indices, health
        ):
            return None

    policies = add_vllm(monkeypatch, {"renamed": Renamed, "one more": OneMore}.get(change, BuiltinPolicy))
    if change == "no table":
        add_module(monkeypatch, "vllm.distributed.eplb.policy", EPLB_POLICIES=None)
    if change == "no default":
        policies["other"] = policies.pop("default")
    before = dict(policies)
    vllm.register()
    assert policies == before
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "equipoise does not know this vLLM (0.0.fake)" in caplog.text


def test_without_vllm_registering_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match="not installed here"):
        vllm.register()


def test_a_wrong_setting_stops_the_engine_when_it_starts(monkeypatch):
    policies = add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_STRATEGY", "nearest")
    with pytest.raises(UnknownNameError, match="'nearest'"):
        vllm.register()
    assert policies["default"] is BuiltinPolicy


@pytest.fixture
def saved(tmp_path):
    plan = eq.solve(eq.PlacementProblem(load(), eq.Cluster(num_ranks=8, slots_per_rank=3)))
    plan.save(tmp_path / "plan.json")
    return plan, tmp_path / "plan.json"


def test_a_saved_plan_is_held_whatever_the_load(monkeypatch, saved):
    plan, path = saved
    policies = add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_PLAN", str(path))
    vllm.register()
    for seed in (1, 2):
        new = policies["default"].rebalance_experts(load(seed=seed), 24, 1, 1, 8, None)
        assert new.tolist() == plan.placement.physical_to_logical.tolist()


def test_a_saved_plan_for_another_shape_is_refused_with_both_shapes(monkeypatch, saved):
    policies = add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_PLAN", str(saved[1]))
    vllm.register()
    with pytest.raises(
        InvalidInputError, match=r"asks for 3 MoE layers of 16 experts in 24 slots on 4 ranks: .* on 8 ranks"
    ):
        policies["default"].rebalance_experts(load(), 24, 1, 1, 4)
    with pytest.raises(InvalidInputError, match="asks for 2 MoE layers"):
        policies["default"].rebalance_experts(load(2), 24, 1, 1, 8)


def test_a_saved_plan_that_cannot_be_read_stops_the_engine_when_it_starts(monkeypatch, saved):
    add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_PLAN", str(saved[1]) + ".gone")
    with pytest.raises(InvalidInputError, match="does not exist"):
        vllm.register()


def compute_logical_maps(physical_to_logical_map, num_logical_experts):
    """Answer as vLLM's own function does, for all layers or one."""
    held = physical_to_logical_map if physical_to_logical_map.ndim == 2 else physical_to_logical_map[None]
    placement = eq.Placement(held.numpy(), 1, num_logical_experts)
    maps = torch.from_numpy(placement.logical_to_physical.astype(np.int64))
    counts = torch.from_numpy(placement.replica_count.astype(np.int64))
    return (maps, counts) if physical_to_logical_map.ndim == 2 else (maps[0], counts[0])


@pytest.fixture
def maps(monkeypatch):
    """Return the module that has vLLM's function."""
    return add_module(monkeypatch, vllm.MODULE, compute_logical_maps=compute_logical_maps)


def shares_of(maps, counts, slots):
    """Return what part of its expert's tokens each slot gets, [layers, slots]."""
    found = np.zeros((len(maps), slots))
    for layer, experts in enumerate(maps.tolist()):
        for expert, listed in enumerate(experts):
            for slot in listed[: counts[layer, expert]]:
                found[layer, slot] += 1 / int(counts[layer, expert])
    return found


def test_shares_are_the_best_for_the_load_of_the_call_and_follow_it_where_nothing_moves(monkeypatch, maps):
    policies = add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_SHARES", "1")
    monkeypatch.setenv("EQUIPOISE_VLLM_MIN_GAIN", "0.5")
    vllm.register()
    held = None
    for seed in range(3):
        weight = load(seed=seed)
        table = policies["default"].rebalance_experts(weight, 24, 1, 1, 8, held)
        assert held is None or torch.equal(table, held)
        found = shares_of(*maps.compute_logical_maps(table, 16), 24)
        asked = eq.share(eq.Placement(table.numpy(), 8, 16), weight)
        assert np.abs(found - asked.values).max() <= 1 / 64
        alone = [maps.compute_logical_maps(row, 16) for row in table]
        stacked = [torch.stack([each[part] for each in alone]) for part in (0, 1)]
        assert np.array_equal(shares_of(*stacked, 24), found)
        held = table


def test_layers_that_are_alike_get_even_shares_when_they_are_asked_for_alone(monkeypatch, maps):
    policies = add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_SHARES", "1")
    monkeypatch.setenv("EQUIPOISE_VLLM_MAX_LAYERS", "0")
    vllm.register()
    alike = torch.arange(24).repeat(3, 1) % 16
    weight = load() + torch.arange(16).lt(8) * 3000  # those that have two replicas are hot
    table = policies["default"].rebalance_experts(weight, 24, 1, 1, 8, alike)
    assert torch.equal(table, alike)
    together, alone = maps.compute_logical_maps(table, 16), maps.compute_logical_maps(table[0], 16)
    assert together[0].shape[-1] == 64
    assert all(torch.equal(a, b) for a, b in zip(alone, compute_logical_maps(table[0], 16), strict=True))


def test_the_door_is_opened_only_on_request_and_closed_with_the_plug_in(monkeypatch, maps):
    add_vllm(monkeypatch)
    vllm.register()
    assert maps.compute_logical_maps is compute_logical_maps
    add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_SHARES", "1")
    vllm.register()
    assert maps.compute_logical_maps is not compute_logical_maps
    monkeypatch.setenv("EQUIPOISE_VLLM", "0")
    vllm.register()
    assert maps.compute_logical_maps is compute_logical_maps


def test_a_function_of_another_signature_keeps_shares_even_and_is_told_in_one_line(monkeypatch, maps, caplog):
    maps.compute_logical_maps = lambda table: None
    policies = add_vllm(monkeypatch)
    monkeypatch.setenv("EQUIPOISE_VLLM_SHARES", "1")
    vllm.register()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "its compute_logical_maps takes (table)" in caplog.text
    assert policies["default"].rebalance_experts(load(), 24, 1, 1, 8).shape == (3, 24)
