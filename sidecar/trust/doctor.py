"""``sidecar trust doctor``: each client there is makes one request through the sidecar; who trusts it, and why not?"""

import asyncio
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath
from shutil import rmtree, which

from cryptography import x509

from sidecar.builtin import TRUST_HOST
from sidecar.trust import scripts
from sidecar.trust.clients import DOTNET, Client
from sidecar.trust.diagnosis import File, Finding, Found, Scene, bypasses, diagnose
from sidecar.trust.discovery import PATH, discover
from sidecar.trust.env import BUNDLE, CA, env_variables
from sidecar.trust.reach import Proxy, parse_proxy, served_chain
from sidecar.trust.runs import Runner
from sidecar.trust.vouching import certificates_of, vouches

# Where distributions keep all roots in one file: Debian, Alpine; Fedora, RHEL; SUSE; old ones; macOS, BSD, distroless.
SYSTEM_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
TRUST = PurePath("/etc/egress/trust")
# Compiled from Probe.java beside it, since a Java runtime alone has no compiler; read before there is another root.
_PROBE = files("sidecar.trust").joinpath("java", "Probe.class").read_bytes()
_MOST_BYTES = 16 << 20  # of a file that a variable names
_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to examine. ``proxy``: None as the environment has it; ``trust``: None where the variables lead."""

    proxy: str | None = None
    trust: PurePath | None = None
    only: frozenset[str] = frozenset()
    seconds: float = 30.0
    at_once: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found. ``mounted``: the trust folder is there, and its CA is the one that the sidecar serves."""

    proxy: str | None
    trust: str
    mounted: bool
    findings: tuple[Finding, ...]

    @property
    def trusted(self) -> bool:
        return bool(self.findings) and all(finding.outcome == "trusted" for finding in self.findings)


def examine(order: Order, environment: Mapping[str, str]) -> Report:
    """
    Examine the clients of this root, in *environment*.

    Raises:
        SidecarError: The proxy's URL can't be used.
        CannotRun: The sidecar can't be reached.
    """
    variables = dict(environment)
    if order.proxy is not None:
        variables |= dict.fromkeys((*_PROXY_VARIABLES, "http_proxy", "HTTP_PROXY"), order.proxy)
    named = next((variables[name] for name in _PROXY_VARIABLES if variables.get(name)), None)
    proxy = parse_proxy(named) if named is not None else None
    chain = served_chain(proxy, order.seconds)
    look = cache(_looker(chain))
    trust = order.trust or _trust_folder(variables, look)
    folder = Path(tempfile.mkdtemp(prefix="egress-doctor-"))
    try:
        (folder / "Probe.class").write_bytes(_PROBE)
        (folder / "probe.fsx").write_text(DOTNET)
        scene = Scene(
            environment=variables,
            trust=trust,
            system=next((file for path in SYSTEM_FILES if (file := look(path)).exists), None),
            update=_update(variables),
            look=look,
            no_proxy=proxy is not None and bypasses(_no_proxy(variables), TRUST_HOST),
            home=PurePath(variables.get("HOME") or "/"),
        )
        findings = asyncio.run(_examine(order, scene, proxy, folder))
    finally:
        rmtree(folder, ignore_errors=True)
    return Report(
        proxy=proxy.name if proxy else None,
        trust=str(trust),
        mounted=look(str(trust / CA)).holds and look(str(trust / BUNDLE)).holds,
        findings=findings,
    )


async def _examine(order: Order, scene: Scene, proxy: Proxy | None, folder: Path) -> tuple[Finding, ...]:
    runner = Runner(scene.environment, folder, order.seconds, order.at_once)
    values = {
        "url": f"https://{TRUST_HOST}/",
        "host": TRUST_HOST,
        "folder": str(folder),
        "proxy": proxy.url if proxy else "",
        "proxy_host": proxy.host if proxy else "",
        "proxy_port": str(proxy.port) if proxy else "",
        "pac": "",
        "no_sandbox": "--no-sandbox" if os.geteuid() == 0 else "",
    }
    if proxy is not None:
        values["pac"] = "--proxy-pac-url=" + fill(
            scripts.PAC, {"host": TRUST_HOST, "way": f"PROXY {proxy.host}:{proxy.port}"}
        )

    async def one(found: Found) -> Finding | None:
        client = found.client
        said = await runner.run([found.program, *_arguments(client, values)], **_settings(client, values))
        if client.absent and re.search(client.absent, said.text):
            return None
        return diagnose(found, said, scene)

    found = await discover(scene.environment, order.only, runner)
    return tuple(f for f in await asyncio.gather(*(one(each) for each in found)) if f is not None)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Fill in ``{name}`` for the names in *values*; other braces are a program's own."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), text)


def _arguments(client: Client, values: Mapping[str, str]) -> list[str]:
    return [filled for argument in client.request if (filled := fill(argument, values))]


def _settings(client: Client, values: Mapping[str, str]) -> dict[str, str]:
    return {name: fill(value, values) for name, value in client.settings}


def _looker(chain: list[x509.Certificate]) -> Callable[[str], File]:
    def look(path: str) -> File:
        try:
            # Whoever chose the path may have put a pipe there, which would keep us waiting.
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
                regular = stat.S_ISREG(os.fstat(opened.fileno()).st_mode)
                content = opened.read(_MOST_BYTES) if regular else b""
        except IsADirectoryError:
            return File(path=PurePath(path))
        except PermissionError:
            return File(path=PurePath(path), readable=False)
        except (OSError, ValueError):
            return File(path=PurePath(path), exists=False, readable=False)
        certificates = certificates_of(content)
        return File(
            path=PurePath(path),
            writable=regular and os.access(path, os.W_OK),
            certificates=len(certificates),
            holds=vouches(certificates, chain),
        )

    return look


def _trust_folder(environment: Mapping[str, str], look: Callable[[str], File]) -> PurePath:
    """Where a variable leads that the trust folder's ``env`` sets, if the session CA is there; else the usual place."""
    for name in env_variables(TRUST):
        path = PurePath(environment.get(name, ""))
        if path.name in (CA, BUNDLE) and path.is_absolute() and look(str(path.parent / CA)).holds:
            return path.parent
    return TRUST


def _update(environment: Mapping[str, str]) -> str | None:
    path = environment.get("PATH") or PATH
    for name in ("update-ca-certificates", "update-ca-trust"):
        if which(name, path=path):
            return name
        if found := which(name, path=PATH):  # where an ordinary user doesn't look
            return found
    return None


def _no_proxy(environment: Mapping[str, str]) -> str:
    return environment.get("no_proxy") or environment.get("NO_PROXY") or ""
