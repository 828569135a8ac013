"""
What a hostile process does, one function for each kind of attempt.

The first argument is the row's token, which the Internet looks for. The answer is a word or two for the table; an
`OSError` is an answer, too.
"""

from collections.abc import Callable
from importlib import import_module


def find(name: str) -> Callable[..., str]:
    """``module.function`` below this package."""
    module, _, function = name.partition(".")
    found: Callable[..., str] = getattr(import_module(f"{__name__}.{module}"), function)
    return found
