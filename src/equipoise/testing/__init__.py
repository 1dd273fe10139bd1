"""Instances and checks for tests, those of programs that use equipoise among them.

from equipoise.testing import assert_valid_placement, brute_force_optimum, random_problems
"""

from __future__ import annotations

from equipoise.testing.brute_force import brute_force_optimum, brute_force_time, every_share
from equipoise.testing.checks import assert_valid_placement, avoidable_duplicates
from equipoise.testing.instances import TINY_SHAPES, random_load, random_problems
from equipoise.testing.replay import replay
from equipoise.testing.trace import recorded_load

__all__ = [
    "TINY_SHAPES",
    "assert_valid_placement",
    "avoidable_duplicates",
    "brute_force_optimum",
    "brute_force_time",
    "every_share",
    "random_load",
    "random_problems",
    "recorded_load",
    "replay",
]
