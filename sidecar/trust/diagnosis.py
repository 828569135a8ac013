"""From what a client said, and what it could read, to a verdict and to what has to be done."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from sidecar.builtin import TRUST_HOST
from sidecar.trust.clients import Client, Store
from sidecar.trust.env import ENV, pem_variables
from sidecar.trust.fixes import Fix, How, add_to_file, nss_fixes, set_all, set_variable, system_fixes
from sidecar.trust.java_store import java_fixes, java_trust_store
from sidecar.trust.outcomes import Outcome, Said, outcome, plain, words


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file that a client may read. ``holds``: a certificate in it vouches for what the sidecar serves."""

    path: PurePath
    exists: bool = True
    readable: bool = True
    writable: bool = False
    certificates: int = 0
    holds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A client that is there."""

    client: Client
    program: str
    label: str
    default: str | None = None  # the file that it reads where no variable is set, by its own word


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """
    Where the clients run.

    Attributes:
        environment: Their variables.
        trust: The trust folder, where they find it.
        system: The distribution's file with all roots, if there is one.
        update: The distribution's command that makes it, if that can be run.
        look: Facts about a file, by its path.
        no_proxy: Whether ``NO_PROXY`` holds for the built-in host.
        home: The user's.
    """

    environment: Mapping[str, str]
    trust: PurePath
    system: File | None
    update: str | None
    look: Callable[[str], File]
    no_proxy: bool
    home: PurePath

    @property
    def bare(self) -> bool:
        """Whether the trust folder's variables are all there to be set, and none has been."""
        return (
            self.look(str(self.trust / ENV)).exists and not self.environment.keys() & pem_variables(self.trust).keys()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The verdict on one client. ``read`` is what it went by; ``why`` one sentence; ``fixes`` in the order to apply."""

    client: str
    label: str
    program: str
    outcome: Outcome
    read: str
    why: str = ""
    fixes: tuple[Fix, ...] = ()


def diagnose(found: Found, said: Said, scene: Scene) -> Finding:
    """Judge one client. What it said is quoted only where it explains nothing else."""
    result = outcome(found.client, said)
    reading = _reading(found, said, scene)
    if result in (Outcome.FAILED, Outcome.UNREACHABLE) and reading.leads_nowhere:
        result = Outcome.UNTRUSTED  # each client has its own words for a file that isn't there
    why, fixes = "", tuple[Fix, ...]()
    if result is Outcome.UNTRUSTED:
        why, fixes = _untrusted(found, said, scene, reading)
    elif result is not Outcome.TRUSTED and scene.no_proxy:
        result = Outcome.BYPASSED
        why = "NO_PROXY names the built-in host, or all hosts: what it names doesn't go through the sidecar"
        fixes = (_less_no_proxy(scene.environment),)
    elif result is Outcome.UNREACHABLE and _upper_case_only(scene.environment):
        why = "it reads the proxy's variable in lower case only, or finds no proxy there"
        fixes = (Fix(How.SET, 'export https_proxy="$HTTPS_PROXY"'),)  # the URL may hold a password
    elif result is Outcome.TIMED_OUT:
        why = "it had not ended in time; try --timeout-seconds, or run it by itself"
    elif result is not Outcome.TRUSTED:
        why = words(said.text) or f"it ended with exit code {said.code} and said nothing"
    if not all(fix.text.isprintable() for fix in fixes):
        why, fixes = f"{why}; a path in its fix has control characters", ()
    return Finding(
        client=found.client.name,
        label=plain(found.label),
        program=plain(found.program),
        outcome=result,
        read=plain(reading.text),
        why=plain(why),
        fixes=fixes,
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a client goes by: a variable and its file, or a file, or neither that we know of."""

    text: str
    file: File | None = None
    variable: str | None = None

    @property
    def leads_nowhere(self) -> bool:
        return self.variable is not None and self.file is not None and not self.file.readable


def _reading(found: Found, said: Said, scene: Scene) -> _Reading:
    client = found.client
    if client.store is Store.JAVA:
        named = java_trust_store(scene.environment)
        if named is not None:
            return _Reading(f"{named.path} by {named.variable}", scene.look(named.path), named.variable)
    name = next((name for name in client.variables if scene.environment.get(name)), None)
    if name is not None:
        path = scene.environment[name]
        return _Reading(f"{name}={path}", scene.look(path), name)
    seen = re.search(client.reads, said.text) if client.reads else None
    if seen is not None:
        return _Reading(f"{seen[1]}, {client.store}", scene.look(seen[1]))
    if client.store is Store.SYSTEM and scene.system is not None:
        return _Reading(f"{scene.system.path}, {client.store}", scene.system)
    if found.default is not None:
        return _Reading(f"{found.default}, {client.store}", scene.look(found.default))
    return _Reading(str(client.store))


def _untrusted(found: Found, said: Said, scene: Scene, reading: _Reading) -> tuple[str, tuple[Fix, ...]]:
    client, file = found.client, reading.file
    if client.store is Store.JAVA:
        return _java(scene, reading.variable, file)
    if client.store is Store.NSS:
        return "it reads an NSS database of its own, and no variable", nss_fixes(scene.trust, scene.home)
    if reading.variable is not None and file is not None:
        return _variable(client, said, scene, reading.variable, file)
    known = [name for name in client.variables if name in pem_variables(scene.trust)]
    if known:
        fix = set_all(scene.trust) if scene.bare else set_variable(known[0], scene.trust)
        assert fix is not None
        return f"{known[0]} isn't set" if not known[1:] else f"none of {', '.join(known)} is set", (fix,)
    if file is not None and file.holds:
        return f"{file.path} has the session CA, and yet: {words(said.text)}", ()
    return (
        "it reads no variable; the system's file "
        + ("isn't there" if scene.system is None else "lacks the session CA")
        + ("" if scene.system is None or scene.system.writable else ", and is read-only"),
        _system_fixes(scene),
    )


def _variable(client: Client, said: Said, scene: Scene, name: str, file: File) -> tuple[str, tuple[Fix, ...]]:
    """A variable is set, and leads to nothing, to something unreadable, or to a file without the session CA."""
    ours = set_variable(name, scene.trust)
    beaten = [other for other in client.variables if other != name and _is_ours(other, scene)]
    wins = f", and it wins over {' and '.join(beaten)}" if beaten else ""
    if not file.exists:
        problem = f"{name} names {file.path}, which isn't there{wins}"
    elif not file.readable:
        problem = f"{name} names {file.path}, which this user can't read{wins}"
    elif not file.holds:
        problem = f"{name} is set to {file.path}, which lacks the session CA{wins}"
        if scene.system is not None and file.path == scene.system.path:
            return problem, _system_fixes(scene)
        if file.writable and file.certificates and not client.adds:
            return problem, (add_to_file(file.path, scene.trust),)  # nothing of the user's is lost
        if file.certificates and ours is not None and not client.adds:
            problem += f"; of its {file.certificates} certificates, those that aren't public roots are needed, too"
    else:
        return f"{name} names {file.path}, which has the session CA, and yet: {words(said.text)}", ()
    if ours is None:
        return problem, (Fix(How.SET, f"unset {name}"),)
    return problem, (ours,)


def _is_ours(name: str, scene: Scene) -> bool:
    path = scene.environment.get(name)
    return bool(path) and scene.look(path or "").holds


def _java(scene: Scene, variable: str | None, file: File | None) -> tuple[str, tuple[Fix, ...]]:
    """Java reads one keystore: its own, or the one that a variable names, whose certificates are to be kept."""
    there = file is not None and file.exists
    if variable is None:
        problem = "it reads a keystore of its own, neither PEM files nor their variables"
    elif file is not None and not there:
        problem = f"{variable} names {file.path}, which isn't there"
    else:
        problem = f"the keystore that {variable} names lacks the session CA, or can't be read"
    keystores = (scene.look(str(scene.trust / name)) for name in ("truststore.p12", "truststore.jks"))
    ready = None if variable is not None and there else next((k.path for k in keystores if k.exists), None)
    return problem, java_fixes(
        store=file.path if file is not None and there else None,
        writable=file is not None and file.writable,
        ready=ready,
        trust=scene.trust,
        environment=scene.environment,
        variable=variable or "JAVA_TOOL_OPTIONS",
    )


def bypasses(no_proxy: str, host: str) -> bool:
    """Whether *no_proxy*, as most clients read it, names *host*: by itself, by a domain that it is in, or by ``*``."""
    entries = (
        entry.strip().lower().lstrip("*").lstrip(".") for entry in re.split(r"[,\s]+", no_proxy) if entry.strip()
    )
    return any(entry == "" or host == entry or host.endswith(f".{entry}") for entry in entries)


def _upper_case_only(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("HTTPS_PROXY")) and not environment.get("https_proxy")


def _less_no_proxy(environment: Mapping[str, str]) -> Fix:
    name = next(name for name in ("no_proxy", "NO_PROXY") if environment.get(name))
    kept = [e for e in re.split(r"[,\s]+", environment[name]) if e and not bypasses(e, TRUST_HOST)]
    return Fix(How.SET, f"export NO_PROXY={shlex.quote(','.join(kept))} no_proxy={shlex.quote(','.join(kept))}")


def _system_fixes(scene: Scene) -> tuple[Fix, ...]:
    path, writable = (scene.system.path, scene.system.writable) if scene.system is not None else (None, False)
    return system_fixes(path, writable, scene.update, scene.trust)
