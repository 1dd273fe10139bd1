"""Errors in the words that were typed: the options of a command for the names that the library has in Python."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["in_options"]

OPTIONS = {
    "num_ranks": ("--ranks",),
    "num_slots": ("--slots",),
    "num_nodes": ("--nodes",),
    "num_expert_groups": ("--groups",),
    "max_transfers_total": ("--max-transfers-total",),
    "max_transfers": ("--max-transfers",),
    "min_gain": ("--min-gain",),
    "max_layers": ("--max-layers",),
    "lost_ranks": ("--lost-ranks",),
    "restored_ranks": ("--restored-ranks",),
    "most_slots": ("--most-slots",),
    "max_gap": ("--max-gap",),
    "bytes_per_expert": ("--bytes-per-expert",),
    "experts_per_token": ("--experts-per-token", "--top-k"),
    "mtp_layers": ("--mtp-layers",),
    "tokens_per_step": ("--tokens-per-step",),
}
"""By the name of an argument, the options that it may come from."""

SUBJECTS = {
    "format": ("--to", "--engine"),
    "layer_ids": ("--first-layer",),
    "node": ("--links",),
    "remote": ("--links",),
    "routed_per_step": ("--tokens-per-rank",),
    "steps": ("--window",),
    "the first layer": ("--first-layer",),
}
"""By what a sentence begins with, beside the names of options themselves, the options that it may come from."""

PHRASES = (
    (r"\bas key\b", "with --key"),
    (r": Cluster\.from_slots\(\d+, (\d+)\)", r": --slots \1"),
    (r"\bleave the ranks out\b", "leave out --ranks"),
    (r"\bname the number of ranks\b", "name it with --ranks"),
    (r"\bleave out key='?([^'.;]*)'?", r"leave out --key \1"),
    (r"\bor None to plan globally\b", "or leave out --groups"),
    (r", or None for all\b", "; left out, all are used"),
    (r", or None\b", ""),
    (r"\bproblem has a latency model\b", "--gpu asks for a plan in microseconds"),
    (r"\bpass --groups=None, or re-plan problem\.in_tokens\b", "leave out --groups or --gpu"),
    (r"\bre-plan problem\.in_tokens\b", "leave out --gpu"),
)
# Not inside names of files, options or Python, and not after a sign that quotes.
_NAME = re.compile(r"(?<![\w./'\"-])(" + "|".join(OPTIONS) + r")(?![\w/'\"]|\.\w)")


def in_options(sentence: str, known: Sequence[str] = ()) -> str:
    """Return a sentence of the library with the options in place of its arguments.

    ``known`` are the options of the command that was typed.

    >>> in_options("num_ranks is 0; it must be a whole number of at least 1.")
    '--ranks is 0; it must be a whole number of at least 1.'
    >>> in_options("x.npz holds 'a' and 'b'; name one of them as key.")
    "x.npz holds 'a' and 'b'; name one of them with --key."
    >>> in_options("experts_per_token is 0.", ["--top-k"]), in_options("every is 0.", ["--every"])
    ('--top-k is 0.', '--every is 0.')
    """

    def named(found: re.Match[str]) -> str:
        """Return the option that an argument comes from."""
        options = OPTIONS[found[1]]
        return next((option for option in options if option in known), options[0])

    sentence = _NAME.sub(named, sentence)
    for option, subjects in _subjects(known).items():
        sentence = re.sub(rf"^({'|'.join(map(re.escape, subjects))}) (?=is\b|holds\b|must\b)", f"{option} ", sentence)
    for phrase, words in PHRASES:
        sentence = re.sub(phrase, words, sentence)
    return sentence


def _subjects(known: Sequence[str]) -> dict[str, list[str]]:
    """Return by each option of a command what a sentence about it may begin with."""
    subjects = {option: [option.removeprefix("--").replace("-", "_")] for option in known}
    for subject, options in SUBJECTS.items():
        for option in options:
            if option in subjects and subject not in subjects:
                subjects[option].append(subject)
    return subjects
