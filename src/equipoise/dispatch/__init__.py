"""Dispatch: which part of an expert's tokens each of its replicas gets, and placements that leave the choice open."""

from equipoise.dispatch.best import SharesCertificate, certify_shares, share
from equipoise.dispatch.choice import SHARES, Choose, choose_shares, keep_even
from equipoise.dispatch.connected import count_components, fewest_components, flexibility
from equipoise.dispatch.foresight import Foresight, cautious_shares, foresee
from equipoise.dispatch.shares import Shares

__all__ = [
    "SHARES",
    "Choose",
    "Foresight",
    "Shares",
    "SharesCertificate",
    "cautious_shares",
    "certify_shares",
    "choose_shares",
    "count_components",
    "fewest_components",
    "flexibility",
    "foresee",
    "keep_even",
    "share",
]
