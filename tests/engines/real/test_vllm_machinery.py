"""vLLM's own EPLB machinery, in four processes without a GPU, with its policy and with ours.

What runs, and what stands in for an accelerator, is said in ``vllm_machinery.py``, which imports the engine once and
plays every scenario; the tests here look at what the ranks saw.
"""

from __future__ import annotations

from collections import Counter

import pytest

from engines.real.processes import answers_of

pytest.importorskip("vllm")
pytestmark = pytest.mark.engines

POLICIES = {"DefaultEplbPolicy": {"EQUIPOISE_VLLM": "0"}, "EquipoisePolicy": {"EQUIPOISE_VLLM_THREADS": "1"}}
REARRANGING = ("synchronous", "two nodes", "asynchronous", "in batches")
RANKS = 4


@pytest.fixture(scope="module", params=POLICIES)
def engine(request):
    """Return the name of the policy that plans, and by scenario what each rank saw."""
    seen = answers_of("vllm_machinery.py", VLLM_PLUGINS="equipoise", **POLICIES[request.param])
    return request.param, seen


def ranks_of(engine, scenario):
    name, seen = engine
    assert "failed" not in seen[scenario], seen[scenario]["failed"]
    ranks = seen[scenario]["answer"]
    assert [rank["policy"] for rank in ranks] == [name] * RANKS
    return ranks


def walks_of(ranks):
    """Return every (rank, rearrangement, model) as what was seen of it."""
    return [seen for rank in ranks for walk in rank["walks"] for seen in walk]


@pytest.mark.parametrize("scenario", REARRANGING)
def test_after_two_rearrangements_every_slot_of_both_models_holds_the_expert_that_the_map_says(engine, scenario):
    walks = walks_of(ranks_of(engine, scenario))
    assert len(walks) == RANKS * 2 * 2
    assert [seen["wrong"] for seen in walks] == [0] * len(walks)
    assert all(seen["table"] != seen["before"] for seen in walks)
    assert all(set(row) == set(range(16)) for seen in walks for row in seen["table"])


@pytest.mark.parametrize("scenario", REARRANGING)
def test_all_ranks_come_to_the_same_map(engine, scenario):
    first, *others = ([[seen["table"] for seen in walk] for walk in r["walks"]] for r in ranks_of(engine, scenario))
    assert others == [first] * 3


@pytest.mark.parametrize("scenario", REARRANGING)
def test_the_policy_is_given_the_tokens_that_were_routed(engine, scenario):
    for seen in walks_of(ranks_of(engine, scenario)):
        assert seen["as routed"]
    # One forward pass before the first rearrangement, a full window before the second.
    assert [walk[0]["windows"] for walk in ranks_of(engine, scenario)[0]["walks"]] == [1, 2]


@pytest.mark.parametrize("scenario", REARRANGING)
def test_a_profiling_run_changes_nothing(engine, scenario):
    assert [rank["profile kept"] for rank in ranks_of(engine, scenario)] == [[True, True]] * RANKS


def test_its_worker_in_the_background_comes_to_the_same_maps_as_the_synchronous_mode(engine):
    one, *others = (
        [[[seen["table"] for seen in walk] for walk in rank["walks"]] for rank in ranks_of(engine, scenario)]
        for scenario in ("synchronous", "asynchronous", "in batches")
    )
    assert others == [one, one]


def test_on_two_nodes_a_group_of_experts_stays_on_one_node(engine):
    for seen in walks_of(ranks_of(engine, "two nodes")):
        for row in seen["table"]:
            first, second = ({expert // 4 for expert in row[i : i + 20]} for i in (0, 20))
            assert not first & second


def test_after_four_ranks_became_two_these_hold_every_expert_and_go_on(engine):
    ranks = ranks_of(engine, "elastic")
    for rank in ranks:
        assert [len(row) for row in rank["shrunk"]] == [20] * 5
        assert all(set(row) == set(range(16)) for row in rank["shrunk"])
        assert rank["shrunk"] == ranks[0]["shrunk"]
    for rank in ranks[:2]:
        assert rank["wrong after shrinking"] == 0
        (seen,) = rank["two"]
        assert seen["wrong"] == 0
        assert seen["as routed"]
        assert seen["table"] == ranks[0]["two"][0]["table"] != rank["shrunk"]


def test_after_two_ranks_became_four_the_new_ones_have_their_weights_from_the_others(engine):
    ranks = ranks_of(engine, "elastic")
    for rank in ranks:
        assert all(row[20:] == [-1] * 20 for row in rank["expanded"])
        assert rank["wrong after growing"] == 0
        assert rank["grown"] == ranks[0]["grown"]
        assert all(-1 not in row and set(row) == set(range(16)) for row in rank["grown"])
        (seen,) = rank["four again"]
        assert seen["wrong"] == 0
        assert seen["table"] == ranks[0]["four again"][0]["table"]


def test_ours_moves_no_expert_within_its_rank_and_has_none_twice_where_that_can_be(engine):
    name, _ = engine
    if name != "EquipoisePolicy":
        pytest.skip("a promise of ours")
    for seen in walks_of(ranks_of(engine, "synchronous")):
        for old, new in zip(seen["before"], seen["table"], strict=True):
            for start in range(0, 40, 10):
                was, now = old[start : start + 10], new[start : start + 10]
                stayed = sum((Counter(was) & Counter(now)).values())
                assert sum(a == b for a, b in zip(was, now, strict=True)) == stayed
