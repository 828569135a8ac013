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


def globs_overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether a sequence of items fits both, each ``**`` being one item or more; as cheap as `glob_matches`."""
    todo, seen = [(0, 0)], {(0, 0)}
    while todo:
        i, j = todo.pop()
        if i == len(one) and j == len(other):
            return True
        if i == len(one) or j == len(other):
            continue
        if one[i] in (ONE, MANY) or other[j] in (ONE, MANY) or one[i] == other[j]:
            for state in ((a, b) for a in _after(one, i) for b in _after(other, j)):
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
    return False


def _after(pattern: Sequence[str], state: int) -> tuple[int, ...]:
    """Where a pattern may be once an item has fitted its step."""
    return (state, state + 1) if pattern[state] == MANY else (state + 1,)


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
