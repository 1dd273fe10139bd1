"""What a balancer is told, checked before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from equipoise.arguments import as_ranks, count
from equipoise.dispatch import choose_shares
from equipoise.errors import InvalidInputError, shown
from equipoise.migration.peers import check_timeout
from equipoise.migration.schedule import LinkSpeeds
from equipoise.online.policy import Policy
from equipoise.placement import Placement
from equipoise.problem import Cluster, check_counts

__all__ = ["Settings", "as_in_force", "as_ranks", "check_window"]


@dataclass(frozen=True)
class Settings:
    """What stays as it is for as long as a balancer lives; ``Balancer`` says what each means."""

    num_expert_groups: int | None
    policy: Policy
    check_every: int
    max_transfers: int | None
    bytes_per_expert: int
    links: LinkSpeeds | None
    rounds_per_step: int | None
    timeout: float
    shares: str = "even"

    def __post_init__(self) -> None:
        if isinstance(self.policy, type) or not callable(getattr(self.policy, "weigh", None)):
            raise InvalidInputError(
                f"policy is {shown(self.policy)}; pass one with a method weigh, such as TokenGain()."
            )
        if self.links is not None and not isinstance(self.links, LinkSpeeds):
            raise InvalidInputError(f"links is {shown(self.links)}; pass LinkSpeeds(...), or None.")
        choose_shares(self.shares)
        checked = {
            "check_every": count(self.check_every, "check_every", most=2**31),
            "bytes_per_expert": count(self.bytes_per_expert, "bytes_per_expert", least=0, most=2**53),
            "timeout": check_timeout(self.timeout),
        }
        if self.max_transfers is not None:
            checked["max_transfers"] = count(self.max_transfers, "max_transfers", least=0, otherwise=", or None")
        for name in ("num_expert_groups", "rounds_per_step"):
            if getattr(self, name) is not None:
                checked[name] = count(getattr(self, name), name)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def as_in_force(placement: Any, cluster: Any, num_expert_groups: int | None) -> Placement:
    """Return the placement that a balancer starts from, or the one of a plan, if the cluster is the one it is for."""
    placement = getattr(placement, "placement", placement)
    if not isinstance(placement, Placement):
        raise InvalidInputError(f"placement is a {type(placement).__name__}; pass a Placement, or a Plan.")
    if not isinstance(cluster, Cluster):
        raise InvalidInputError(
            f"cluster is a {type(cluster).__name__}; pass a Cluster(num_ranks=..., slots_per_rank=...)."
        )
    if (placement.num_ranks, placement.num_slots) != (cluster.num_ranks, cluster.num_slots):
        raise InvalidInputError(
            f"the placement has {placement.num_slots} slots on {placement.num_ranks} ranks, the cluster "
            f"{cluster.num_slots} on {cluster.num_ranks}; pass the cluster that it is for."
        )
    check_counts(placement.num_logical_experts, cluster, num_expert_groups)
    return placement


def check_window(window: Any) -> None:
    """Insist that ``window`` takes counts and knows their mean."""
    methods = (getattr(window, name, None) for name in ("add", "tokens_per_step"))
    if isinstance(window, type) or not all(callable(method) for method in methods):
        raise InvalidInputError(
            f"window is {shown(window)}; pass one with the methods add and tokens_per_step, such as SlidingSum(100)."
        )
