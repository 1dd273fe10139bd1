"""Dispatch: which part of an expert's tokens each of its replicas gets."""

from equipoise.dispatch.shares import Shares

__all__ = ["Shares"]
