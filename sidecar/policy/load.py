"""From YAML to a `Policy`, or to one error that names every problem of the file."""

import hashlib
import pathlib

from pydantic import ValidationError

from sidecar.policy.document import (
    PolicyDocument,
    RuleDocument,
    UpstreamDocument,
    contradictions,
    upstream_contradictions,
)
from sidecar.policy.index import build_index
from sidecar.policy.messages import complain
from sidecar.policy.problems import Path, PolicyError, PolicyFileError
from sidecar.policy.rules import EVERY_PORT, WEB_PORTS, Dns, Network, Policy, Protocol, Rule, Verdict
from sidecar.policy.tree import Tree, read_tree
from sidecar.policy.upstreams import NamedFile, Upstream

MAX_SIZE = 1024 * 1024  # bytes


def load_policy(path: str | pathlib.Path, known: Policy | None = None) -> Policy:
    """
    Read and compile the policy in a file; or give *known*, if the file holds its very text.

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
    if known is not None and (known.hash, known.source) == (_hash(text.encode()), source):
        return known
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
            complain(tree, e)
        found = [*contradictions(tree.value.get("rules")), *upstream_contradictions(tree.value.get("upstreams"))]
        for path, message in found:
            tree.complain(tree.at_key(path), path, message)
    if tree.problems or document is None:
        raise PolicyError(source, tuple(tree.problems))
    rules = tuple(_rule(i, rule, tree) for i, rule in enumerate(document.rules))
    return Policy(
        rules=rules,
        default=Verdict(document.default),
        network=Network(tuple(document.network.allow_addresses), Dns(document.network.dns)),
        hash=_hash(data),
        source=source,
        index=build_index(rule.patterns for rule in rules),
        upstreams=tuple(_upstream(i, entry, tree) for i, entry in enumerate(document.upstreams)),
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


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


def _upstream(index: int, entry: UpstreamDocument, tree: Tree) -> Upstream:
    where: Path = ("upstreams", index)

    def named(path: str, *keys: str) -> NamedFile | None:
        return NamedFile(path, (*where, *keys), tree.at((*where, *keys))) if path else None

    return Upstream(
        index=index,
        patterns=tuple(entry.hosts),
        roots=named(entry.roots, "roots"),
        add_roots=named(entry.add_roots, "add_roots"),
        client_certificate=named(entry.client_certificate.certificate, "client_certificate", "certificate"),
        client_key=named(entry.client_certificate.key, "client_certificate", "key"),
        crl=named(entry.crl, "crl"),
        accept=frozenset(entry.accept),
        position=tree.at(where),
        pattern_positions=tuple(tree.at((*where, "hosts", i)) for i in range(len(entry.hosts))),
    )
