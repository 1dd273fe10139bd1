"""Weights on the move: a schedule followed over torch.distributed, a few rounds at a time, between forward passes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.errors import DisagreementError, InvalidInputError, RanksLostError
from equipoise.migration.peers import Peers
from equipoise.migration.schedule import MigrationSchedule
from equipoise.placement import Placement

__all__ = ["Migration"]

Held = NDArray[np.int64]


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
        Seconds within which ``step`` returns or raises once a rank no longer answers. Ranks that call ``step`` later
        than the others by more than two fifths of it are taken to be lost.
    restore : callable or None, default None
        ``restore(layer, slot, expert)`` loads what no rank holds into row ``slot`` of this rank's own tensors, from a
        checkpoint say. Needed if the schedule has restores.

    Attributes
    ----------
    placement : Placement
        What the slots hold now; the same on every rank after the same number of steps. -1 where a slot holds
        nothing that counts. Every expert has a slot whenever ``step`` returns.
    done : bool

    Raises
    ------
    InvalidInputError
        If the group has another number of ranks, the tensors do not fit the schedule, or ``restore`` is missing.
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

        self._torch, self._dist = torch, dist
        self._schedule, self._peers, self._restore = schedule, peers, restore
        self._weights = [list(layer) for layer in weights]
        self._timeout = float(timeout)
        alive = [rank for rank in range(schedule.num_ranks) if rank not in schedule.lost_ranks]
        if len(alive) != peers.size:
            raise InvalidInputError(
                f"the schedule moves weights between {len(alive)} ranks and the process group has {peers.size}; "
                "pass a group of the ranks that are left."
            )
        self._process_of = {rank: process for process, rank in enumerate(alive)}
        self._rank_of = alive
        self.rank = alive[peers.rank]
        self._check_weights()
        self._steps = _Steps(schedule)
        self._held = self._steps.start.copy()  # [layers, slots and spares]
        self._layer, self._round = 0, 0
        self._buffers: list[list[Any]] = []
        self._spare: list[Any] | None = None
        self._in_round = False
        self._over: RanksLostError | None = None
        self._arrived: list[tuple[_Move, list[Any]]] = []  # received into buffers in this round
        self._whole: list[tuple[_Move, list[Any]]] = []  # what of this round has come to its end
        self._direct: list[tuple[_Move, list[Any]]] = []
        self._name = f"{schedule.digest}/{peers.next_number()}"
        self._skip_idle_layers()
        if peers.has_lost:
            self._recover(TimeoutError("ranks were lost before this migration began"))
        try:
            peers.insist_on_the_same(self._digest(), "the migration, so nothing moves", self._timeout * 2 / 5)
        except RuntimeError as error:
            if isinstance(error, DisagreementError):
                raise
            self._recover(error)

    @property
    def done(self) -> bool:
        """Whether every round has been made."""
        return self._layer >= self._schedule.num_layers

    @property
    def placement(self) -> Placement:
        """What the slots of all ranks hold now."""
        return self._placement(self._held)

    def step(self, rounds: int | None = None) -> bool:
        """Make the rounds of one layer, or at least the given number of its rounds; return whether all are done.

        Collective: every rank calls it with the same argument. It goes on beyond ``rounds`` to the next cut at which
        every expert has a slot, and never beyond the layer.

        Raises
        ------
        RanksLostError
            On every rank that is left, with the same lost ranks and the same placement, which is valid for what they
            hold; the migration is then over. No expert of which a rank that is left had a copy is without one,
            unless their slots do not suffice: then the copy is kept in a buffer, and the error says where.
        """
        with self._torch.no_grad():
            return self._step(rounds)

    def _step(self, rounds: int | None) -> bool:
        if self._over is not None:
            raise self._over
        if self._peers.has_lost:
            self._recover(TimeoutError("the other ranks have given up on this migration"))
        if self.done:
            return True
        layer, made = self._layer, 0
        while self._layer == layer:
            try:
                self._make_round()
            except (RuntimeError, TimeoutError) as error:
                self._recover(error)
            made += 1
            if rounds is not None and made >= rounds and self._steps.is_servable(self._held[layer]):
                break
        if self.done:
            self._load_restores()
        return self.done

    def run(self) -> Placement:
        """Make all rounds that are left; return where everything is."""
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

    def _begin(self, moves: list[_Move], until: float) -> None:
        """Stash, send and receive, all into buffers: nothing that counts is overwritten."""
        operations: list[Any] = []
        self._arrived, self._direct, self._whole = [], [], []
        direct = {move.source for move in moves if move.into_spare and move.to_rank == self.rank}
        receives: list[tuple[_Move, list[Any], int]] = []
        for number, move in enumerate(moves):
            if move.into_spare and move.to_rank == self.rank:
                self._spare = self._take_buffer()
                self._copy(self._rows(move.source), self._spare)
            if move.from_rank == move.to_rank:
                continue
            if move.to_rank == self.rank:
                # What was just stashed may be overwritten at once; everything else waits for all ranks.
                into = self._rows(move.destination) if move.destination in direct else self._take_buffer()
                (self._direct if move.destination in direct else self._arrived).append((move, into))
                receives.append((move, into, len(operations)))
                operations += self._operations(self._dist.irecv, into, move.from_rank, number)
            elif move.from_rank == self.rank:
                operations += self._operations(self._dist.isend, self._rows(move.source), move.to_rank, number)
        if not operations:
            return
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
        if self._weights[self._layer][0].is_cuda:  # over NCCL, to wait only orders the stream
            event = self._torch.cuda.Event()
            event.record()
            while not event.query():
                if time.monotonic() > until:
                    self._whole = []
                    raise TimeoutError("the transfers of a round did not finish in time")
                time.sleep(0.0002)

    def _commit(self, moves: list[_Move]) -> None:
        """Let what arrived take its slots: all ranks have all of the round."""
        for move in moves:
            if move.from_rank == move.to_rank == self.rank and not move.into_spare:
                self._copy(self._rows(move.source), self._rows(move.destination))
        for move, buffer in self._arrived:
            self._copy(buffer, self._rows(move.destination))
            self._buffers.append(buffer)
        self._arrived, self._direct, self._whole, self._in_round = [], [], [], False
        held = self._steps.after(self._held[self._layer], moves, self._layer, self._round)
        if self._spare is not None and held[self._spare_slot] < 0:
            self._buffers.append(self._spare)
            self._spare = None
        self._held[self._layer] = held
        self._layer, self._round = self._steps.next(self._layer, self._round)
        if self._round == 0:
            self._skip_idle_layers()

    def _skip_idle_layers(self) -> None:
        self._buffers = []  # the next layer may have other shapes
        self._layer, self._round = self._steps.next(self._layer, self._round - 1)
        self._held[: self._layer] = self._steps.end[: self._layer]

    @property
    def _spare_slot(self) -> int:
        spare: int = self._schedule.num_slots + self.rank
        return spare

    def _rows(self, slot: int) -> list[Any]:
        """Return the rows of a slot, or the spare buffer, of this rank."""
        if slot >= self._schedule.num_slots:
            assert self._spare is not None
            return self._spare
        return [tensor[slot % self._schedule.slots_per_rank] for tensor in self._weights[self._layer]]

    def _take_buffer(self) -> list[Any]:
        if self._buffers:
            return self._buffers.pop()
        return [self._torch.empty_like(tensor[0]) for tensor in self._weights[self._layer]]

    def _copy(self, source: list[Any], destination: list[Any]) -> None:
        for one, other in zip(source, destination, strict=True):
            other.copy_(one)

    def _operations(self, operation: Any, rows: list[Any], rank: int, number: int) -> list[Any]:
        peer = self._peers.global_rank(self._process_of[rank])
        return [
            self._dist.P2POp(operation, row, peer, self._peers.group, tag=number * len(rows) + i)
            for i, row in enumerate(rows)
        ]

    def _load_restores(self) -> None:
        for layer, slot, expert in self._schedule.restores.tolist():
            if slot // self._schedule.slots_per_rank == self.rank:
                self._restore(layer, slot % self._schedule.slots_per_rank, expert)
            self._held[layer, slot] = expert

    # What follows happens only when a rank is gone.

    def _recover(self, error: Exception) -> None:
        """Agree on who is left and how far everybody came, save what lies in spares, and raise."""
        here, seconds = [self._layer, self._round], self._timeout * 3 / 5
        self._keep_what_is_whole()
        reports = self._peers.agree_on_the_lost(sorted(self._loose), seconds)
        furthest = max(told["progress"] for told in reports.values())
        if self._in_round and furthest > self._peers.progress:
            # Somebody took its slots, so all ranks had all of the round, this one too.
            for move, _ in self._direct:
                self._copy(self._loose[move.expert], self._rows(move.destination))
            self._peers.progress = furthest
            self._commit(self._steps.of(*here))
        layer = min(here[0], self._schedule.num_layers - 1)
        # Of a round that was made, nothing is loose any more.
        last = [r for r in sorted(reports) if reports[r]["progress"] == furthest]
        loose = [(self._rank_of[r], e) for r in last for e in reports[r]["loose"]]
        attempt, alive = 0, set(reports)
        while True:
            lost = [rank for rank in range(self._schedule.num_ranks) if self._process_of.get(rank) not in alive]
            self._held[:, self._steps.slots_of(lost)] = -1
            loose = [(rank, expert) for rank, expert in loose if rank not in lost]
            rescues = self._steps.rescues(self._held[layer], layer, loose)
            if not rescues:
                break
            attempt += 1
            saved = self._make_rescues(layer, rescues, f"{self._name}/{attempt}", seconds / 3)
            reports = self._peers.decide(f"{self._name}/{attempt}", saved, seconds)
            all_saved = [pair for told in reports.values() for pair in told]
            for slot, expert in all_saved:
                self._held[layer, slot] = expert
            if not all_saved and alive <= set(reports):
                break
            alive &= set(reports)
        placement, stranded = self.placement, self._steps.stranded(self._held[layer], loose)
        self._layer = self._schedule.num_layers
        kept = f", and {len(stranded)} experts only in spare buffers" if stranded else ""
        self._over = RanksLostError(
            f"ranks {lost} are lost; the others stand where their placement says{kept}. Plan again with "
            f"lost_ranks={lost}. ({str(error).splitlines()[0]})",
            lost,
            placement,
            [(layer, rank, expert) for rank, expert in stranded],
        )
        raise self._over from error

    def _keep_what_is_whole(self) -> None:
        """Give stashed slots their experts back, and keep what came to its end: it may be the last copy."""
        self._loose: dict[int, list[Any]] = {}
        for move, into in self._whole:
            self._loose[move.expert] = [row.clone() for row in into] if (move, into) in self._direct else into
        for move, _ in self._direct:
            assert self._spare is not None
            self._copy(self._spare, self._rows(move.destination))

    def _make_rescues(
        self, layer: int, rescues: list[tuple[int, int, int]], key: str, seconds: float
    ) -> list[list[int]]:
        """Move experts out of spares, through the peers' sockets; return each (slot, expert) that this rank saved."""
        self._layer, width = layer, self._schedule.slots_per_rank
        for rank, slot, expert in rescues:
            if rank == self.rank and slot // width != rank:
                self._peers.tell(f"{key}/{expert}", b"".join(_to_bytes(row) for row in self._loose_rows(expert)))
        saved = []
        for rank, slot, expert in rescues:
            if slot // width != self.rank:
                continue
            rows = self._rows(slot)
            if rank == self.rank:
                self._copy(self._loose_rows(expert), rows)
            else:
                sent = self._peers.ask(self._process_of[rank], f"{key}/{expert}", seconds)
                if not sent or len(sent) != sum(row.numel() * row.element_size() for row in rows):
                    continue
                for row in rows:
                    size = row.numel() * row.element_size()
                    row.copy_(self._torch.frombuffer(bytearray(sent[:size]), dtype=row.dtype).view(row.shape))
                    sent = sent[size:]
            saved.append([slot, expert])
        return saved

    def _loose_rows(self, expert: int) -> list[Any]:
        """Return where this rank has a copy of ``expert`` that is in no slot."""
        return self._loose[expert] if expert in self._loose else self._rows(self._spare_slot)

    def _placement(self, held: Held) -> Placement:
        schedule = self._schedule
        slots = held[:, : schedule.num_slots].astype(np.int32)
        return Placement(slots, schedule.num_ranks, schedule.current.num_logical_experts)

    def _check_weights(self) -> None:
        layers, width = self._schedule.num_layers, self._schedule.slots_per_rank
        if len(self._weights) != layers:
            raise InvalidInputError(
                f"weights has {len(self._weights)} layers and the schedule {layers}; pass the tensors of each layer."
            )
        for layer, tensors in enumerate(self._weights):
            if not tensors:
                raise InvalidInputError(f"weights of layer {layer} holds no tensor; pass at least one.")
            for i, tensor in enumerate(tensors):
                if tensor.dim() < 1 or tensor.shape[0] != width or not tensor.is_contiguous():
                    raise InvalidInputError(
                        f"tensor {i} of layer {layer} has shape {tuple(tensor.shape)}"
                        f"{'' if tensor.is_contiguous() else ' and is not contiguous'}; it must be contiguous, with "
                        f"{width} rows, one for each slot of this rank."
                    )
        if len(self._schedule.restores) and self._restore is None:
            layer, _, expert = self._schedule.restores[0].tolist()
            raise InvalidInputError(
                f"no rank holds expert {expert} of layer {layer}, so it cannot be moved; pass restore=..., which "
                "loads it."
            )

    def _digest(self) -> str:
        shapes = [[(tuple(tensor.shape), str(tensor.dtype)) for tensor in layer] for layer in self._weights]
        return hashlib.sha256(f"{self._schedule.digest}{shapes}".encode()).hexdigest()


def _to_bytes(row: Any) -> bytes:
    import torch

    data: bytes = row.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return data


class _Move:
    """One transfer, with the ranks that it concerns."""

    def __init__(self, schedule: MigrationSchedule, source: int, destination: int, expert: int) -> None:
        self.source, self.destination, self.expert = source, destination, expert
        self.from_rank, self.to_rank = (_rank_of(slot, schedule) for slot in (source, destination))
        self.into_spare = destination >= schedule.num_slots


def _rank_of(slot: int, schedule: MigrationSchedule) -> int:
    return slot // schedule.slots_per_rank if slot < schedule.num_slots else slot - schedule.num_slots


class _Steps:
    """What slots and spares hold as the rounds of a schedule pass: known to every rank, without asking."""

    def __init__(self, schedule: MigrationSchedule) -> None:
        self._schedule = schedule
        self._slots, self._ranks = schedule.num_slots, schedule.num_ranks
        current = schedule.current
        own = current.physical_to_logical.reshape(current.num_layers, current.num_ranks, -1)
        wide = np.full((current.num_layers, schedule.num_ranks, schedule.slots_per_rank), -1, dtype=np.int64)
        wide[:, : current.num_ranks, : current.slots_per_rank] = own
        wide[:, list(schedule.lost_ranks)] = -1
        target = schedule.target
        asked = np.full_like(wide, -1)
        own = target.physical_to_logical.reshape(target.num_layers, target.num_ranks, -1)
        asked[:, : target.num_ranks, : target.slots_per_rank] = own
        self._wanted = asked.reshape(len(wide), -1)
        spares = np.full((len(wide), self._ranks), -1, dtype=np.int64)
        self.start: Held = np.concatenate([wide.reshape(len(wide), -1), spares], axis=1)
        self.end: Held = np.concatenate([self._wanted, spares], axis=1)
        for layer, slot, _ in schedule.restores.tolist():
            self.end[layer, slot] = -1
        self._first = np.searchsorted(schedule.layer, np.arange(schedule.num_layers + 1))

    def next(self, layer: int, number: int) -> list[int]:
        """Return the layer and round after this one: that of the next layer that has any, at the end of a layer."""
        number += 1
        while layer < self._schedule.num_layers and number >= self._schedule.num_rounds[layer]:
            layer, number = layer + 1, 0
        return [layer, number]

    def of(self, layer: int, number: int) -> list[_Move]:
        """Return the transfers of one round."""
        schedule = self._schedule
        if layer == schedule.num_layers:
            return []
        part = slice(self._first[layer], self._first[layer + 1])
        at = np.flatnonzero(schedule.round[part] == number) + self._first[layer]
        columns = (schedule.source[at].tolist(), schedule.destination[at].tolist(), schedule.expert[at].tolist())
        return [_Move(schedule, *row) for row in zip(*columns, strict=True)]

    def after(self, held: Held, moves: list[_Move], layer: int, number: int) -> Held:
        """Return what slots and spares hold after a round. A spare is free once no later round reads it."""
        held = held.copy()
        for move in moves:
            held[move.destination] = move.expert
        part = slice(self._first[layer], self._first[layer + 1])
        rounds, schedule = self._schedule.round[part], self._schedule
        for rank in np.flatnonzero(held[self._slots :] >= 0):
            spare = self._slots + rank
            later = rounds > number
            reads = rounds[(schedule.source[part] == spare) & later]
            stashes = rounds[(schedule.destination[part] == spare) & later]
            if not len(reads) or (len(stashes) and stashes.min() <= reads.min()):
                held[spare] = -1
        return held

    def is_servable(self, held: Held) -> bool:
        """Whether every expert in a spare has a slot too."""
        spares = held[self._slots :]
        return bool(np.isin(spares[spares >= 0], held[: self._slots]).all())

    def slots_of(self, ranks: list[int]) -> NDArray[np.int64]:
        """Return all slots and spares of some ranks."""
        width = self._schedule.slots_per_rank
        slots = [r * width + s for r in ranks for s in range(width)] + [self._slots + r for r in ranks]
        return np.array(slots, dtype=np.int64)

    def stranded(self, held: Held, loose: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return rank and expert of each copy, in a spare or loose, whose expert has no slot: one for each expert."""
        slots = set(held[: self._slots].tolist())
        spares = [(rank, int(expert)) for rank, expert in enumerate(held[self._slots :]) if expert >= 0]
        first: dict[int, int] = {}
        for rank, expert in spares + loose:
            if expert not in slots:
                first.setdefault(expert, rank)
        return [(rank, expert) for expert, rank in first.items()]

    def rescues(self, held: Held, layer: int, loose: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
        """Return (rank, slot, expert): how to give each stranded expert the slot of one that has another.

        A slot of its own rank if there is one, else where its schedule wants it, else the lowest.
        """
        held = held.copy()
        width, found = self._schedule.slots_per_rank, []
        alive = {slot // width for slot in np.flatnonzero(held[: self._slots] >= 0).tolist()}
        for rank, expert in self.stranded(held, loose):
            slots = held[: self._slots].tolist()
            free = [
                slot
                for slot, other in enumerate(slots)
                if (slot // width in alive if other < 0 else slots.count(other) > 1)
            ]
            if free:
                wanted = self._wanted[layer]
                slot = min(free, key=lambda slot: (slot // width != rank, wanted[slot] != expert, slot))
                held[slot] = expert
                found.append((rank, slot, expert))
        return found
