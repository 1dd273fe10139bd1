"""How the ranks of a process group agree: when all are well, and when some are gone.

When all are well, the group's own collectives do. When a rank dies they no longer can, and survivors may even
differ about how far everybody came. So each rank also answers on a socket of its own, with a small table that others
read from and write to; nothing depends on a process that is gone.
"""

from __future__ import annotations

import pickle
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import DisagreementError, InvalidInputError, RanksLostError, shown
from equipoise.migration.tables import Server, Table, ask
from equipoise.problem import finite

__all__ = ["Peers", "check_peers", "check_timeout"]

Result = TypeVar("Result")

_AT, _LOST = "at", "lost"  # keys
LONGEST = 1e9  # seconds: what every clock and every backend can still count


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
        names = self.gather(socket.gethostname() if host is None else host)
        one_machine = host is None and len(set(names)) == 1
        self._table, self._number, self.progress = Table(), 0, 0
        self._table.put(_AT, {"progress": 0, "loose": []})
        self._server = Server(self._table, "127.0.0.1" if one_machine else "")
        self._server.token = self.gather(secrets.token_hex(16))[0]
        ports = self.gather(self._server.port)
        self._addresses = [
            ("127.0.0.1" if one_machine else name, port) for name, port in zip(names, ports, strict=True)
        ]

    def close(self) -> None:
        """Stop answering. Not collective; a rank that still needs an answer then takes this one for lost."""
        self._server.close()

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

    def gather(self, value: Any, seconds: float | None = None) -> list[Any]:
        """Return what every rank passed, in their order: anything that can be pickled.

        ``seconds`` None waits as long as the group does.
        """
        data = self._torch.frombuffer(bytearray(pickle.dumps(value)), dtype=self._torch.uint8)
        lengths = [self._torch.zeros(1, dtype=self._torch.int64) for _ in range(self.size)]
        length = self._torch.tensor([len(data)])
        self._wait(self._dist.all_gather(lengths, length, group=self._control, async_op=True), seconds)
        longest = max(int(length) for length in lengths)
        padded = self._torch.cat([data, data.new_zeros(longest - len(data))])
        everyone = [self._torch.empty_like(padded) for _ in lengths]
        self._wait(self._dist.all_gather(everyone, padded, group=self._control, async_op=True), seconds)
        return [pickle.loads(one[: int(n)].numpy().tobytes()) for one, n in zip(everyone, lengths, strict=True)]

    @staticmethod
    def _wait(work: Any, seconds: float | None) -> None:
        if seconds is None:
            work.wait()
        else:
            work.wait(timedelta(seconds=seconds))

    def together(
        self, collective: Callable[[float], Result], timeout: float, placement: Any = None, ranks: Sequence[int] = ()
    ) -> Result:
        """Return ``collective(seconds)``; if that fails, agree with the ranks that are left on who is lost.

        Parameters
        ----------
        collective : callable
            One of the methods above, given the seconds that it may take: two fifths of ``timeout``.
        timeout : float
            Seconds within which this returns or raises.
        placement : Placement or None, default None
            What is in force, and stays so: the error carries it.
        ranks : sequence of int, default ()
            What the caller calls the ranks of this group, in their order; none is 0, 1, ...

        Raises
        ------
        RanksLostError
            On every rank that is left, now or at its next collective, with the same lost ranks: none where all
            still answer and one came too late. The group is of no use then; build another.
        """
        names = list(ranks) or list(range(self.size))
        try:
            if self.has_lost:
                raise TimeoutError("the other ranks have given up on this group")
            return collective(timeout * 2 / 5)
        except DisagreementError:
            raise
        except (RuntimeError, TimeoutError) as error:
            left = self.agree_on_the_lost([], timeout * 3 / 5)
            lost = [names[process] for process in range(self.size) if process not in left]
            if lost:
                what, whom = f"ranks {lost} are lost", "the ranks that are left"
            else:
                what, whom = "no rank is lost, but one came too late", "the same ranks"
            raise RanksLostError(
                f"{what}; nothing was moved, and the placement in force is what it was. Go on with a new group of "
                f"{whom}.",
                lost,
                placement,
            ) from error

    def insist_on_the_same(self, digest: str, what: str, seconds: float) -> None:
        """Compare a digest, in hexadecimal, with all ranks; on disagreement every rank raises and says so.

        ``what`` says on what, and what does not happen.

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
                f"the ranks disagree on {what}: {told}. Plan with the same version, from the same load, placement and "
                "arguments, on every rank."
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
        reports = self._collect(key, report, seconds, instead)
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

    def _collect(self, key: str, own: Any, seconds: float, instead: str) -> dict[int, Any]:
        """Return the reports of all ranks that answer in time, this one's among them; see ``decide``."""
        reports: dict[int, Any] = {self.rank: own}
        lock = threading.Lock()

        def collect(rank: int) -> None:
            """Ask a rank for its report, or freeze it where it gives none."""
            answer = self.ask(rank, f"{key}/report", seconds * 2 / 3 - 0.25)
            if answer is None and instead:
                answer = self._request(rank, {"freeze": instead}, 0.2)
            if answer is not None:
                with lock:
                    reports[rank] = answer

        _at_once(collect, [rank for rank in range(self.size) if rank != self.rank], seconds * 2 / 3 + 1)
        with lock:  # a thread that is late may still add to the other one
            return dict(reports)

    def _request(self, rank: int, request: dict[str, Any], seconds: float) -> Any:
        return ask(self._addresses[rank], self._server.token, request, seconds)


def _at_once(work: Callable[[int], None], units: Sequence[int], seconds: float) -> None:
    """Call ``work`` on all units at once, and wait at most ``seconds``."""
    threads = [threading.Thread(target=work, args=(unit,), daemon=True) for unit in units]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0.0))


def check_peers(peers: Any) -> Peers:
    """Return ``peers``, or say what to pass."""
    if not isinstance(peers, Peers):
        raise InvalidInputError(f"peers is a {type(peers).__name__}; pass Peers(), which every rank builds together.")
    return peers


def check_timeout(timeout: Any) -> float:
    """Return a timeout in seconds, or say what it must be."""
    rule = f"a number of seconds above 0, up to {LONGEST:g}"
    seconds = finite(timeout, "timeout", rule)
    if not 0 < seconds <= LONGEST:
        raise InvalidInputError(f"timeout is {shown(timeout)}; it must be {rule}.")
    return seconds
