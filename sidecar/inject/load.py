"""From the webhook's configuration file to a `Config`, or to one error that names every problem with its line."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sidecar.errors import SidecarError
from sidecar.inject.config import Config
from sidecar.policy.problems import Path, PolicyError, Problem
from sidecar.policy.tree import read_tree


class ConfigError(SidecarError):
    """The configuration can't be used. One line for each problem."""


def parse_config(text: str, source: str = "config.yaml") -> Config:
    """
    Read a configuration.

    Args:
        text: YAML 1.2, or JSON. Empty: the defaults, by which nothing is injected.
        source: What errors call it.

    Raises:
        ConfigError: With file, line and column of every problem that was found.
    """
    try:
        tree = read_tree(text, source)
    except PolicyError as e:
        raise ConfigError(str(e)) from None
    value = {} if tree.value is None else tree.value
    if not isinstance(value, dict):
        tree.complain(tree.at(()), (), "is not a mapping; write keys, such as 'inject: true'")
    else:
        try:
            if not tree.problems:
                return Config.model_validate(value)
        except ValidationError as e:
            for found in e.errors(include_url=False):
                path: Path = found["loc"]
                unknown = found["type"] == "extra_forbidden"
                tree.complain(tree.at_key(path) if unknown else tree.at(path), path, _message(path, found))
    problems: list[Problem] = sorted(tree.problems, key=lambda problem: problem.position)
    raise ConfigError("\n".join(f"{source}:{problem}" for problem in problems))


def _message(path: Path, found: ErrorDetails) -> str:
    match found["type"]:
        case "extra_forbidden":
            known = list(_keys(path[:-1]))
            near = difflib.get_close_matches(str(path[-1]), known, n=1)
            return f"is not a key; write {near[0]!r}" if near else f"is not a key; known are {', '.join(known)}"
        case "missing":
            return "is missing; write it"
        case "value_error":
            return str(found["ctx"]["error"])
    value = "" if isinstance(found["input"], dict | list) else f", not {found['input']!r}"
    return f"{found['msg'].lower()}{value}"


def _keys(path: Path) -> Iterator[str]:
    """The keys that are known at a place."""
    model: Any = Config
    for step in path:
        if isinstance(step, int):
            continue
        annotation = next(field.annotation for field in model.model_fields.values() if field.alias == step)
        inner = [kind for kind in getattr(annotation, "__args__", (annotation,)) if _is_model(kind)]
        model = inner[0]
    yield from (str(field.alias) for field in model.model_fields.values())


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
