"""Advice in sentences, which may take planning: nouns say what they know, and these find out more."""

from __future__ import annotations

from equipoise.arguments import as_instance
from equipoise.capacity import Answer, Capacity, slots_for
from equipoise.problem import PlacementProblem

__all__ = ["advise_slots", "describe_answer"]


def advise_slots(problem: PlacementProblem, balancedness: float = 0.99) -> str:
    """Return a sentence on how many slots a mean balancedness takes, in place of those that ``problem`` has.

    They are looked for by planning anew with more and more slots, which takes as long as a few plans.

    Raises
    ------
    InvalidInputError
        As ``equipoise.slots_for`` does.

    Examples
    --------
    >>> from equipoise import Cluster
    >>> advise_slots(PlacementProblem([[6, 2, 2, 2]], Cluster(num_ranks=2, slots_per_rank=2)))
    '0.99 takes 6 slots, 2 of them redundant; 4 proved too few.'
    """
    capacity = slots_for(problem, balancedness)
    return describe_answer(capacity, capacity.mean)


def describe_answer(capacity: Capacity, answer: Answer) -> str:
    """Say how many slots the target takes, and what is not known about it; ``answer`` is one of ``capacity``."""
    as_instance(capacity, Capacity, "capacity", "what slots_for returns")
    as_instance(answer, Answer, "answer", "capacity.mean or capacity.worst")
    target = f"{capacity.target:g}"
    ruled_out = f"{_numbers(answer.impossible)} proved too few" if answer.impossible else ""
    if answer.never:
        return f"{target} cannot be reached with any number of slots: expert groups on nodes limit it."
    if answer.found is None:
        most = capacity.points[-1].num_slots
        open_ = f"{_numbers(answer.undecided)} undecided" if answer.undecided else ""
        return f"{target} was not found with up to {most:,} slots: {'; '.join(filter(None, (ruled_out, open_)))}."
    point = next(point for point in capacity.points if point.num_slots == answer.found)
    rest = f"; {ruled_out}" if ruled_out else ""
    if answer.undecided:
        rest += f"; {_numbers(answer.undecided)} undecided: neither found nor proved impossible"
    return f"{target} takes {answer.found:,} slots, {point.num_redundant_experts:,} of them redundant{rest}."


def _numbers(slots: tuple[int, ...]) -> str:
    """Spell ascending numbers of slots, all of them where they are few.

    >>> _numbers((288,)), _numbers((288, 320)), _numbers(tuple(range(256, 2000, 32)))
    ('288', '288 and 320', '55 sizes from 256 to 1,984')
    """
    if len(slots) > 4:
        return f"{len(slots)} sizes from {slots[0]:,} to {slots[-1]:,}"
    *others, last = (f"{number:,}" for number in slots)
    return f"{', '.join(others)} and {last}" if others else last
