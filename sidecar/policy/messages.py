"""What is wrong with a policy's document, in words that say what to write instead."""

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from sidecar.policy.document import (
    UNSUPPORTED,
    VERDICTS,
    ClientCertificateDocument,
    NetworkDocument,
    PolicyDocument,
    RuleDocument,
    UpstreamDocument,
)
from sidecar.policy.problems import Path
from sidecar.policy.tree import Tree

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
    "upstreams": "upstreams: [{hosts: ['db.example.com'], roots: db-ca.pem}]",
    "hosts": "hosts: ['db.example.com']",
    "client_certificate": "client_certificate: {certificate: tls.crt, key: tls.key}",
    "certificate": "certificate: tls.crt",
    "key": "key: tls.key",
    "accept": "[ca_leaf]",
}


def complain(tree: Tree, error: ValidationError) -> None:
    """Put what pydantic has found among the tree's problems, in this project's words."""
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
    places: tuple[Path, ...] = ((), ("rules[]",), ("network",), ("upstreams[]",))
    elsewhere = [".".join(map(str, (*place, key))) for place in places if key in _keys(place)]
    if elsewhere:
        return f"{key!r} is not a key here, it belongs to {elsewhere[0].rpartition('.')[0] or 'the top of the file'}"
    return f"{key!r} is not a key; known are {', '.join(known)}"


def _keys(place: Path) -> Iterator[str]:
    model: type[BaseModel]
    match place:
        case ():
            model = PolicyDocument
        case ("network", *_):
            model = NetworkDocument
        case ("upstreams", _, "client_certificate", *_):
            model = ClientCertificateDocument
        case ("upstreams" | "upstreams[]", *_):
            model = UpstreamDocument
        case _:
            model = RuleDocument
    yield from model.model_fields


def _message(path: Path, found: Any) -> str:
    key = str(path[-1]) if path else ""
    value = found["input"]
    match found["type"]:
        case "value_error":
            message = str(found["ctx"]["error"])
            return (
                message.partition(", and ports: [")[0].partition(" and ports: [")[0] if "upstreams" in path else message
            )
        case "missing":
            return f"is missing; write '{_EXAMPLES.get(key, key)}'"
        case "too_short":
            return f"is empty; write {_EXAMPLES.get(key, 'an item')}, or leave it out"
        case "list_type":
            one = (
                isinstance(value, str | int)
                and not isinstance(value, bool)
                and key not in ("rules", "allow_addresses", "upstreams")
            )
            return f"must be a list; write {[value]!r}" if one else f"must be a list; write {_EXAMPLES.get(key, '[…]')}"
        case "model_type" | "model_attributes_type" | "dict_type":
            if key in ("network", "client_certificate"):
                example = _EXAMPLES[key]
            elif "upstreams" in path:
                example = _EXAMPLES["hosts"]
            else:
                example = f"{VERDICTS[0]}: {_EXAMPLES['allow']}"
            return f"must be a mapping; write {example}"
        case "literal_error" if key == "mode" and value == "audit":
            return "'audit' is not supported yet; write 'enforce', or leave it out"
        case "literal_error":
            expected = str(found["ctx"]["expected"]).replace(", 'real' or ''", " or 'real'")
            return f"must be {expected}, not {value!r}"
    return f"{found['msg']}, not {value!r}"
