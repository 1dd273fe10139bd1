"""How the ranks of a process group agree: when all are well, and when some are gone.

When all are well, the group's own collectives do. When a rank dies they no longer can, and survivors may even
differ about how far everybody came. So each rank also answers on a socket of its own, with a small table that others
read from and write to; nothing depends on a process that is gone.
"""

from __future__ import annotations

import json
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import DisagreementError, InvalidInputError, RanksLostError

__all__ = ["Peers"]

_AT, _LOST = "at", "lost"  # keys
_LARGEST = 1 << 20  # bytes of one request; weights travel in answers, which may be larger


class _Table:
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


class Peers:
    """The ranks of a process group, with a way to agree that outlives any of them.

    Parameters
    ----------
    group : process group or None, default None
        gloo, NCCL or another; None is the default group. Building one is collective: every rank must.
    host : str or None, default None
        The address under which other ranks reach this one. None is 127.0.0.1 if all ranks run on one machine, else
        the address of this machine's name.

    Attributes
    ----------
    rank, size : int
        This rank and how many there are, as the group counts.
    group
        Where weights travel.
    progress : int
        Rounds made over this group so far, of all migrations.

    Notes
    -----
    Agreement among survivors needs no leader. Each rank keeps a table; a decision is proposed to all tables in the
    order of ranks, and each answers with the first proposal it saw, which the proposer carries on to the next. Tables
    that do not answer are passed over. All survivors ask the table of the lowest survivor, and carry on
    what it says: so they end with the same decision, whoever dies meanwhile.

    Sockets listen on 127.0.0.1 if all ranks run on one machine, else on all its addresses; requests must bear a token
    that only the group has seen. Not promised: agreement between parts of a network that cannot reach each other.
    """

    def __init__(self, group: Any = None, *, host: str | None = None) -> None:
        import torch
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            raise InvalidInputError("there is no process group; call torch.distributed.init_process_group first.")
        self._dist, self._torch = dist, torch
        self.group = dist.group.WORLD if group is None else group
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        ranks = dist.get_process_group_ranks(self.group)
        is_gloo = dist.get_backend(self.group) == "gloo"
        self._control = self.group if is_gloo else dist.new_group(ranks, backend="gloo")
        self._ranks = ranks
        names = self._gather(socket.gethostname() if host is None else host)
        one_machine = host is None and len(set(names)) == 1
        self._table, self._number, self.progress = _Table(), 0, 0
        self._table.put(_AT, {"progress": 0, "loose": []})
        self._server = _Server(("127.0.0.1" if one_machine else "", 0), _Handler)
        tokens = self._gather(secrets.token_hex(16))
        self._server.table, self._server.token, self._token = self._table, tokens[0], tokens[0]
        ports = self._gather(self._server.server_address[1])
        self._addresses = [
            ("127.0.0.1" if one_machine else name, port) for name, port in zip(names, ports, strict=True)
        ]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True)
        self._thread.start()

    def _gather(self, value: Any) -> list[Any]:
        everyone: list[Any] = [None] * self.size
        self._dist.all_gather_object(everyone, value, group=self._control)
        return everyone

    def close(self) -> None:
        """Stop answering. Not collective; a rank that still needs an answer then takes this one for lost."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_number(self) -> int:
        """Return a number that grows with each call, so that questions can have names of their own."""
        self._number += 1
        return self._number

    def global_rank(self, rank: int) -> int:
        """Return the rank of the default group that ``rank`` of this group is."""
        return int(self._ranks[rank])

    def barrier(self, seconds: float) -> None:
        """Wait for all ranks, at most ``seconds``; raise RuntimeError if one does not come."""
        flag = self._torch.zeros(1, dtype=self._torch.int32)
        self._wait(self._dist.all_reduce(flag, group=self._control, async_op=True), seconds)

    def add_up(self, numbers: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
        """Return the sum of every rank's numbers: the same bits on every rank."""
        total = self._torch.from_numpy(np.array(numbers, dtype=np.float64))
        self._wait(self._dist.all_reduce(total, group=self._control, async_op=True), seconds)
        # A sum may be made in another order on each rank; what the first one has counts.
        source = self.global_rank(0)
        self._wait(self._dist.broadcast(total, source, group=self._control, async_op=True), seconds)
        added: NDArray[np.float64] = total.numpy()
        return added

    def all_of(self, flag: bool, seconds: float) -> bool:
        """Return whether ``flag`` holds on every rank."""
        number = self._torch.tensor([int(flag)], dtype=self._torch.int32)
        work = self._dist.all_reduce(number, op=self._dist.ReduceOp.MIN, group=self._control, async_op=True)
        self._wait(work, seconds)
        return bool(number.item())

    def from_first(self, number: float, seconds: float) -> float:
        """Return the number that rank 0 has."""
        value = self._torch.tensor([number], dtype=self._torch.float64)
        self._wait(self._dist.broadcast(value, self.global_rank(0), group=self._control, async_op=True), seconds)
        return float(value.item())

    @staticmethod
    def _wait(work: Any, seconds: float) -> None:
        work.wait(timedelta(seconds=seconds))

    def insist_on_the_same(self, digest: str, what: str, seconds: float) -> None:
        """Compare a SHA-256 with all ranks; on disagreement every rank raises and says so.

        Raises
        ------
        DisagreementError
            With the ranks that have each digest.
        RuntimeError
            If a rank does not come.
        """
        mine = self._torch.tensor(list(bytes.fromhex(digest)), dtype=self._torch.uint8)
        all_of_them = [self._torch.zeros_like(mine) for _ in range(self.size)]
        self._wait(self._dist.all_gather(all_of_them, mine, group=self._control, async_op=True), seconds)
        ranks_of: dict[str, list[int]] = {}
        for rank, theirs in enumerate(all_of_them):
            ranks_of.setdefault(bytes(theirs.tolist()).hex(), []).append(rank)
        if len(ranks_of) > 1:
            told = ", ".join(f"{key[:12]} on ranks {value}" for key, value in ranks_of.items())
            raise DisagreementError(
                f"the ranks disagree on the {what}, so nothing moves: {told}. Plan from the same load, placement and "
                "arguments on every rank."
            )

    def tell(self, key: str, value: Any) -> None:
        """Put a value, of JSON or bytes, where others can ask for it."""
        self._table.put(key, value)

    def advance(self) -> bool:
        """Count one more round made; False if the others have decided without waiting for it."""
        if not self._table.advance(_AT, {"progress": self.progress + 1, "loose": []}):
            return False
        self.progress += 1
        return True

    @property
    def has_lost(self) -> bool:
        """Whether ranks are lost, and the others have agreed on it: nothing can be moved over this group any more."""
        return self._table.wait(f"{_LOST}/decision", 0.0) is not None

    def agree_on_the_lost(self, loose: list[int], seconds: float) -> dict[int, Any]:
        """Agree on who is left and how many rounds were made; see ``decide``.

        Each report has ``progress`` and ``loose``, the experts of which a rank has copies outside of its slots. Ranks
        that are well but busy elsewhere answer with what they had when they last made a round.
        """
        return self.decide(_LOST, {"progress": self.progress, "loose": loose}, seconds, _AT)

    def ask(self, rank: int, key: str, seconds: float) -> Any:
        """Return what ``rank`` told under ``key``, waiting up to ``seconds`` for it; None if there is no answer."""
        if rank == self.rank:
            return self._table.wait(key, seconds)
        return self._request(rank, {"wait": key, "seconds": seconds}, seconds)

    def decide(self, key: str, report: Any, seconds: float, instead: str = "") -> dict[int, Any]:
        """Agree with the ranks that are left on who they are and what each reports.

        Parameters
        ----------
        key : str
            Names the question; used once.
        report : JSON
            What the others need to know of this rank.
        seconds : float
            Ranks that have not reported after two thirds of this, and have nothing instead, are taken to be lost.
        instead : str, default ""
            A key under which ranks that are well but busy elsewhere have something that does for a report. It is
            frozen there: ``advance`` fails from then on.

        Returns
        -------
        dict of rank to report
            The same for every rank in it.

        Raises
        ------
        RanksLostError
            If the others decided that this rank is lost.
        """
        begin = time.monotonic()
        self._table.put(f"{key}/report", report)
        reports: dict[int, Any] = {self.rank: report}
        lock = threading.Lock()

        def collect(rank: int) -> None:
            answer = self.ask(rank, f"{key}/report", seconds * 2 / 3 - 0.25)
            if answer is None and instead:
                answer = self._request(rank, {"freeze": instead}, 0.2)
            if answer is not None:
                with lock:
                    reports[rank] = answer

        _at_once(collect, [rank for rank in range(self.size) if rank != self.rank], seconds * 2 / 3 + 1)
        with lock:
            value: Any = {str(rank): reports[rank] for rank in sorted(reports)}
        for rank in range(self.size):
            left = seconds - (time.monotonic() - begin)
            if rank == self.rank:
                value = self._table.first(f"{key}/decision", value)
            elif rank in reports:
                answer = self._request(rank, {"first": f"{key}/decision", "value": value}, max(left / 2, 0.2))
                value = value if answer is None else answer
        decision = {int(rank): told for rank, told in value.items()}
        if self.rank not in decision:
            raise RanksLostError(
                f"ranks {sorted(decision)} decided without rank {self.rank}, which they take to be lost: it did not "
                "answer in time. Start it again.",
                [rank for rank in range(self.size) if rank not in decision],
            )
        return decision

    def _request(self, rank: int, request: dict[str, Any], seconds: float) -> Any:
        """Return the answer of a rank's table, or None if there is none in time."""
        until = time.monotonic() + seconds
        try:
            with socket.create_connection(self._addresses[rank], timeout=max(seconds, 0.05)) as link:
                link.sendall(json.dumps({**request, "token": self._token}).encode() + b"\n")
                with link.makefile("rb") as stream:
                    link.settimeout(max(until - time.monotonic(), 0.05) + 0.5)
                    head = json.loads(stream.readline() or b"null")
                    if head is None:
                        return None
                    return stream.read(head["bytes"]) if "bytes" in head else head["value"]
        except (OSError, ValueError):
            return None


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    table: _Table
    token: str


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    timeout = 60.0

    def handle(self) -> None:
        try:
            request = json.loads(self.rfile.readline(_LARGEST))
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


def _at_once(work: Callable[[int], None], units: Sequence[int], seconds: float) -> None:
    """Call ``work`` on all units at once, and wait at most ``seconds``."""
    threads = [threading.Thread(target=work, args=(unit,), daemon=True) for unit in units]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))
