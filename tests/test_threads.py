from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import Future

import pytest

from equipoise import threads
from equipoise.errors import InvalidInputError
from equipoise.threads import blocks, for_each, num_threads


@pytest.mark.parametrize("threads", [1, 2, 4, 100])
def test_every_unit_is_done_once(threads: int) -> None:
    done = [0] * 50

    def work(unit: int) -> None:
        done[unit] += 1

    for_each(work, range(50), threads)
    assert done == [1] * 50


def test_no_units_are_no_work() -> None:
    for_each(lambda unit: pytest.fail("called"), [], 4)


def test_no_more_threads_run_at_once_than_were_asked_for() -> None:
    running, most, counting = 0, 0, threading.Lock()

    def work(unit: int) -> None:
        nonlocal running, most
        with counting:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with counting:
            running -= 1

    for_each(work, range(30), 3)
    assert most <= 3


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_after_an_error_no_more_work_is_handed_out(error: type[BaseException]) -> None:
    begun: list[int] = []

    def work(unit: int) -> None:
        begun.append(unit)
        time.sleep(0.005)
        if unit == 0:
            raise error

    with pytest.raises(error):
        for_each(work, range(200), 2)
    assert len(begun) < 20


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # what forking with threads may do is the point
def test_a_forked_child_gets_threads_of_its_own() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    for_each(lambda unit: None, range(4), 2)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=for_each, args=(time.sleep, [0.001] * 4, 2))
    child.start()
    child.join(20)
    assert child.exitcode == 0


@pytest.fixture
def six_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)


@pytest.mark.usefixtures("six_processors")
def test_by_default_all_processors_that_this_process_may_run_on_are_used() -> None:
    assert num_threads() == 6


@pytest.mark.usefixtures("six_processors")
@pytest.mark.parametrize(("asked", "used"), [(1, 1), (6, 6), (7, 6), (100_000, 6), (2**31, 6), (10**30, 6)])
def test_no_more_threads_are_used_than_there_are_processors(asked: int, used: int) -> None:
    assert num_threads(asked) == used


@pytest.mark.usefixtures("six_processors")
@pytest.mark.parametrize("asked", [2**31, 10**30])
def test_a_number_of_threads_beyond_reason_is_no_work_by_itself(monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    submitted: list[object] = []
    pool = threads._get_pool()
    monkeypatch.setattr(pool, "submit", lambda work: submitted.append(work) or Future())
    monkeypatch.setattr(Future, "result", lambda self: None)
    for_each(lambda unit: None, range(3), asked)
    assert len(submitted) == 5
    assert len(blocks(1000, asked)) == 24


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True, float("inf"), -(10**30)])
def test_a_number_of_threads_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInputError, match="threads is"):
        num_threads(wrong)  # type: ignore[arg-type]


def test_only_a_thread_beside_others_sleeps_to_let_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[str] = []
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: naps.append(threading.current_thread().name))

    @threads.part
    def nothing() -> None:
        pass

    def work() -> None:
        with threads.beside_others():
            with pytest.raises(ZeroDivisionError), threads.beside_others():
                raise ZeroDivisionError
            nothing()
        nothing()

    thread = threading.Thread(target=work, name="planner")
    thread.start()
    nothing()
    thread.join()
    assert naps == ["planner"]
