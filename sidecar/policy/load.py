"""From YAML to a `Policy`, or to one error that names every problem of the file."""

import difflib
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from sidecar.policy.document import UNSUPPORTED, VERDICTS, NetworkDocument, PolicyDocument, RuleDocument, contradictions
from sidecar.policy.index import build_index
from sidecar.policy.problems import Path, PolicyError, PolicyFileError
from sidecar.policy.rules import EVERY_PORT, WEB_PORTS, Dns, Network, Policy, Protocol, Rule, Verdict
from sidecar.policy.tree import Tree, read_tree

MAX_SIZE = 1024 * 1024  # bytes

_EXAMPLES = {
    "version": "version: 1",
    "default": "default: deny",
    "rules": "rules: [{allow: ['api.example.com']}]",
    "network": "network: {allow_addresses: ['10.20.0.0/16']}",
    "allow_addresses": "['10.20.0.0/16']",
    "allow": "['api.example.com']",
    "deny": "['**.internal.example.com']",
    "passthrough": "['pinned.example.com']",
    "ports": "[443]",
    "methods": "[GET, HEAD]",
    "paths": "['/repos/**']",
}


def load_policy(path: str | pathlib.Path) -> Policy:
    """
    Read and compile the policy in a file.

    Raises:
        PolicyError: The file can't be read, is larger than 1 MiB, isn't UTF-8, or isn't a valid policy.
    """
    source = str(path)
    try:
        with pathlib.Path(path).open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as e:
        what = (e.strerror or type(e).__name__).lower()
        raise PolicyFileError(source, f"can't be read: {what}; give the path of a policy file") from e
    except ValueError:  # a NUL in the path
        raise PolicyFileError(source, "is not a path; give the path of a policy file") from None
    if len(data) > MAX_SIZE:
        raise _too_large(source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise PolicyFileError(source, f"is not UTF-8 (byte {e.start}); save it as UTF-8") from e
    return parse_policy(text, source)


def parse_policy(text: str, source: str = "policy.yaml") -> Policy:
    """
    Compile a policy.

    Args:
        text: YAML 1.2, at most 1 MiB of it.
        source: What errors and events call it.

    Raises:
        PolicyError: With every problem that was found, in the order of the text.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) > MAX_SIZE:
        raise _too_large(source)
    tree = read_tree(text, source)
    document = None
    if not isinstance(tree.value, dict):
        what = "is empty" if tree.value is None else "is not a mapping"
        tree.complain(tree.at(()), (), f"{what}; a policy that denies everything is 'version: 1'")
    else:
        try:
            document = PolicyDocument.model_validate(tree.value)
        except ValidationError as e:
            _complain(tree, e)
        for path, message in contradictions(tree.value.get("rules")):
            tree.complain(tree.at_key(path), path, message)
    if tree.problems or document is None:
        raise PolicyError(source, tuple(tree.problems))
    rules = tuple(_rule(i, rule, tree) for i, rule in enumerate(document.rules))
    return Policy(
        rules=rules,
        default=Verdict(document.default),
        network=Network(tuple(document.network.allow_addresses), Dns(document.network.dns)),
        hash=hashlib.sha256(data).hexdigest()[:16],
        source=source,
        index=build_index(rule.patterns for rule in rules),
    )


def _too_large(source: str) -> PolicyError:
    return PolicyFileError(source, "is larger than 1 MiB; use wildcards and networks instead of long lists")


def _rule(index: int, rule: RuleDocument, tree: Tree) -> Rule:
    where: Path = ("rules", index)
    listed: Path = (*where, rule.verdict.value)
    return Rule(
        index=index,
        name=rule.name or None,
        verdict=rule.verdict,
        patterns=tuple(rule.patterns),
        ports=tuple(sorted(rule.ports)) or (EVERY_PORT if rule.verdict is Verdict.DENY else WEB_PORTS),
        methods=frozenset(rule.methods),
        paths=tuple(rule.paths),
        protocol=Protocol(rule.protocol),
        dns=Dns(rule.dns) if rule.dns else None,
        dns_types=frozenset(rule.dns_types),
        position=tree.at(where),
        pattern_positions=tuple(tree.at((*listed, i)) for i in range(len(rule.patterns))),
    )


def _complain(tree: Tree, error: ValidationError) -> None:
    for found in error.errors(include_url=False):
        path: Path = found["loc"]
        if found["type"] == "extra_forbidden":
            tree.complain(tree.at_key(path), path, _unknown_key(path))
        else:
            tree.complain(tree.at(path), path, _message(path, found))


def _unknown_key(path: Path) -> str:
    key = str(path[-1])
    if key in UNSUPPORTED and path[0] == ("credentials" if key == "credentials" else "rules"):
        return UNSUPPORTED[key]
    known = list(_keys(path[:-1]))
    near = difflib.get_close_matches(key, known, n=1) or difflib.get_close_matches(key.lower(), known, n=1)
    if near:
        return f"{key!r} is not a key; write {near[0]!r}"
    elsewhere = [".".join((*place, key)) for place in ((), ("rules[]",), ("network",)) if key in _keys(place)]
    if elsewhere:
        return f"{key!r} is not a key here, it belongs to {elsewhere[0].rpartition('.')[0] or 'the top of the file'}"
    return f"{key!r} is not a key; known are {', '.join(known)}"


def _keys(place: Path) -> Iterator[str]:
    model: type[BaseModel] = PolicyDocument
    if place:
        model = NetworkDocument if place[0] == "network" else RuleDocument
    yield from model.model_fields


def _message(path: Path, found: Any) -> str:
    key = str(path[-1]) if path else ""
    value = found["input"]
    match found["type"]:
        case "value_error":
            return str(found["ctx"]["error"])
        case "missing":
            return f"is missing; write '{_EXAMPLES.get(key, key)}'"
        case "too_short":
            return f"is empty; write {_EXAMPLES.get(key, 'an item')}, or leave it out"
        case "list_type":
            one = (
                isinstance(value, str | int) and not isinstance(value, bool) and key not in ("rules", "allow_addresses")
            )
            return f"must be a list; write {[value]!r}" if one else f"must be a list; write {_EXAMPLES.get(key, '[…]')}"
        case "model_type" | "model_attributes_type" | "dict_type":
            example = _EXAMPLES["network"] if key == "network" else f"{VERDICTS[0]}: {_EXAMPLES['allow']}"
            return f"must be a mapping; write {example}"
        case "literal_error" if key == "mode" and value == "audit":
            return "'audit' is not supported yet; write 'enforce', or leave it out"
        case "literal_error":
            expected = str(found["ctx"]["expected"]).replace(", 'real' or ''", " or 'real'")
            return f"must be {expected}, not {value!r}"
    return f"{found['msg']}, not {value!r}"
