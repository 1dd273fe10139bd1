"""Windows from what engines hand over: steps that are grouped, and calls that are kept only where all ranks agree."""

from __future__ import annotations

import logging
import types

import numpy as np
import pytest
import torch
import torch.distributed as dist

from equipoise.engines import vllm
from equipoise.engines.windows import ENOUGH, History, group_steps

LOG = logging.getLogger("equipoise.test")


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_steps_become_as_many_windows_as_have_tokens_enough(kind):
    steps = np.random.default_rng(0).poisson(8, (100, 2, 16))
    windows = np.asarray(group_steps(kind(steps), 32))
    assert windows.shape == (25, 2, 16)
    assert windows.tolist() == steps.reshape(25, 4, 2, 16).sum(axis=1).tolist()
    assert windows.mean() >= ENOUGH * 0.95


def test_there_are_no_more_windows_than_asked_for_and_the_oldest_steps_are_left_out():
    steps = np.full((103, 1, 2), 1000)
    assert group_steps(steps, 32).shape == (25, 1, 2)
    assert group_steps(steps, 200).shape == (103, 1, 2)


@pytest.mark.parametrize("steps", [np.full((100, 1, 2), 0.5), np.zeros((9, 1, 2)), np.full((3, 1, 2), 1000)])
def test_too_few_tokens_or_steps_are_one_window(steps):
    assert group_steps(steps, 32).tolist() == steps.sum(axis=0)[None].tolist()


def test_one_window_at_most_is_the_sum():
    steps = np.full((10, 1, 2), 1000)
    assert group_steps(steps, 1).tolist() == [[[10_000, 10_000]]]


def loads(number, experts=4):
    return np.random.default_rng(experts).integers(1, 99, (number, 1, experts)).astype(float)


def test_a_history_keeps_the_last_loads_and_begins_anew_with_other_slots_or_ranks():
    history = History(3, lambda digest: True, LOG)
    seen = loads(5)
    for load in seen:
        windows = history.windows(load, 8, 2)
    assert windows.tolist() == seen[2:].tolist()
    assert history.windows(loads(1, experts=6)[0], 8, 2).shape == (1, 1, 6)
    assert history.windows(seen[0], 8, 2).shape == (3, 1, 4), "another model's load is no change of this one's"
    assert history.windows(seen[1], 8, 4).tolist() == seen[1:2].tolist()
    assert history.windows(seen[2], 12, 4).tolist() == seen[2:3].tolist()


def test_ranks_with_other_histories_all_plan_from_the_last_window_and_begin_anew(caplog):
    digests = []
    one = History(4, lambda digest: digests.append(digest) or len(set(digests[-2:])) == 1, LOG)
    other = History(4, lambda digest: len({digest, digests[-1]}) == 1, LOG)
    seen = loads(4)
    one.windows(seen[0], 8, 2)  # the other joined later
    digests.clear()
    for history in (other, one):
        history._agree = lambda digest: False
        assert history.windows(seen[1], 8, 2).tolist() == seen[1].tolist()
    for history in (one, other):
        history._agree = lambda digest: digests.append(digest) or True
        assert history.windows(seen[2], 8, 2).tolist() == seen[1:3].tolist()
    assert digests[0] == digests[1]
    assert [record.getMessage() for record in caplog.records] == [
        "equipoise plans from the last window alone, not from those before it: ranks have seen different ones."
    ] * 2


def test_where_ranks_cannot_agree_the_last_window_is_all_and_one_line_says_so(caplog):
    history = History(4, lambda digest: None, LOG)
    for load in loads(3):
        assert history.windows(load, 8, 2).tolist() == load.tolist()
    assert len(caplog.records) == 1
    assert "cannot agree" in caplog.records[0].getMessage()


def test_a_profiling_run_is_neither_kept_nor_agreed_on():
    history = History(4, lambda digest: pytest.fail("asked"), LOG)
    assert not history.windows(np.zeros((1, 4)), 8, 2).any()


def test_alone_there_is_nobody_to_disagree(monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    assert vllm._agree(b"x" * 32)


@pytest.mark.parametrize(("others", "same"), [(b"x" * 32, True), (b"y" * 32, False)])
def test_ranks_agree_through_the_engines_own_cpu_group(monkeypatch, others, same):
    group = types.SimpleNamespace(world_size=2, cpu_group="cpu")
    state = types.SimpleNamespace(get_ep_group=lambda: group)

    def all_gather(every, mine, group):
        assert group == "cpu"
        every[0].copy_(mine)
        every[1].copy_(torch.frombuffer(bytearray(others), dtype=torch.uint8))

    monkeypatch.setitem(vllm.sys.modules, "vllm.distributed.parallel_state", state)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    assert vllm._agree(b"x" * 32) is same
    monkeypatch.setattr(vllm.threading, "current_thread", lambda: None)
    assert vllm._agree(b"x" * 32) is None
