"""Weights on the move: a schedule followed over torch.distributed, a few rounds at a time, between forward passes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from equipoise.errors import DisagreementError, InvalidInputError, MigrationError, RanksLostError
from equipoise.migration.peers import Peers, check_peers, check_timeout
from equipoise.migration.rescue import Rescue, describe_loss
from equipoise.migration.schedule import MigrationSchedule
from equipoise.migration.steps import Move, Steps
from equipoise.migration.weights import Rows, Weights, check_restore, copy_rows
from equipoise.placement import Placement
from equipoise.problem import count

__all__ = ["Migration"]


class Migration:
    """A migration under way. Every rank builds one from the same schedule and calls ``step`` as often as the others.

        migration = Migration(schedule, weights, peers)
        while not migration.done:
            model(batch)                       # routes by migration.placement
            migration.step()

    Parameters
    ----------
    schedule : MigrationSchedule
        The same on every rank; its ranks are those of the process group, lost ranks left out.
    weights : sequence over layers of sequences of torch tensors
        What this rank holds: any number of tensors a layer, each contiguous, with one row for each of this rank's
        slots. They are changed in place. Every rank has tensors of the same shapes and types.
    peers : Peers
    timeout : float, default 30.0
        Seconds within which ``step`` returns or raises once a rank no longer answers. A rank that calls ``step`` later
        than the others by more than two fifths of it, or restores for so much longer, ends the migration on all ranks.
    restore : callable or None, default None
        ``restore(layer, slot, expert)`` loads what no rank holds into row ``slot`` of this rank's own tensors, from a
        checkpoint say. Needed if the schedule has restores.

    Attributes
    ----------
    placement : Placement
        What the slots hold now; the same on every rank after the same number of steps. -1 where a slot holds
        nothing that counts. Every expert that had a slot at the start has one whenever ``step`` returns.
    done : bool
        Whether every round is made and everything restored.

    Raises
    ------
    InvalidInputError
        If an argument is not what it is to be, the group has another number of ranks, the tensors do not fit the
        schedule, or ``restore`` is missing.
    DisagreementError
        On every rank, if they do not have the same schedule and the same kinds of tensors. Nothing has moved.
    RanksLostError
        If a rank does not answer; nothing has moved by this migration.

    Notes
    -----
    Weights arrive in buffers and only take their slots when all ranks have all of a round; so when a rank
    fails, the others know what they hold. Buffers are one more than the transfers that a rank receives at once, and
    never more than one layer.

    Over NCCL, a rank that fails leaves its neighbours' streams waiting; abort the group before using them again.
    """

    def __init__(
        self,
        schedule: MigrationSchedule,
        weights: Sequence[Sequence[Any]],
        peers: Peers,
        *,
        timeout: float = 30.0,
        restore: Any = None,
    ) -> None:
        import torch
        import torch.distributed as dist

        if not isinstance(schedule, MigrationSchedule):
            raise InvalidInputError(f"schedule is a {type(schedule).__name__}; pass a MigrationSchedule.")
        self._torch, self._dist = torch, dist
        self._schedule, self._peers, self._timeout = schedule, check_peers(peers), check_timeout(timeout)
        self._restore = check_restore(restore, schedule)
        alive = [rank for rank in range(schedule.num_ranks) if rank not in schedule.lost_ranks]
        if len(alive) != peers.size:
            raise InvalidInputError(
                f"the schedule moves weights between {len(alive)} ranks and the process group has {peers.size}; "
                "pass a group of the ranks that are left."
            )
        self._rank_of = alive
        self._process_of = {rank: process for process, rank in enumerate(alive)}
        self.rank = alive[peers.rank]
        self._weights = Weights(weights, schedule)
        self._steps = Steps(schedule)
        self._held = self._steps.start.copy()  # [layers, slots and spares]
        self._layer, self._round = 0, 0
        self._to_restore: list[list[int]] = schedule.restores.tolist()  # layer, slot and expert
        self._in_round = False
        self._over: RanksLostError | None = None
        self._arrived: list[tuple[Move, Rows]] = []  # received into buffers in this round
        self._direct: list[tuple[Move, Rows]] = []  # received into slots, whose experts are in the spare
        self._whole: list[tuple[Move, Rows]] = []  # what of this round has come to its end
        self._name = f"{schedule.digest}/{peers.next_number()}"
        self._skip_idle_layers()
        if peers.has_lost:
            self._recover(TimeoutError("ranks were lost before this migration began"))
        try:
            digest = hashlib.sha256(f"{schedule.digest}{self._weights.kinds}".encode()).hexdigest()
            peers.insist_on_the_same(digest, "the migration, so nothing moves", self._timeout * 2 / 5)
        except RuntimeError as error:
            if isinstance(error, DisagreementError):
                raise
            self._recover(error)

    @property
    def done(self) -> bool:
        """Whether every round has been made, and what no rank held is restored."""
        return self._layer >= self._schedule.num_layers and not self._to_restore

    @property
    def placement(self) -> Placement:
        """What the slots of all ranks hold now."""
        slots = self._held[:, : self._schedule.num_slots].astype(np.int32)
        return Placement(slots, self._schedule.num_ranks, self._schedule.current.num_logical_experts)

    def step(self, rounds: int | None = None) -> bool:
        """Make the rounds of one layer, or at least the given number of its rounds; return whether all is done.

        Collective: every rank calls it with the same argument. It goes on beyond ``rounds`` to the next cut at which
        every expert has a slot, and never beyond the layer. After the last round, each step restores one layer.

        Raises
        ------
        InvalidInputError
            If ``rounds`` is neither None nor a whole number of at least 1.
        MigrationError
            On every rank, if ``restore`` fails on one of them; it says where and why. The next step tries again.
        RanksLostError
            On every rank that is left, with the same lost ranks and the same placement, which is valid for what they
            hold; the migration is then over. No expert of which a rank that is left had a copy is without one,
            unless their slots do not suffice: then the copy is kept in a buffer, and the error says where.
        """
        with self._torch.no_grad():
            return self._step(None if rounds is None else count(rounds, "rounds"))

    def _step(self, rounds: int | None) -> bool:
        if self._over is not None:
            raise self._over
        if self._peers.has_lost:
            self._recover(TimeoutError("the other ranks have given up on this migration"))
        if self.done:
            return True
        try:
            if self._layer < self._schedule.num_layers:
                self._make_rounds(rounds)
            else:
                self._load_restores()
        except MigrationError:
            raise
        except (RuntimeError, TimeoutError) as error:
            self._recover(error)
        return self.done

    def _make_rounds(self, rounds: int | None) -> None:
        layer, made = self._layer, 0
        while self._layer == layer:
            self._make_round()
            made += 1
            if rounds is not None and made >= rounds and self._steps.is_servable(self._held[layer]):
                break

    def run(self) -> Placement:
        """Make all rounds that are left, and restore; return where everything is."""
        while not self.done:
            self.step()
        return self.placement

    def _make_round(self) -> None:
        until = time.monotonic() + self._timeout * 2 / 5
        moves = self._steps.of(self._layer, self._round)
        self._in_round = True
        self._begin(moves, until)
        self._peers.barrier(max(until - time.monotonic(), 0.01))
        if not self._peers.advance():
            raise TimeoutError("the other ranks have given up on this round")
        self._commit(moves)

    def _begin(self, moves: list[Move], until: float) -> None:
        """Stash, send and receive, all into buffers: nothing that counts is overwritten."""
        operations: list[Any] = []
        self._arrived, self._direct, self._whole = [], [], []
        direct = {move.source for move in moves if move.into_spare and move.to_rank == self.rank}
        receives: list[tuple[Move, Rows, int]] = []
        for number, move in enumerate(moves):
            if move.into_spare and move.to_rank == self.rank:
                self._weights.stash(move.source)
            if move.from_rank == move.to_rank:
                continue
            if move.to_rank == self.rank:
                # What was just stashed may be overwritten at once; everything else waits for all ranks.
                at_once = move.destination in direct
                into = self._weights.rows(move.destination) if at_once else self._weights.take_buffer()
                (self._direct if at_once else self._arrived).append((move, into))
                receives.append((move, into, len(operations)))
                operations += self._operations(self._dist.irecv, into, move.from_rank, number)
            elif move.from_rank == self.rank:
                rows = self._weights.rows(move.source)
                operations += self._operations(self._dist.isend, rows, move.to_rank, number)
        if operations:
            self._finish(operations, receives, until)

    def _finish(self, operations: list[Any], receives: list[tuple[Move, Rows, int]], until: float) -> None:
        """Wait for all operations, and keep in mind which experts are whole; raise if not all are in time."""
        failed: dict[int, Exception] = {}
        for i, work in enumerate(self._dist.batch_isend_irecv(operations)):
            try:
                work.wait(timedelta(seconds=max(until - time.monotonic(), 0.01)))
            except RuntimeError as error:
                failed[i] = error
        for move, into, first in receives:
            if failed.keys().isdisjoint(range(first, first + len(into))):
                self._whole.append((move, into))
        if failed:
            raise next(iter(failed.values()))
        if self._weights.is_cuda:  # over NCCL, to wait only orders the stream
            event = self._torch.cuda.Event()
            event.record()
            while not event.query():
                if time.monotonic() > until:
                    self._whole = []
                    raise TimeoutError("the transfers of a round did not finish in time")
                time.sleep(0.0002)

    def _operations(self, operation: Any, rows: Rows, rank: int, number: int) -> list[Any]:
        peer = self._peers.global_rank(self._process_of[rank])
        return [
            self._dist.P2POp(operation, row, peer, self._peers.group, tag=number * len(rows) + i)
            for i, row in enumerate(rows)
        ]

    def _commit(self, moves: list[Move]) -> None:
        """Let what arrived take its slots: all ranks have all of the round."""
        for move in moves:
            if move.from_rank == move.to_rank == self.rank and not move.into_spare:
                copy_rows(self._weights.rows(move.source), self._weights.rows(move.destination))
        for move, buffer in self._arrived:
            copy_rows(buffer, self._weights.rows(move.destination))
            self._weights.give_back(buffer)
        self._arrived, self._direct, self._whole, self._in_round = [], [], [], False
        held = self._steps.after(self._held[self._layer], moves, self._layer, self._round)
        if held[self._schedule.num_slots + self.rank] < 0:
            self._weights.free_spare()
        self._held[self._layer] = held
        self._layer, self._round = self._steps.next(self._layer, self._round)
        if self._round == 0:
            self._skip_idle_layers()

    def _skip_idle_layers(self) -> None:
        self._layer, self._round = self._steps.next(self._layer, self._round - 1)
        self._weights.turn_to(self._layer)
        self._held[: self._layer] = self._steps.end[: self._layer]

    def _load_restores(self) -> None:
        """Let every rank load what it lacks of one layer, which counts once all have theirs."""
        failure, told = None, None
        self._in_round = True
        for layer, slot, expert in self._next_restores():
            if slot // self._schedule.slots_per_rank == self.rank:
                try:
                    self._restore(layer, slot % self._schedule.slots_per_rank, expert)
                except Exception as error:  # the others wait for an answer, whatever it is
                    failure = error
                    told = f"expert {expert} of layer {layer}: {type(error).__name__}: {error}"
                    break
        everyone = self._peers.gather(told, self._timeout * 2 / 5)
        wrong = [f"rank {self._rank_of[i]} could not restore {text}" for i, text in enumerate(everyone) if text]
        if wrong:
            self._in_round = False
            raise MigrationError(f"{'; '.join(wrong)}. What is not restored has no slot.") from failure
        if not self._peers.advance():
            raise TimeoutError("the other ranks have given up on this migration")
        self._count_restored()

    def _next_restores(self) -> list[list[int]]:
        return [restore for restore in self._to_restore if restore[0] == self._to_restore[0][0]]

    def _count_restored(self) -> None:
        restored = self._next_restores()
        for layer, slot, expert in restored:
            self._held[layer, slot] = expert
        self._to_restore = self._to_restore[len(restored) :]
        self._in_round = False

    # What follows happens only when a rank is gone.

    def _recover(self, error: Exception) -> None:
        """Agree on who is left and how far everybody came, save what lies in no slot, and raise."""
        here, seconds = (self._layer, self._round), self._timeout * 3 / 5
        own = self._keep_what_is_whole()
        reports = self._peers.agree_on_the_lost(sorted(own), seconds)
        furthest = max(told["progress"] for told in reports.values())
        if self._in_round and furthest > self._peers.progress:
            # Somebody took its slots, so all ranks had all of the round, this one too.
            for move, _ in self._direct:
                copy_rows(own[move.expert], self._weights.rows(move.destination))
            self._peers.progress = furthest
            if here[0] < self._schedule.num_layers:
                self._commit(self._steps.of(*here))
            else:
                self._count_restored()
        layer = min(here[0], self._schedule.num_layers - 1)
        self._weights.turn_to(layer)
        # Of a round that was made, nothing is loose any more.
        last = [r for r in sorted(reports) if reports[r]["progress"] == furthest]
        loose = [(self._rank_of[r], e) for r in last for e in reports[r]["loose"]]
        rescue = Rescue(self._schedule, self._steps.wanted[layer], self.rank, self._rank_of, self._peers,
                        self._weights, own, self._name)  # fmt: skip
        lost, stranded = rescue.run(self._held, layer, loose, set(reports), seconds)
        self._layer, self._to_restore = self._schedule.num_layers, []
        self._over = RanksLostError(
            describe_loss(lost, self._schedule.lost_ranks, len(stranded), error),
            lost,
            self.placement,
            [(layer, rank, expert) for rank, expert in stranded],
        )
        raise self._over from error

    def _keep_what_is_whole(self) -> dict[int, Rows]:
        """Give stashed slots their experts back, and return what came to its end: it may be the last copy."""
        own = {}
        for move, into in self._whole:
            own[move.expert] = [row.clone() for row in into] if (move, into) in self._direct else into
        for move, _ in self._direct:
            assert self._weights.spare is not None
            copy_rows(self._weights.spare, self._weights.rows(move.destination))
        return own
