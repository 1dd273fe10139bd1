"""A small Mixture-of-Experts language model over bytes. How experts are run is left to whoever calls it.

Trained in float32; served with ``to_fixed_point`` experts, whose weights and inputs are whole multiples of 2**-10
held in float64. Sums of their products are exact, in any order, so an expert gives the same bits on every rank and
beside any other tokens. That is what makes "bit-identical" a fair test of a migration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["EXPERTS", "LAYERS", "LENGTH", "TOP", "WIDTH", "Model", "fixed", "run_expert", "run_locally", "train"]

WIDTH, HIDDEN, HEADS, LAYERS, EXPERTS, TOP, LENGTH = 48, 64, 4, 3, 16, 2, 64
SCALE = 2.0**10


def fixed(values: torch.Tensor) -> torch.Tensor:
    """Return values rounded to multiples of 2**-10, between -32 and 32, in float64."""
    return (values.double() * SCALE).round().clamp(-32 * SCALE, 32 * SCALE) / SCALE


def run_expert(tokens: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Return what one expert makes of tokens [n, WIDTH]: exact for fixed-point input, rounded once in the middle."""
    return fixed(torch.relu(tokens @ up)) @ down


class Experts(nn.Module):
    """The router of one layer and the weights of its experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, HIDDEN) / WIDTH**0.5)
        self.down = nn.Parameter(torch.randn(EXPERTS, HIDDEN, WIDTH) / HIDDEN**0.5)

    def route(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the experts of each token and their shares: both [tokens, TOP]."""
        share, expert = self.router(tokens).softmax(-1).topk(TOP, dim=-1)
        return expert, share / share.sum(-1, keepdim=True)

    def learn(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run all experts here, in float32, with gradients."""
        expert, share = self.route(tokens)
        out = torch.zeros_like(tokens)
        for e in range(EXPERTS):
            row, place = (expert == e).nonzero(as_tuple=True)
            made = torch.relu(tokens[row] @ self.up[e]) @ self.down[e]
            out = out.index_add(0, row, made * share[row, place, None])
        return out


class Block(nn.Module):
    """Attention to what came before, then experts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.experts = Experts()

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Return what attention adds to x [batch, length, WIDTH]."""
        batch, length, _ = x.shape
        parts = self.mix(self.norm_1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        return self.out(seen.transpose(1, 2).reshape(batch, length, WIDTH))


class Model(nn.Module):
    """Bytes in, the next bytes' logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.byte, self.place = nn.Embedding(256, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256)

    def forward(self, text: torch.Tensor, run: Callable[[int, Experts, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Return logits; ``run(layer, experts, tokens)`` runs the experts of a layer on tokens [n, WIDTH]."""
        x = self.byte(text) + self.place.weight[: text.shape[1]]
        for layer, block in enumerate(self.blocks):
            x = x + block.attend(x)
            made = run(layer, block.experts, block.norm_2(x).view(-1, WIDTH))
            x = x + made.view(x.shape).to(x.dtype)
        return self.head(self.norm(x))


def run_locally(layer: int, experts: Experts, tokens: torch.Tensor) -> torch.Tensor:
    """Run all experts in this process, in fixed point: what a distributed run must agree with, bit for bit."""
    expert, share = experts.route(tokens)
    exact, made = fixed(tokens), torch.zeros(len(tokens), TOP, WIDTH, dtype=torch.float64)
    for e in range(EXPERTS):
        row, place = (expert == e).nonzero(as_tuple=True)
        made[row, place] = run_expert(exact[row], fixed(experts.up[e]), fixed(experts.down[e]))
    return (made * share[..., None]).sum(1)


def train(model: Model, texts: list, steps: int, show: Callable[[str], None]) -> None:
    """Train on all kinds of text in turn. No loss asks for balance, so the router's preferences are its own."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        batch = next(texts[step % len(texts)])
        logits = model(batch[:, :-1], lambda layer, experts, tokens: experts.learn(tokens))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            show(f"  step {step:3}: {loss.item() / 0.6931:.2f} bits a byte")
