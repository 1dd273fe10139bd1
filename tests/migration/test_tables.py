"""What ranks tell each other over sockets: all are answered, and strangers neither learn nor disturb anything."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from equipoise.migration import tables
from equipoise.migration.tables import LARGEST, LONGEST_TOKEN, Server, Table, ask

TOKEN = "only the group knows"
LONG = 60.0  # seconds: what nothing here takes, and nothing waits for


@pytest.fixture
def server(capfd: pytest.CaptureFixture[str]) -> Iterator[Server]:
    """Return a server that has printed nothing when the test is over."""
    made = Server(Table(), "127.0.0.1")
    made.token = TOKEN
    yield made
    made.close()
    assert capfd.readouterr() == ("", "")


def ask_at(server: Server, request: dict[str, object], seconds: float = LONG, token: str = TOKEN) -> object:
    return ask(("127.0.0.1", server.port), token, request, seconds)


def connect(server: Server, first: bytes = b"") -> socket.socket:
    link = socket.create_connection(("127.0.0.1", server.port), timeout=LONG)
    with suppress(ConnectionError):
        link.sendall(first)
    return link


def is_hung_up(link: socket.socket) -> bool:
    """Wait until the other end says something or hangs up, and return whether it hung up without a word."""
    try:
        return link.recv(1) == b""
    except ConnectionError:
        return True


def at_once(number: int, work: Callable[[int], object]) -> list[object]:
    """Return what ``work`` returns for each number, called in as many threads at the same moment."""
    answers: list[object] = [None] * number
    start = threading.Barrier(number)

    def call(i: int) -> None:
        start.wait(LONG)
        answers[i] = work(i)

    threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    return answers


def test_128_ranks_that_ask_at_the_same_moment_are_all_answered_while_50_strangers_dribble(server: Server) -> None:
    server.table.put("report", {"progress": 7})
    links, stop = [connect(server) for _ in range(50)], threading.Event()

    def dribble() -> None:
        while not stop.wait(0.05):
            for link in links:
                with suppress(OSError):
                    link.send(b"x")

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        for request in ({"wait": "report", "seconds": LONG}, {"freeze": "report"}):
            assert at_once(128, lambda i, request=request: ask_at(server, request)) == [{"progress": 7}] * 128
        decided = at_once(128, lambda i: ask_at(server, {"first": "decision", "value": i}))
        assert len(set(decided)) == 1
    finally:
        stop.set()
        thread.join()
        for link in links:
            link.close()


def test_128_ranks_that_wait_take_no_thread_and_are_told_when_it_comes(server: Server) -> None:
    links = [connect(server, f'{TOKEN}\n{{"wait": "late", "seconds": {LONG}}}\n'.encode()) for _ in range(128)]
    before = threading.active_count()
    assert ask_at(server, {"wait": "late", "seconds": 0.0}) is None  # so all those before have been taken
    assert threading.active_count() == before
    server.table.put("late", [1, 2])
    for link in links:
        with link, link.makefile("rb") as stream:
            assert json.loads(stream.readline()) == {"value": [1, 2]}


def test_a_wait_that_is_in_vain_ends(server: Server) -> None:
    for seconds in (0.01, 0.0, -1.0):
        assert ask_at(server, {"wait": "never", "seconds": seconds}) is None
    assert not server._waiting


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 100_000])
def test_bytes_arrive_as_they_were(server: Server, data: bytes) -> None:
    server.table.put("weights", data)
    assert ask_at(server, {"wait": "weights", "seconds": LONG}) == data


def test_what_is_frozen_does_not_advance_and_what_was_first_stays(server: Server) -> None:
    assert server.table.advance("at", 1)
    assert ask_at(server, {"freeze": "at"}) == 1
    assert not server.table.advance("at", 2)
    assert ask_at(server, {"first": "decision", "value": 3}) == 3
    assert ask_at(server, {"first": "decision", "value": 4}) == 3
    assert server.table.wait("decision", 0.0) == 3


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], f"{TOKEN}r", "é", LONGEST_TOKEN * "x"])
def test_a_wrong_token_gets_no_answer_and_changes_nothing(server: Server, token: str) -> None:
    assert ask_at(server, {"first": "key", "value": 1}, token=token) is None
    assert server.table.get("key") is None


def test_without_a_token_of_its_own_a_server_answers_nobody(server: Server) -> None:
    server.token = ""
    assert ask_at(server, {"freeze": "key"}, token="") is None


@pytest.mark.parametrize(
    "said",
    [
        LONGEST_TOKEN * b"x",
        1_000_000 * b"x",
        b"\n",
        b"\xff\xfe\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"token": "' + TOKEN.encode() + b'", "freeze": "key"}\n',
    ],
)
def test_a_stranger_is_hung_up_on_as_soon_as_it_has_said_what_no_rank_says(server: Server, said: bytes) -> None:
    with connect(server, said) as link:
        assert is_hung_up(link)


@pytest.mark.parametrize(
    "request_line",
    [b"", b"{}", b"[]", b"null", b"{", b"\xff", 100_000 * b"[", b'{"wait": ["key"], "seconds": 1}', b'{"first": "key"}',
     b'{"wait": "key", "seconds": "x"}', b'{"wait": "key", "seconds": NaN}', LARGEST * b" "],
)  # fmt: skip
def test_a_request_that_is_none_gets_no_answer(server: Server, request_line: bytes) -> None:
    with connect(server, TOKEN.encode() + b"\n" + request_line + b"\n") as link:
        assert is_hung_up(link) or request_line.endswith(b"NaN}")
    assert ask_at(server, {"first": "well", "value": True})


def test_whoever_says_nothing_is_hung_up_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "INTRODUCTION", 0.01)
    monkeypatch.setattr(tables, "PATIENCE", 0.01)
    for said in (b"", TOKEN.encode(), TOKEN.encode() + b"\n", TOKEN.encode() + b'\n{"freeze": '):
        with connect(server, said) as link:
            assert is_hung_up(link)


def test_strangers_take_no_threads_and_the_oldest_make_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "STRANGERS", 10)
    before = threading.active_count()
    links = [connect(server) for _ in range(200)]
    assert all(is_hung_up(link) for link in links[:190])
    assert ask_at(server, {"first": "well", "value": True})
    assert threading.active_count() == before
    for link in links:
        link.close()


def test_whoever_dies_in_the_middle_disturbs_nobody(server: Server) -> None:
    server.table.put("weights", bytes(50_000_000))
    for said in (TOKEN[:3], f"{TOKEN}\n{{", f'{TOKEN}\n{{"wait": "weights", "seconds": 9}}\n'):
        link = connect(server, said.encode())
        if said.endswith("\n"):
            assert link.recv(10)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # as if killed
        link.close()
    assert ask_at(server, {"first": "well", "value": True})


def test_a_closed_server_answers_nobody_and_hangs_up_on_all(server: Server) -> None:
    with (
        connect(server, f'{TOKEN}\n{{"wait": "late", "seconds": {LONG}}}\n'.encode()) as link,
        connect(server) as other,
    ):
        server.close()
        assert is_hung_up(link)
        assert is_hung_up(other)
    assert ask_at(server, {"freeze": "key"}, seconds=0.1) is None
    server.table.put("late", 1)
    server.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"\n", b"null\n", b"[]\n", b"{}\n", b"{", 100_000 * b"[" + b"\n", (2 * LARGEST + 10) * b"x",
     b'{"bytes": 9}\nshort', b'{"bytes": "x"}\n'],
)  # fmt: skip
def test_an_answer_that_is_none_counts_as_no_answer(said: bytes) -> None:
    def answer() -> None:
        link, _ = listener.accept()
        with link, suppress(ConnectionError):
            link.recv(1000)
            link.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        assert ask(listener.getsockname(), TOKEN, {"freeze": "key"}, LONG) is None
        thread.join()


def test_an_answer_that_dribbles_is_late_and_not_waited_for() -> None:
    stop = threading.Event()

    def answer() -> None:
        link, _ = listener.accept()
        with link, suppress(ConnectionError):
            while not stop.wait(0.02):
                link.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        assert ask(listener.getsockname(), TOKEN, {"freeze": "key"}, 0.1) is None
        stop.set()
        thread.join()
