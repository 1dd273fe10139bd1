"""The name under which ``keep_slots`` was first published: it stands in ``equipoise.replan.keep_slots``."""

from equipoise.replan.keep_slots import keep_slots

__all__ = ["keep_slots"]
