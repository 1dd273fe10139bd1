from __future__ import annotations

import numpy as np
import pytest

from equipoise.backends import choose_backend
from equipoise.errors import InvalidInputError
from equipoise.restarts import Settings, pack_items

WEIGHT = np.array([[5, 4, 3, 3, 2, 1]], dtype=np.int64) << 30


def pack(weight=WEIGHT, packs=2, seed=0, **settings):
    return pack_items(weight, packs, Settings(**{"restarts": 16, **settings}), seed, choose_backend("numba"), 1)


def test_every_pack_is_exactly_full_and_every_place_is_taken_once() -> None:
    pack_index, rank_in_pack = pack()
    assert sorted(zip(pack_index[0].tolist(), rank_in_pack[0].tolist(), strict=True)) == [
        (p, place) for p in range(2) for place in range(3)
    ]


def test_one_item_a_pack_goes_to_the_pack_of_its_number() -> None:
    pack_index, rank_in_pack = pack(packs=6)
    assert pack_index.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert not rank_in_pack.any()


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "0", True, None])
def test_a_seed_that_64_bits_cannot_hold_is_refused(seed) -> None:
    with pytest.raises(InvalidInputError, match="seed is"):
        pack(seed=seed)


def test_the_largest_seed_is_a_seed() -> None:
    plain, numpy_like = pack(seed=2**64 - 1), pack(seed=np.uint64(2**64 - 1))
    for mine, theirs in zip(plain, numpy_like, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("restarts", 0),
        ("restarts", 2**31 + 1),
        ("refined", 0),
        ("swaps", -1),
        ("extremes", 0),
        ("restarts", 1.5),
        ("restarts", True),
        ("noise", -0.1),
        ("noise", float("nan")),
        ("noise", float("inf")),
        ("noise", "much"),
    ],
)
def test_a_setting_that_breaks_its_rule_is_named(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is"):
        Settings(**{name: value})
