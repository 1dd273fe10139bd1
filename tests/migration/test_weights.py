"""The weights of one expert as bytes, for when tensors can no longer be sent."""

from __future__ import annotations

import pytest
import torch

from equipoise.migration.weights import from_bytes, to_bytes

KINDS = [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.int64, torch.bool, torch.complex64]
SHAPES = [(2, 3), (0, 3), (3, 0), (0,), (), (1,), (2, 0, 4)]


def rows_of(kind: torch.dtype, shapes: list[tuple[int, ...]], value: int) -> list[torch.Tensor]:
    return [torch.full(shape, value % 2 if kind is torch.bool else value).to(kind) for shape in shapes]


def same(sent: list[torch.Tensor], received: list[torch.Tensor]) -> bool:
    as_one = [[row.to(torch.complex64) for row in rows] for rows in (sent, received)]  # few types compare all others
    return all(map(torch.equal, *as_one))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shapes", [SHAPES, [(0, 3)], [(0, 3), (2,)], [(2,), (0, 3)], [()]], ids=str)
def test_rows_of_every_shape_and_type_come_back_as_they_went_those_without_elements_too(kind, shapes) -> None:
    sent, received = rows_of(kind, shapes, 3), rows_of(kind, shapes, 0)
    assert from_bytes(to_bytes(sent), received)
    assert all(
        torch.equal(one.to(torch.complex64), other.to(torch.complex64))
        for one, other in zip(sent, received, strict=True)
    )


def test_rows_of_several_types_share_the_bytes() -> None:
    sent = [torch.ones(3), torch.empty(0, 2, dtype=torch.int8), torch.arange(5), torch.tensor(True)]
    received = [torch.zeros_like(row) for row in sent]
    assert from_bytes(to_bytes(sent), received)
    assert same(sent, received)


def test_rows_that_lie_apart_in_memory_and_learn_are_sent_in_order() -> None:
    sent = [torch.arange(6.0).view(2, 3).T.requires_grad_()]
    received = [torch.zeros(3, 2)]
    assert from_bytes(to_bytes(sent), received)
    assert torch.equal(received[0], sent[0].detach())


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_bytes_of_another_length_are_refused_and_touch_nothing(change) -> None:
    rows = [torch.ones(2), torch.ones(0, 3)]
    assert not from_bytes(change(to_bytes(rows)), rows)
    assert torch.equal(rows[0], torch.ones(2))
    assert not from_bytes(b"x", [torch.ones(0, 3)])
