"""Manifests as text: read as Kubernetes reads them, written so that every reader of YAML sees the same."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sidecar.errors import SidecarError
from sidecar.inject.names import Json

# Plain in YAML 1.1 and 1.2 alike: neither a number, nor a date, nor one of the many words for yes and no.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan"})
_BLOCK: Final = re.compile(r"(?![ \n])(?:(?:[\x20-\x7e\u00a1-\u1fff]*[\x21-\x7e\u00a1-\u1fff])?\n)+\Z")


class ManifestError(SidecarError):
    """The text isn't the manifest that is needed."""


def read_pod(text: str, source: str) -> Json:
    """
    Read a manifest of one Pod.

    Raises:
        ManifestError: Not YAML, not one document, or another kind.
    """
    reader = YAML(typ="safe", pure=True)
    # As kubectl does: `defaultMode: 0644` is octal.
    reader.version = "1.1"
    try:
        found = [document for document in reader.load_all(text) if document is not None]
    except (YAMLError, ValueError) as e:
        mark = getattr(e, "problem_mark", None)
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ManifestError(f"{source}{place}: not valid YAML: {getattr(e, 'problem', None) or e}") from None
    if len(found) != 1 or not isinstance(found[0], dict):
        raise ManifestError(f"{source}: holds {len(found)} documents; give a file with one Pod")
    pod: Json = found[0]
    if (pod.get("apiVersion"), pod.get("kind")) != ("v1", "Pod"):
        raise ManifestError(
            f"{source}: is {pod.get('apiVersion')} {pod.get('kind')}, not v1 Pod; give a Pod, such as a template's"
        )
    spec = pod.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("containers"), list):
        raise ManifestError(f"{source}: has no spec.containers; write them")
    try:
        plain: Json = json.loads(json.dumps(pod))
    except TypeError as e:
        raise ManifestError(f"{source}: a value is no text, number, list or mapping ({e}); quote dates") from None
    return plain


def dump(documents: Iterable[Any]) -> str:
    """Write documents as YAML, each after ``---``; same values, same text."""
    return "".join("---\n" + "".join(f"{line}\n" for line in _lines(document)) for document in documents)


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(str(key))}:", item)
    elif isinstance(value, list) and value:
        for item in value:
            first, *rest = _lines(item) if _is_nested(item) else [_inline(item)]
            yield f"- {first}"
            yield from (f"  {line}" if line else "" for line in rest)
    else:
        yield _inline(value)


def _entry(head: str, item: Any) -> Iterator[str]:
    if isinstance(item, str) and "\n" in item and _BLOCK.match(item) and not item.endswith("\n\n"):
        yield f"{head} |"
        yield from (f"  {line}" if line else "" for line in item.removesuffix("\n").split("\n"))
    elif _is_nested(item):
        yield head
        yield from (f"  {line}" if line else "" for line in _lines(item))
    else:
        yield f"{head} {_inline(item)}"


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _inline(value: Any) -> str:
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str) -> str:
    return text if _PLAIN.match(text) and text.lower() not in _WORDS else json.dumps(text)
