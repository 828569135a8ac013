"""JSON Patch (RFC 6902): the operations that make one value into another."""

import json
from collections.abc import Iterator
from typing import Any

from sidecar.inject.names import Json


def diff(before: Any, after: Any, path: str = "") -> Iterator[Json]:
    """
    The operations that turn *before* into *after*, few rather than fewest.

    In a list, items of the same name (or the same items, where they have none) are compared, and new ones added among
    them; a list that has lost items or changed their order is replaced whole.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key not in after:
                yield {"op": "remove", "path": f"{path}/{_escape(key)}"}
        for key, value in after.items():
            where = f"{path}/{_escape(key)}"
            if key in before:
                yield from diff(before[key], value, where)
            else:
                yield {"op": "add", "path": where, "value": value}
    elif isinstance(before, list) and isinstance(after, list):
        yield from _diff_lists(before, after, path)
    elif before != after or type(before) is not type(after):
        yield {"op": "replace", "path": path, "value": after}


def _diff_lists(before: list[Any], after: list[Any], path: str) -> Iterator[Json]:
    old, new = _keys(before), _keys(after)
    kept = [key for key in new if key in old]
    if len(set(new)) != len(new) or kept != old:
        yield {"op": "replace", "path": path, "value": after}
        return
    for number, (key, item) in enumerate(zip(new, after, strict=True)):
        if key in old:
            yield from diff(before[old.index(key)], item, f"{path}/{number}")
        else:
            yield {"op": "add", "path": f"{path}/{number}", "value": item}


def _keys(items: list[Any]) -> list[str]:
    """What tells items apart: their names, where all have one of their own; else all that they are."""
    names = [str(item.get("name")) if isinstance(item, dict) else "" for item in items]
    return names if len(set(names)) == len(names) else [json.dumps(item, sort_keys=True) for item in items]


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")  # RFC 6901, section 3
