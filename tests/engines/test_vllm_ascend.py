"""The policy for vLLM-Ascend, held to the checks that the engine makes on every layer."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.fake_engines import add_module
from equipoise.engines import vllm_ascend
from equipoise.engines.settings import Settings
from equipoise.engines.vllm_ascend import EquipoisePolicy
from equipoise.errors import InvalidInputError, UnknownNameError


def broken_rules(old, new):
    """Return which of the engine's three rules a layer breaks, by its own description of them."""
    broken = []
    if set(new.reshape(-1).tolist()) != set(old.reshape(-1).tolist()):
        broken.append("placed")
    for here, there in zip(new.tolist(), old.tolist(), strict=True):
        if len(set(here)) < len(here):
            broken.append("duplicate")
        if any(here.index(e) != there.index(e) for e in set(here) & set(there)):
            broken.append("moved")
    return broken


@st.composite
def tables(draw):
    ranks, slots = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    experts = draw(st.integers(max(slots, 1), ranks * slots))
    layers = draw(st.integers(1, 3))
    table = np.empty((layers, ranks, slots), dtype=np.int64)
    for layer in range(layers):  # dealt round the ranks, so that no rank has an expert twice where that is possible
        order = draw(st.permutations(range(experts)))
        table[layer] = np.array([order[i % experts] for i in range(ranks * slots)]).reshape(ranks, slots)
    flat = draw(st.lists(st.integers(0, 50), min_size=table.size, max_size=table.size))
    return table, np.array(flat).reshape(table.shape)


@settings(max_examples=150)
@given(tables())
def test_the_three_hard_rules_hold_in_every_layer_that_changes(case):
    table, workload = case
    change, priority, new = EquipoisePolicy(Settings()).rebalance_experts(table, workload)
    assert new.dtype == np.int64
    assert change == (not np.array_equal(new, table))
    assert sorted(priority.tolist()) == list(range(len(table)))
    for old_layer, new_layer in zip(table, new, strict=True):
        if not np.array_equal(old_layer, new_layer):
            assert broken_rules(old_layer, new_layer) == []


def test_torch_tables_are_taken_and_the_busiest_rank_gets_lighter():
    torch = pytest.importorskip("torch")
    table = torch.arange(16).reshape(1, 4, 4).repeat(2, 1, 1)
    workload = torch.ones(2, 4, 4, dtype=torch.int64)
    workload[1, 0] = 100
    change, priority, new = EquipoisePolicy(Settings()).rebalance_experts(table, workload)
    assert change == 1
    assert priority.tolist() == [1, 0]
    assert np.array_equal(new[0], table[0])
    assert broken_rules(table[1].numpy(), new[1]) == []
    assert len(set(new[1, :, :].reshape(-1).tolist())) == 16
    assert {sum(e < 4 for e in rank) for rank in new[1].tolist()} == {1}


def test_windows_in_front_are_summed():
    table = np.arange(8).reshape(1, 2, 4)
    windows = np.random.default_rng(0).integers(0, 9, (3, 1, 2, 4))
    one, many = (EquipoisePolicy(Settings()).rebalance_experts(table, w)[2] for w in (windows.sum(axis=0), windows))
    assert np.array_equal(one, many)


@pytest.mark.parametrize(
    ("table", "workload", "sentence"),
    [
        ([[[0, 1], [2, 3]]], [[[1, 1]]], "each slot needs a load"),
        ([[[0, 1], [2, -1]]], [[[1, 1], [1, 1]]], "slot 3 holds -1"),
        ([[[0, 1], [0, 3]]], [[[1, 1], [1, 1]]], "no slot for expert 2"),
        ([[0, 1]], [[1, 1]], r"\(layers, ranks, slots\)"),
    ],
)
def test_a_table_that_breaks_a_rule_is_refused(table, workload, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        EquipoisePolicy(Settings()).rebalance_experts(table, workload)


def test_the_policy_is_made_without_arguments_from_the_environment(monkeypatch):
    monkeypatch.setenv("EQUIPOISE_VLLM_ASCEND_STRATEGY", "plain-greedy")
    assert EquipoisePolicy().settings.strategy == "plain-greedy"
    monkeypatch.setenv("EQUIPOISE_VLLM_ASCEND_STRATEGY", "nearest")
    with pytest.raises(UnknownNameError):
        EquipoisePolicy()


class Builtin:
    def rebalance_experts(self, current_expert_table, expert_workload):
        return None


class Renamed:
    def rebalance_experts(self, table, load):
        return None


def test_the_patch_takes_the_place_of_one_policy_and_only_when_asked(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "vllm.equipoise")
    factory = add_module(monkeypatch, vllm_ascend.FACTORY, DefaultEplb=Builtin)
    monkeypatch.delenv("EQUIPOISE_VLLM_ASCEND", raising=False)
    vllm_ascend.register()
    assert factory.DefaultEplb is Builtin
    monkeypatch.setenv("EQUIPOISE_VLLM_ASCEND", "1")
    vllm_ascend.register()
    vllm_ascend.register()
    assert factory.DefaultEplb is EquipoisePolicy
    assert caplog.text.count("replaced DefaultEplb") == 1


@pytest.mark.parametrize("members", [{"DefaultEplb": Renamed}, {"DefaultEplb": None}, {}])
def test_an_unknown_vllm_ascend_is_left_alone_with_one_line(monkeypatch, caplog, members):
    factory = add_module(monkeypatch, vllm_ascend.FACTORY, **members)
    monkeypatch.setenv("EQUIPOISE_VLLM_ASCEND", "1")
    vllm_ascend.register()
    assert getattr(factory, "DefaultEplb", None) is members.get("DefaultEplb")
    assert caplog.text.count("equipoise does not know this vLLM-Ascend") == 1
