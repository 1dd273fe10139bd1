"""The SGLang plug-in against a stand-in for SGLang; ``real/test_sglang.py`` runs it in the real one."""

from __future__ import annotations

import logging
import types

import numpy as np
import pytest

import equipoise as eq
from engines.fake_engines import Algorithm, HookType, add_module, add_sglang
from equipoise.engines import sglang
from equipoise.engines.settings import VARIABLES
from equipoise.errors import IndivisibleError, InvalidInputError, MissingDependencyError

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _clean(monkeypatch, caplog):
    for suffix in VARIABLES:
        monkeypatch.delenv(sglang.PREFIX + suffix, raising=False)
    caplog.set_level(logging.INFO, "sglang.equipoise")


@pytest.fixture
def hook(monkeypatch):
    registry = add_sglang(monkeypatch)
    sglang.register()
    ((kind, hook, _),) = registry._hooks[sglang.TARGET]
    assert kind is HookType.REPLACE
    return hook


def asked(seed=0, **changes):
    tokens = np.random.default_rng(seed).integers(1, 1000, (2, 4, 16)).astype(np.int32)
    tokens[:, 0] = 0  # a dense layer
    arguments = {
        "tokens_per_expert": torch.from_numpy(tokens),
        "num_physical_experts": 24,
        "num_local_physical_experts": 3,
        "num_groups": None,
        "num_nodes": 1,
        "algorithm": Algorithm.deepseek,
    }
    return {**arguments, **changes}


def test_keywords_give_three_int64_maps_padded_to_the_most_replicas(hook):
    slots, places, counts = hook(**asked())
    assert {x.dtype for x in (slots, places, counts)} == {torch.int64}
    assert slots.shape == (4, 24)
    assert counts.sum(dim=1).tolist() == [24] * 4
    assert places.shape == (4, 16, int(counts.max()))
    assert torch.equal((places >= 0).sum(dim=2), counts)
    layer, expert = 2, int(counts[2].argmax())
    assert {int(slots[layer, place]) for place in places[layer, expert] if place >= 0} == {expert}


def test_steps_are_summed(hook):
    tokens = asked()["tokens_per_expert"]
    summed = asked(tokens_per_expert=tokens.sum(dim=0, keepdim=True))
    assert torch.equal(hook(**asked())[0], hook(**summed)[0])


def test_groups_stay_whole_on_a_node_when_the_algorithm_says_so(hook):
    hierarchical = asked(num_groups=4, num_nodes=2, algorithm=Algorithm.deepseek_hierarchical)
    groups = hook(**hierarchical)[0].reshape(4, 2, 12) // 4
    for layer in groups:
        assert not set(layer[0].tolist()) & set(layer[1].tolist())
    globally = hook(**asked(num_groups=4, num_nodes=2))[0]
    assert torch.equal(globally, hook(**asked())[0])


def test_an_algorithm_for_dead_ranks_stays_with_sglang(hook, caplog):
    for _ in range(2):
        assert hook(**asked(algorithm=Algorithm.elasticity_aware)) == "built-in"
    assert caplog.text.count("leaves the algorithm elasticity_aware to SGLang") == 1


def test_slots_that_the_ranks_do_not_divide_are_refused(hook):
    with pytest.raises(IndivisibleError, match="25 slots do not divide into ranks of 3"):
        hook(**asked(num_physical_experts=25))


def test_the_placement_in_force_is_changed_no_more_than_the_plan_needs(monkeypatch, hook):
    held = hook(**asked(seed=1))[0]
    metadata = types.SimpleNamespace(physical_to_logical_map_cpu=held)
    add_module(monkeypatch, "sglang.srt.eplb.expert_location", get_global_expert_location_metadata=lambda: metadata)
    assert torch.equal(hook(**asked(seed=1))[0], held)
    new = hook(**asked(seed=2))[0]
    for layer in range(4):
        for rank in range(8):
            own = slice(3 * rank, 3 * rank + 3)
            here, there = new[layer, own].tolist(), held[layer, own].tolist()
            assert all(here[there.index(e)] == e for e in set(here) & set(there))
    for other in (None, types.SimpleNamespace(), types.SimpleNamespace(physical_to_logical_map_cpu=held[:, :6])):
        get = lambda other=other: other  # noqa: E731
        add_module(monkeypatch, "sglang.srt.eplb.expert_location", get_global_expert_location_metadata=get)
        assert hook(**asked(seed=2))[0].shape == (4, 24)


def test_a_second_call_registers_nothing_and_the_switch_leaves_sglang_alone(monkeypatch, caplog):
    registry = add_sglang(monkeypatch)
    sglang.register()
    sglang.register()
    assert len(registry._hooks[sglang.TARGET]) == 1
    registry._hooks.clear()
    monkeypatch.setenv("EQUIPOISE_SGLANG", "0")
    sglang.register()
    assert not registry._hooks
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]


def test_one_line_says_what_was_replaced_and_one_how_good_the_first_plan_is(hook, caplog):
    hook(**asked(tokens_per_expert=torch.zeros(1, 4, 16)))
    for seed in (0, 1):
        hook(**asked(seed))
    lines = [record.getMessage() for phase in ("setup", "call") for record in caplog.get_records(phase)]
    assert len(lines) == 3
    assert "replaced sglang.srt.eplb.eplb_algorithms.rebalance_experts" in lines[0]
    assert "balancedness mean" in lines[1]
    assert "gap to the proved lower bound mean" in lines[1]
    assert "balancedness mean" in lines[2]


def test_an_sglang_of_another_contract_is_left_alone_with_one_line(monkeypatch, caplog):
    def renamed(tokens_per_expert, num_physical_experts, num_local_physical_experts, num_groups, num_nodes, policy):
        return None

    registry = add_sglang(monkeypatch, renamed)
    sglang.register()
    add_module(monkeypatch, "sglang.srt.plugins.hook_registry", HookType=None)
    sglang.register()
    assert not registry._hooks
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert caplog.text.count("equipoise does not know this SGLang (0.0.fake)") == 2


def test_without_sglang_registering_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sglang", None)
    with pytest.raises(MissingDependencyError, match="not installed here"):
        sglang.register()


def test_a_saved_plan_is_held_or_refused(monkeypatch, tmp_path):
    load = asked()["tokens_per_expert"].sum(dim=0)
    plan = eq.solve(eq.PlacementProblem(load, eq.Cluster(num_ranks=8, slots_per_rank=3)))
    plan.save(tmp_path / "plan.json")
    monkeypatch.setenv("EQUIPOISE_SGLANG_PLAN", str(tmp_path / "plan.json"))
    registry = add_sglang(monkeypatch)
    sglang.register()
    hook = registry._hooks[sglang.TARGET][0][1]
    assert hook(**asked(seed=9))[0].tolist() == plan.placement.physical_to_logical.tolist()
    with pytest.raises(InvalidInputError, match="no saved plan fits this engine"):
        hook(**asked(num_local_physical_experts=6))


LOCATION = sglang.sglang_shares.MODULE


class Location:
    """SGLang's noun, as far as weights ask it."""

    def __init__(self, table):
        self.physical_to_logical_map_cpu = table

    def logical_to_all_physical(self, layer_id, logical_expert_id, require_global_experts=False):
        return "built-in"


def own_dispatch(logical_to_all_physical_map, ep_size, num_physical_experts, ep_rank, seed=42):
    """Send every expert's tokens to the first slot in its list."""
    return logical_to_all_physical_map[:, :, 0].clone()


@pytest.fixture
def shared(monkeypatch):
    """Return the hooks by target, with shares asked for and a server that dispatches as the test says."""
    registry = add_sglang(monkeypatch)
    moe = types.SimpleNamespace(ep_dispatch_algorithm="dynamic")
    add_module(
        monkeypatch,
        LOCATION,
        compute_logical_to_rank_dispatch_physical_map=own_dispatch,
        ExpertLocationMetadata=Location,
        get_exec=lambda: types.SimpleNamespace(moe=moe),
        get_global_expert_location_metadata=lambda: None,
    )
    monkeypatch.setenv("EQUIPOISE_SGLANG_SHARES", "1")
    sglang.register()
    return {target: hooks[0][1] for target, hooks in registry._hooks.items()}, moe


def ask(hook, load):
    return hook(
        tokens_per_expert=load,
        num_physical_experts=24,
        num_local_physical_experts=3,
        num_groups=1,
        num_nodes=1,
        algorithm=Algorithm.deepseek,
    )


def test_lists_have_the_best_shares_for_the_load_of_the_call(shared):
    hooks, moe = shared
    load = torch.from_numpy(np.random.default_rng(0).gamma(0.4, 1000, (3, 16)))
    table, lists, counts = ask(hooks[sglang.TARGET], load)
    asked = eq.share(eq.Placement(table.numpy(), 8, 16), load).values
    found = np.stack([(lists == slot).sum(dim=2).max(dim=1).values.numpy() for slot in range(24)], axis=1)
    length = (lists >= 0).sum(dim=2).gather(1, table).numpy()
    assert lists.shape[2] <= 24, "no wider than there are slots"
    assert np.abs(found / length - asked).max() <= 1 / 16
    assert counts.sum(dim=1).tolist() == [24] * 3
    moe.ep_dispatch_algorithm = "lp"
    _, lists, _ = ask(hooks[sglang.TARGET], load)
    assert (lists >= 0).sum(dim=2).tolist() == counts.tolist()


def test_source_ranks_are_dealt_out_by_how_often_a_slot_is_listed(shared):
    hooks, _ = shared
    deal = hooks[sglang.sglang_shares.DISPATCH]
    lists = torch.tensor([[[0, 4, 0, 0], [1, -1, -1, -1], [2, 5, -1, -1]]])
    sent = torch.stack([deal(lists, 8, 16, rank) for rank in range(8)])[:, 0]
    assert sent[:, 0].bincount(minlength=5).tolist() == [6, 0, 0, 0, 2]
    assert sent[2, 0] == 4, "a rank that holds a replica uses it"
    assert sent[:, 1].tolist() == [1] * 8
    assert sent[:, 2].tolist() == [2] * 8, "lists without repeats are the engine's own business"


def test_weights_find_the_slots_of_the_placement(shared):
    hooks, _ = shared
    find = hooks[sglang.sglang_shares.WEIGHTS]
    here = Location(torch.tensor([[0, 1, 0, 2]]))
    assert find(here, 0, 0) == [0, 2]
    assert find(here, 1, 0) == find(here, 0, 0, True) == "built-in"


def test_functions_of_another_signature_keep_shares_even_and_are_told_in_one_line(monkeypatch, caplog):
    registry = add_sglang(monkeypatch)
    add_module(
        monkeypatch,
        LOCATION,
        compute_logical_to_rank_dispatch_physical_map=lambda table: None,
        ExpertLocationMetadata=Location,
    )
    monkeypatch.setenv("EQUIPOISE_SGLANG_SHARES", "1")
    sglang.register()
    assert set(registry._hooks) == {sglang.TARGET}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "leaves replicas of this SGLang even shares" in caplog.text
