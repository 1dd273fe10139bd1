"""Errors in the words that were typed: the options of a command for the names that the library has in Python."""

from __future__ import annotations

import re

__all__ = ["in_options"]

OPTIONS = {
    "num_ranks": "--ranks",
    "num_slots": "--slots",
    "num_nodes": "--nodes",
    "num_expert_groups": "--groups",
    "max_transfers_total": "--max-transfers-total",
    "max_transfers": "--max-transfers",
    "lost_ranks": "--lost-ranks",
    "restored_ranks": "--restored-ranks",
    "most_slots": "--most-slots",
    "max_gap": "--max-gap",
    "bytes_per_expert": "--bytes-per-expert",
    "experts_per_token": "--experts-per-token",
    "mtp_layers": "--mtp-layers",
}
"""By the name of an argument, the option that it comes from."""

PHRASES = (
    (r"\bas key\b", "with --key"),
    (r"\bleave out key='?([^'.;]*)'?", r"leave out --key \1"),
    (r"\bor None to plan globally\b", "or leave out --groups"),
    (r", or None for all\b", "; left out, all are used"),
    (r", or None\b", ""),
    (r"^(seed|threads|balancedness|strategy|backend|key) is\b", r"--\1 is"),
    (r"^format is\b", "--to is"),
    (r"^the first layer is\b", "--first-layer is"),
)
# Not inside names of files, options or Python, and not after a sign that quotes.
_NAME = re.compile(r"(?<![\w./'\"-])(" + "|".join(OPTIONS) + r")(?![\w/'\"]|\.\w)")


def in_options(sentence: str) -> str:
    """Return a sentence of the library with the options in place of its arguments.

    >>> in_options("num_ranks is 0; it must be a whole number of at least 1.")
    '--ranks is 0; it must be a whole number of at least 1.'
    >>> in_options("x.npz holds 'a' and 'b'; name one of them as key.")
    "x.npz holds 'a' and 'b'; name one of them with --key."
    """
    sentence = _NAME.sub(lambda found: OPTIONS[found[1]], sentence)
    for phrase, words in PHRASES:
        sentence = re.sub(phrase, words, sentence)
    return sentence
