"""SGLang's own EPLB machinery, in four processes without a GPU, with its planner and with ours.

What runs, and what stands in for a server, is said in ``sglang_machinery.py``. SGLang's own canary is on: every slot
carries its expert's id along, and a rank whose ids are not those of the new map fails.
"""

from __future__ import annotations

from collections import Counter

import pytest

from engines.real.processes import answers_of

pytest.importorskip("sglang")
pytestmark = pytest.mark.engines

PLANNERS = {"built-in": {"EQUIPOISE_SGLANG": "0"}, "ours": {"EQUIPOISE_SGLANG_THREADS": "1"}}
SCENARIOS = ("at once", "two nodes", "in chunks")
RANKS, LAYERS, DENSE = 4, 6, 1


@pytest.fixture(scope="module", params=PLANNERS)
def engine(request):
    """Return the name of the planner, and by scenario what each rank saw."""
    variables = {"SGLANG_PLUGINS": "equipoise", "SGLANG_EXPERT_LOCATION_UPDATER_CANARY": "1"}
    return request.param, answers_of("sglang_machinery.py", **variables, **PLANNERS[request.param])


def walks_of(engine, scenario):
    """Return by rank the two rebalances that it saw."""
    name, seen = engine
    assert "failed" not in seen[scenario], seen[scenario]["failed"]
    ranks = seen[scenario]["answer"]
    assert [rank["replaced"] for rank in ranks] == [name == "ours"] * RANKS
    return [rank["walks"] for rank in ranks]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_after_two_rebalances_every_slot_holds_the_expert_that_the_map_says(engine, scenario):
    for walks in walks_of(engine, scenario):
        assert len(walks) == 2
        for seen in walks:
            assert seen["wrong"] == 0
            assert seen["maps agree"]
            assert seen["table"] != seen["before"]
            assert all(set(row) == set(range(16)) for row in seen["table"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_ranks_come_to_the_same_map(engine, scenario):
    first, *others = ([seen["table"] for seen in walks] for walks in walks_of(engine, scenario))
    assert others == [first] * 3


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_planner_is_given_the_tokens_that_were_routed(engine, scenario):
    assert all(seen["as routed"] for walks in walks_of(engine, scenario) for seen in walks)


def test_layers_moved_in_chunks_end_where_they_would_at_once(engine):
    tables = [[[seen["table"] for seen in w] for w in walks_of(engine, s)] for s in ("at once", "in chunks")]
    assert tables[0] == tables[1]


def test_on_two_nodes_a_group_of_experts_stays_on_one_node(engine):
    for seen in walks_of(engine, "two nodes")[0]:
        for row in seen["table"][DENSE:]:
            first, second = ({expert // 4 for expert in row[i : i + 20]} for i in (0, 20))
            assert not first & second


def test_ours_moves_no_expert_within_its_rank(engine):
    name, _ = engine
    if name != "ours":
        pytest.skip("a promise of ours")
    for seen in walks_of(engine, "at once")[0]:
        for old, new in zip(seen["before"], seen["table"], strict=True):
            for start in range(0, 40, 10):
                was, now = old[start : start + 10], new[start : start + 10]
                stayed = sum((Counter(was) & Counter(now)).values())
                assert sum(a == b for a, b in zip(was, now, strict=True)) == stayed
