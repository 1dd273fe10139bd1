"""What each rank tells the others, served over sockets of its own: it answers when the process group no longer does."""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

__all__ = ["Server", "Table", "ask"]

BACKLOG = 4096  # connections that wait to be taken: all ranks of the largest group may ask at once
LONGEST_TOKEN = 128  # bytes, the end of the line among them: the most that is read of a stranger
STRANGERS = 256  # connections without a token at once; one more, and the oldest of them goes
INTRODUCTION = 10.0  # seconds until the token must be there
LARGEST = 1 << 20  # bytes of one request; an answer without weights is twice as long at most
PART = 1 << 20  # bytes that are sent or received at once
PATIENCE = 60.0  # seconds for the rest of a request, and for each part of an answer


class Table:
    """What this rank tells the others: reports, decisions and, after a failure, weights."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._listener: Callable[[str], object] = lambda key: None

    def put(self, key: str, value: Any) -> None:
        with self._changed:
            self._set(key, value)

    def get(self, key: str) -> Any:
        """Return what is under ``key``, or None."""
        with self._changed:
            return self._values.get(key)

    def wait(self, key: str, seconds: float) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: key in self._values, max(seconds, 0.0))
            return self._values.get(key)

    def advance(self, key: str, value: Any) -> bool:
        """Put ``value`` unless somebody has frozen ``key``."""
        with self._changed:
            if f"{key}/frozen" in self._values:
                return False
            self._set(key, value)
            return True

    def freeze(self, key: str) -> Any:
        """Return what is under ``key``, and keep it from advancing."""
        with self._changed:
            self._values[f"{key}/frozen"] = True
            return self._values.get(key)

    def first(self, key: str, value: Any) -> Any:
        """Return what was put under ``key`` first: ``value``, if nothing was."""
        with self._changed:
            if key not in self._values:
                self._set(key, value)
            return self._values[key]

    def listen(self, listener: Callable[[str], object]) -> None:
        """Call ``listener`` with each key that is put from now on, in the thread that puts it."""
        self._listener = listener

    def _set(self, key: str, value: Any) -> None:
        self._values[key] = value
        self._changed.notify_all()
        self._listener(key)


class Server:
    """Answers requests for one table, all of them in one thread, on a port that the system picks.

    A request is the token of the group on a line, and a line of JSON with one of ``wait``, ``freeze`` and ``first``, as
    ``Table`` has them. The answer is a line of JSON, ``{"value": ...}``, or ``{"bytes": length}`` with that many bytes
    after it. Whoever does not know the token gets no answer.

    Parameters
    ----------
    table : Table
    host : str
        Where to listen; "" is all addresses.

    Attributes
    ----------
    token : str
        Until there is one, nobody is answered.
    port : int

    Notes
    -----
    Strangers cost no thread and little else: of a connection without a token no more is read than the length of a
    token, for a few seconds, and there are only so many of them. Whoever has the token is a rank, and may wait.
    """

    def __init__(self, table: Table, host: str) -> None:
        self.table, self.token = table, ""
        self.socket = socket.create_server((host, 0), backlog=BACKLOG)
        self.socket.setblocking(False)
        self.port = int(self.socket.getsockname()[1])
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(lambda *_: None)  # which would print
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._strangers: dict[socket.socket, asyncio.Task[None]] = {}  # the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        table.listen(self._tell)
        self._thread = threading.Thread(target=self._run, name="equipoise-table", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        with suppress(RuntimeError):  # it has stopped
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._listen()
        self._loop.run_forever()
        self._loop.run_until_complete(self._hang_up())
        self._loop.close()
        self.socket.close()

    async def _hang_up(self) -> None:
        self._loop.remove_reader(self.socket)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self) -> None:
        self._loop.add_reader(self.socket, self._accept)

    def _accept(self) -> None:
        """Take one connection: what those before have sent is read before the next one is taken."""
        try:
            link, _ = self.socket.accept()
        except (BlockingIOError, ConnectionError):  # it is gone again
            return
        except OSError:  # this process may open no more files; the oldest stranger gives one back, or it takes a moment
            if not self._drop_oldest():
                self._loop.remove_reader(self.socket)
                self._loop.call_later(0.01, self._listen)
            return
        link.setblocking(False)
        task = self._loop.create_task(self._serve(link))
        task.add_done_callback(partial(self._forget, link))  # also if it is cancelled before it begins
        self._tasks.add(task)
        self._strangers[link] = task
        if len(self._strangers) > STRANGERS:
            self._drop_oldest()

    def _drop_oldest(self) -> bool:
        """Hang up on the stranger that has been here longest, if there is one."""
        if not self._strangers:
            return False
        return self._strangers.pop(next(iter(self._strangers))).cancel()

    async def _serve(self, link: socket.socket) -> None:
        """Answer one request; nothing to whoever does not know the token, or is gone before the answer."""
        try:
            with self._hanging_up_after(INTRODUCTION):
                token, rest = await self._read_line(link, LONGEST_TOKEN)
            if not self.token or not hmac.compare_digest(token, self.token.encode()):
                return
            self._strangers.pop(link, None)
            with self._hanging_up_after(PATIENCE):
                line, _ = await self._read_line(link, LARGEST, rest)
            value = await self._find(json.loads(line))
            is_bytes = isinstance(value, bytes)
            head = json.dumps({"bytes": len(value)} if is_bytes else {"value": value}).encode() + b"\n"
            await self._send(link, head)
            if is_bytes:
                await self._send(link, value)
        except Exception:  # whoever asked is gone, or is no rank; there is nobody to tell
            return

    def _forget(self, link: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._strangers.pop(link, None)
        link.close()

    async def _find(self, request: dict[str, Any]) -> Any:
        if "first" in request:
            return self.table.first(request["first"], request["value"])
        if "freeze" in request:
            return self.table.freeze(request["freeze"])
        key, come = request["wait"], self._loop.create_future()
        self._waiting.setdefault(key, []).append(come)  # before the look into the table: nothing can come between
        try:
            if self.table.get(key) is None:
                await asyncio.wait({come}, timeout=max(0.0, float(request["seconds"])))
        finally:
            self._waiting[key].remove(come)
            if not self._waiting[key]:
                del self._waiting[key]
        return self.table.get(key)

    def _tell(self, key: str) -> None:
        with suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(self._wake, key)

    def _wake(self, key: str) -> None:
        for come in self._waiting.get(key, ()):
            if not come.done():
                come.set_result(None)

    async def _read_line(self, link: socket.socket, most: int, begun: bytes = b"") -> tuple[bytes, bytes]:
        """Return the next line without its end, and what came after it; ``begun`` is what came before."""
        data = bytearray(begun)
        while b"\n" not in data:
            if len(data) >= most:
                raise ValueError("the line is too long")
            part = await self._loop.sock_recv(link, min(most - len(data), PART))
            if not part:
                raise ConnectionError("the line has no end")
            data += part
        line, _, rest = bytes(data).partition(b"\n")
        return line, rest

    async def _send(self, link: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        for at in range(0, len(data), PART):
            with self._hanging_up_after(PATIENCE):
                await self._loop.sock_sendall(link, view[at : at + PART])

    @contextmanager
    def _hanging_up_after(self, seconds: float) -> Iterator[None]:
        """Cancel the task that this is in, which hangs up, if it takes longer."""
        task = asyncio.current_task()
        assert task is not None
        alarm = self._loop.call_later(seconds, task.cancel)
        try:
            yield
        finally:
            alarm.cancel()


def ask(address: tuple[str, int], token: str, request: dict[str, Any], seconds: float) -> Any:
    """Return the answer of the table at ``address``, or None if there is none in time.

    Bytes may take as long again, once they begin to come.
    """
    until = time.monotonic() + seconds
    try:
        with socket.create_connection(address, timeout=max(seconds, 0.05)) as link:
            link.sendall(f"{token}\n{json.dumps(request)}\n".encode())
            data, until = bytearray(), max(until, time.monotonic() + 0.05) + 0.5
            while b"\n" not in data and len(data) < 2 * LARGEST:
                _receive(link, data, until)
            line, _, rest = data.partition(b"\n")
            head = json.loads(line)
            if "bytes" not in head:
                return head["value"]
            data, until = rest, time.monotonic() + max(seconds, 0.5)
            while len(data) < head["bytes"]:
                _receive(link, data, until)
            return bytes(data)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # nobody, or something else, is there
        return None


def _receive(link: socket.socket, data: bytearray, until: float) -> None:
    """Add what comes next to ``data``; raise OSError if that is nothing, or nothing comes ``until`` then."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("the answer is late")
    link.settimeout(left)
    part = link.recv(PART)
    if not part:
        raise ConnectionError("the answer has no end")
    data += part
