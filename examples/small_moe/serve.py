"""Serving with the experts spread over processes: tokens travel to the slots, and the balancer keeps watch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from model import EXPERTS, LAYERS, TOP, WIDTH, Experts, Model, fixed, run_expert

import equipoise as eq
from equipoise.migration.peers import Peers
from equipoise.online import Balancer, TokenGain

__all__ = ["Server"]


class Server:
    """One rank of an expert-parallel server.

    Parameters
    ----------
    model : Model
        Trained; the same on every rank. Of its experts, only those that this rank has slots for are kept.
    placement : Placement
        Where experts live at the start.
    check_every : int
        Steps from one check of the balancer to the next.
    """

    def __init__(self, model: Model, placement: eq.Placement, check_every: int) -> None:
        self.model, self.rank, self.size = model.eval(), dist.get_rank(), dist.get_world_size()
        self.width = placement.slots_per_rank
        own = placement.physical_to_logical.reshape(LAYERS, self.size, -1)[:, self.rank]
        self.weights = [
            [fixed(table[torch.from_numpy(own[layer]).long()]) for table in (block.experts.up, block.experts.down)]
            for layer, block in enumerate(model.blocks)
        ]
        for block in model.blocks:
            block.experts.up = block.experts.down = None
        self.balancer = Balancer(
            placement,
            eq.Cluster(self.size, self.width),
            policy=TokenGain(horizon=200),
            check_every=check_every,
            max_transfers=6,
            weights=self.weights,
            peers=Peers(),
            rounds_per_step=1,
        )
        self.refresh()
        self.counts = torch.zeros(LAYERS, EXPERTS, dtype=torch.int64)  # of this rank's tokens, this step
        self.carried = torch.zeros(LAYERS, dtype=torch.int64)  # tokens that this rank's slots ran, this step

    def refresh(self) -> None:
        """Route by the placement in force."""
        placement = self.balancer.placement
        self.slots = torch.from_numpy(placement.logical_to_physical.copy()).long()
        self.replicas = torch.from_numpy(placement.replica_count.copy()).long()

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return the logits of this rank's text. Collective."""
        with torch.no_grad():
            return self.model(text, self.run)

    def step(self, text: torch.Tensor) -> torch.Tensor:
        """Serve one batch, then let the balancer do what is due."""
        logits = self.forward(text)
        self.balancer.record(self.counts)
        if self.balancer.step():
            self.refresh()
        return logits

    def run(self, layer: int, experts: Experts, tokens: torch.Tensor) -> torch.Tensor:
        """Send each token to a slot of each of its experts, and put together what comes back."""
        expert, share = experts.route(tokens)
        flat = expert.flatten()
        self.counts[layer] = torch.bincount(flat, minlength=EXPERTS)
        # The replicas of an expert take turns.
        turn = torch.arange(len(flat)) % self.replicas[layer, flat]
        slot = self.slots[layer, flat, turn]
        order = slot.argsort(stable=True)
        sent = torch.bincount(slot // self.width, minlength=self.size)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        self.carried[layer] = received.sum()

        exact = fixed(tokens)[order // TOP]
        here = torch.empty(int(received.sum()), WIDTH, dtype=torch.float64)
        at = torch.empty(len(here), dtype=torch.int64)
        there, back = sent.tolist(), received.tolist()
        dist.all_to_all_single(here, exact, back, there)
        dist.all_to_all_single(at, slot[order], back, there)
        made = torch.empty_like(here)
        up, down = self.weights[layer]
        for s in range(self.width):
            mine = at == self.rank * self.width + s
            made[mine] = run_expert(here[mine], up[s], down[s])
        returned = torch.empty(len(flat), WIDTH, dtype=torch.float64)
        dist.all_to_all_single(returned, made, there, back)
        by_token = torch.empty_like(returned)
        by_token[order] = returned
        return (by_token.view(-1, TOP, WIDTH) * share[..., None]).sum(1)
