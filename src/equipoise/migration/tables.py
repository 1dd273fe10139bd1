"""What each rank tells the others, served over sockets of its own: it answers when the process group no longer does."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from typing import Any

__all__ = ["Server", "Table", "ask"]

LARGEST = 1 << 20  # bytes of one request; weights travel in answers, which may be larger


class Table:
    """What this rank tells the others: reports, decisions and, after a failure, weights."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._changed = threading.Condition()

    def put(self, key: str, value: Any) -> None:
        with self._changed:
            self._values[key] = value
            self._changed.notify_all()

    def wait(self, key: str, seconds: float) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: key in self._values, max(seconds, 0.0))
            return self._values.get(key)

    def advance(self, key: str, value: Any) -> bool:
        """Put ``value`` unless somebody has frozen ``key``."""
        with self._changed:
            if f"{key}/frozen" in self._values:
                return False
            self._values[key] = value
            return True

    def freeze(self, key: str) -> Any:
        """Return what is under ``key``, and keep it from advancing."""
        with self._changed:
            self._values[f"{key}/frozen"] = True
            return self._values.get(key)

    def first(self, key: str, value: Any) -> Any:
        """Return what was put under ``key`` first: ``value``, if nothing was."""
        with self._changed:
            return self._values.setdefault(key, value)


class Server(socketserver.ThreadingTCPServer):
    """Answers requests for one table, each in a thread of its own, on a port that the system picks.

    A request is a line of JSON with the token of the group, and one of ``wait``, ``freeze`` and ``first``, as ``Table``
    has them. The answer is a line of JSON, ``{"value": ...}``, or ``{"bytes": length}`` with that many bytes after it.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    token = ""

    def __init__(self, table: Table, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.table = table
        self._thread = threading.Thread(target=self.serve_forever, args=(0.2,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(socketserver.StreamRequestHandler):
    server: Server
    timeout = 60.0

    def handle(self) -> None:
        """Answer one request; nothing to whoever does not know the token, or is gone before the answer."""
        try:
            request = json.loads(self.rfile.readline(LARGEST))
            if not self.server.token or request.get("token") != self.server.token:
                return
            if "first" in request:
                value = self.server.table.first(request["first"], request["value"])
            elif "freeze" in request:
                value = self.server.table.freeze(request["freeze"])
            else:
                value = self.server.table.wait(request["wait"], float(request["seconds"]))
            if isinstance(value, bytes):
                self.wfile.write(json.dumps({"bytes": len(value)}).encode() + b"\n" + value)
            else:
                self.wfile.write(json.dumps({"value": value}).encode() + b"\n")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # whoever asked is gone, or is no rank
            return


def ask(address: tuple[str, int], token: str, request: dict[str, Any], seconds: float) -> Any:
    """Return the answer of the table at ``address``, or None if there is none in time."""
    until = time.monotonic() + seconds
    try:
        with socket.create_connection(address, timeout=max(seconds, 0.05)) as link:
            link.sendall(json.dumps({**request, "token": token}).encode() + b"\n")
            with link.makefile("rb") as stream:
                link.settimeout(max(until - time.monotonic(), 0.05) + 0.5)
                head = json.loads(stream.readline() or b"null")
                if head is None:
                    return None
                return stream.read(head["bytes"]) if "bytes" in head else head["value"]
    except (OSError, ValueError):
        return None
