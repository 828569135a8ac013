"""Sequences with wildcards: the labels of a host, the segments of a path."""

import re
from collections.abc import Sequence
from typing import Literal

ONE = "*"  # exactly one item
MANY = "**"  # a run of items

type Step = str | re.Pattern[str]


def glob_matches(pattern: Sequence[Step], items: Sequence[str], *, least: Literal[0, 1]) -> bool:
    """
    Whether *items* fit *pattern*, in time proportional to the product of their lengths, whatever the input.

    An item may itself be ``*`` or ``**``: then it stands for all that this wildcard stands for, and the
    answer says that *pattern* covers it (false negatives happen, false positives don't).

    Args:
        least: How many items ``**`` needs: one label of a host, no segment of a path.
    """
    end = len(pattern)
    states = _rest(pattern, 0) if least == 0 else {0}
    for item in items:
        reached: set[int] = set()
        for state in states:
            if state == end:
                continue
            step = pattern[state]
            if step == MANY:
                reached.add(state)
                reached |= _rest(pattern, state + 1) if least == 0 else {state + 1}
            elif _fits(step, item):
                reached |= _rest(pattern, state + 1) if least == 0 else {state + 1}
        states = reached
        if not states:
            return False
    return end in states


def _rest(pattern: Sequence[Step], state: int) -> set[int]:
    """*state*, and those after it that a ``**`` of no items leads to."""
    states = {state}
    while state < len(pattern) and pattern[state] == MANY:
        state += 1
        states.add(state)
    return states


def _fits(step: Step, item: str) -> bool:
    if isinstance(step, re.Pattern):
        return step.fullmatch(item) is not None
    return step == item or (step == ONE and item not in ("", MANY))
