"""What moves when one placement follows another."""

from equipoise.migration.keep_slots import keep_slots
from equipoise.migration.match_ranks import match_ranks

__all__ = ["keep_slots", "match_ranks"]
