"""Dispatch: which part of an expert's tokens each of its replicas gets."""

from equipoise.dispatch.best import SharesCertificate, certify_shares, share
from equipoise.dispatch.choice import SHARES, Choose, choose_shares, keep_even
from equipoise.dispatch.shares import Shares

__all__ = [
    "SHARES", "Choose", "Shares", "SharesCertificate", "certify_shares", "choose_shares", "keep_even", "share"
]  # fmt: skip
