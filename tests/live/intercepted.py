"""
The whole of transparent mode as one scene: a pod behind the fence, the sidecar in it, and an Internet with servers.

    zone = Zone({"api.example.com": INTERNET_V4[:1]})
    with intercepted(policy=POLICY, zone=zone) as scene:
        done = scene.run("curl", "https://api.example.com/")

The Internet has HTTP on port 80 and HTTPS on 443 for every name of the zone, which answer with the files of
``scene.www / NAME`` or else with a greeting, and a resolver that knows the zone and nothing else. It writes down each
request and each DNS question that reaches it: what isn't there hasn't left the pod.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from aiohttp import web
from mitmproxy import dns
from mitmproxy.net.dns import response_codes, types

from tests.live.pod import INTERNET_V4, INTERNET_V6, SIDECAR_UID, WORKLOAD_UID, Namespace, Pod, Process, pods
from tests.live.sidecars import Line, Sidecar, check_lines, make_trust
from tests.live.upstreams import Root
from tests.live.wire import environment

RESOLVER_V4, RESOLVER_V6 = INTERNET_V4[2], INTERNET_V6[2]
SYSTEM_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"  # Debian's and Alpine's
ALLOW_ADDRESSES: Final = 'network: {allow_addresses: ["203.0.113.0/24", "198.51.100.0/24", "2001:db8::/32"]}\n'

_READY: Final = "ready"


@dataclass(frozen=True, kw_only=True)
class Zone:
    """
    What the Internet of a scene knows.

    Attributes:
        names: Each with its addresses; both families may be mixed.
        resolvers: Addresses at which DNS is served; put on the Internet's loopback if they aren't there yet.
        extra_addresses: More addresses of the Internet, e.g. a cluster's service addresses.
    """

    names: Mapping[str, Sequence[str]]
    resolvers: Sequence[str] = (RESOLVER_V4, RESOLVER_V6)
    extra_addresses: Sequence[str] = ()

    def of(self, pod: Pod) -> "Zone":
        """The same without the addresses of a family that *pod* doesn't have."""

        def kept(addresses: Sequence[str]) -> list[str]:
            return [address for address in addresses if ip_address(address).version in pod.families]

        return Zone(
            names={name: kept(addresses) for name, addresses in self.names.items()},
            resolvers=kept(self.resolvers),
            extra_addresses=kept(self.extra_addresses),
        )


@dataclass
class Intercepted:
    """
    A running scene.

    Attributes:
        pod: The namespace of workload and sidecar; ``pod.internet`` is the other one.
        sidecar: The process, its events and its trust folder; another one after `restart`.
        www: What the Internet serves: ``NAME/path``; a folder by its ``index.html``.
        home: The workload's, writable by it.
    """

    pod: Pod
    folder: Path
    zone: Zone
    arguments: Sequence[str]
    sidecar: Sidecar = field(init=False)
    _runs: list[Sidecar] = field(default_factory=list)

    @property
    def www(self) -> Path:
        return self.folder / "internet" / "www"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def trust(self) -> Path:
        return self.folder / "trust"

    @property
    def variables(self) -> dict[str, str]:
        """What the trust folder's ``env`` tells clients; no proxies."""
        return dict(line.split("=", 1) for line in (self.trust / "env").read_text().splitlines())

    def command(self, *words: str, system_trust: bool = False, uid: int = WORKLOAD_UID) -> list[str]:
        """The command line that runs *words* as the workload; *system_trust*: with the bundle at the system's path."""
        if not system_trust:
            return self.pod.command(words, uid=uid)
        mounted = f'mount --bind "$0" {SYSTEM_BUNDLE} && exec "$@"'
        enter, inside = self.pod.command((), uid=None), self.pod.command(words, uid=uid)
        unshared = ["unshare", "--mount", "sh", "-c", mounted, str(self.trust / "bundle.pem")]
        return [*enter, *unshared, *inside[len(enter) :]]

    def environment(self, *, trusting: bool = True, **more: str) -> dict[str, str]:
        own = {"HOME": str(self.home), "TMPDIR": str(self.home), "LANG": "C.UTF-8"}
        return environment() | own | (self.variables if trusting else {}) | more

    def run(
        self,
        *words: str,
        system_trust: bool = False,
        trusting: bool = True,
        uid: int = WORKLOAD_UID,
        timeout: float = 60,
        input: str | None = None,
        cwd: Path | None = None,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the workload, with the trust variables unless *trusting* is false."""
        return subprocess.run(
            self.command(*words, system_trust=system_trust, uid=uid),
            env=self.environment(trusting=trusting, **variables),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd or self.home,
            check=False,
        )

    def popen(self, *words: str, **variables: str) -> Process:
        """Start a program as the workload; its standard input and output are pipes."""
        started = subprocess.Popen(
            self.command(*words),
            env=self.environment(trusting=True, **variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.home,
        )
        return Process(started)

    def requests(self) -> list[Line]:
        """What has reached the Internet's HTTP servers: ``method``, ``host``, ``path``, ``scheme``, ``to``."""
        return _lines(self.folder / "internet" / "requests.jsonl")

    def asked(self) -> list[str]:
        """The names that have reached its resolver."""
        return [str(line["name"]) for line in _lines(self.folder / "internet" / "asked.jsonl")]

    def start(self) -> None:
        """Start the sidecar; its events begin anew."""
        number = len(self._runs)
        events, stderr = self.folder / f"events-{number}.jsonl", self.folder / f"stderr-{number}.txt"
        command = [sys.executable, "-m", "sidecar", "run", "--transparent"]
        command += ["--ca-dir", str(self.folder / "ca"), "--policy", str(self.folder / "policy.yaml")]
        command += ["--upstream-ca", str(self.folder / "internet" / "upstream-root.pem")]
        command += ["--events", str(events), "--drain-seconds", "1", *self.arguments]
        variables = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
        with stderr.open("wb") as log:
            process = subprocess.Popen(
                self.pod.command(command, uid=SIDECAR_UID),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(PYTHONPATH=str(Path(__file__).parents[2])) | variables,
                cwd=self.folder,
            )
        try:
            self.sidecar = Sidecar(process, events, self.trust, stderr)
        except BaseException:
            process.kill()
            process.wait()
            raise
        self._runs.append(self.sidecar)

    def kill(self) -> None:
        """End the sidecar as the kernel would for lack of memory: it does nothing more."""
        self.sidecar.process.kill()
        self.sidecar.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()


def _lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def intercepted(
    *,
    policy: str,
    zone: Zone,
    make: Callable[[], Pod] = Pod,
    resolv_conf: str = f"nameserver {RESOLVER_V4}\n",
    arguments: Sequence[str] = (),
    prepare: Callable[[Pod], None] = lambda _: None,
) -> Iterator[Intercepted]:
    """
    Fence a pod in and start the sidecar; at the end stop it, and check how it ended and its events.

    Args:
        policy: The policy's text.
        zone: What the Internet knows and serves.
        make: Makes the pod.
        resolv_conf: The pod's, as the kubelet writes it: the sidecar's resolvers and the workload's search list.
        arguments: More of ``sidecar run``.
        prepare: Called before the rules are applied, e.g. to look at the pod without them.
    """
    # Not pytest's folder, which is root's alone: the sidecar and the workload are other users.
    with pods(make) as pod, TemporaryDirectory(prefix="egress-") as made:
        folder, zone = Path(made), zone.of(pod)
        folder.chmod(0o755)
        for path in (folder, folder / "home", folder / "internet"):
            path.mkdir(exist_ok=True)
        os.chown(folder, SIDECAR_UID, SIDECAR_UID)
        os.chown(folder / "home", WORKLOAD_UID, WORKLOAD_UID)
        (folder / "policy.yaml").write_text(policy)
        ca, _ = make_trust(folder)
        for path in (ca, *ca.iterdir()):
            os.chown(path, SIDECAR_UID, SIDECAR_UID)

        prepare(pod)
        present = set(INTERNET_V4 + INTERNET_V6)
        for address in dict.fromkeys((*zone.resolvers, *zone.extra_addresses)):
            if address not in present:
                pod.internet.ip("address", "add", address, "dev", "lo")
        (folder / "internet" / "zone.json").write_text(
            json.dumps({"names": dict(zone.names), "resolvers": list(zone.resolvers)})
        )
        internet(pod.internet, folder / "internet")
        pod.resolv_conf(resolv_conf)
        pod.run([sys.executable, "-m", "sidecar", "netfilter"], check=True)

        scene = Intercepted(pod, folder, zone, arguments)
        scene.start()
        try:
            yield scene
            scene.sidecar.stop()
            assert scene.sidecar.process.returncode == 0, scene.sidecar.stderr
            assert "Traceback" not in scene.sidecar.stderr, scene.sidecar.stderr
            check_lines(scene.sidecar.events())
        finally:
            for run in scene._runs:
                if run.process.poll() is None:
                    run.process.kill()
                    run.process.wait()


def internet(namespace: Namespace, folder: Path) -> Process:
    """Start the Internet's servers."""
    process = namespace.popen([sys.executable, "-u", "-m", "tests.live.intercepted", str(folder)])
    assert process.line() == _READY, "the Internet's servers didn't start"
    return process


class _Servers:
    """What runs in the Internet's namespace, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        zone = json.loads((folder / "zone.json").read_text())
        self._folder, self._names, self._resolvers = folder, zone["names"], zone["resolvers"]
        self._requests = (folder / "requests.jsonl").open("a", buffering=1)
        self._asked = (folder / "asked.jsonl").open("a", buffering=1)
        (folder / "www").mkdir(exist_ok=True)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        context = Root(self._folder).context(*self._names)
        await web.TCPSite(runner, None, 443, ssl_context=context).start()
        await web.TCPSite(runner, None, 80).start()
        for address in self._resolvers:
            await asyncio.start_server(self._over_tcp, address, 53)
            await loop.create_datagram_endpoint(lambda: _Datagrams(self._resolve), local_addr=(address, 53))
        print(_READY, flush=True)
        await asyncio.Event().wait()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        to = request.transport.get_extra_info("sockname")[0]
        line = {"method": request.method, "host": request.host, "path": request.path_qs, "scheme": request.scheme}
        self._requests.write(json.dumps({**line, "to": to}) + "\n")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._converse(request)
        own = self._folder / "www" / request.host.partition(":")[0]
        if not own.is_dir():
            return web.Response(text=f"hello from {request.host}\n")
        path = own / request.path.lstrip("/")
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            return web.Response(status=404)
        if path.suffix:
            return web.FileResponse(path)
        body = path.read_bytes()  # an index without a name that tells its type
        return web.Response(body=body, content_type="application/json" if body[:1] == b"{" else "text/plain")

    async def _converse(self, request: web.Request) -> web.StreamResponse:
        """Greet by one message, with what ``/`` says otherwise."""
        page = self._folder / "www" / request.host.partition(":")[0] / "index.html"
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(page.read_text() if page.is_file() else f"hello from {request.host}\n")
        await socket.close()
        return socket

    def _resolve(self, data: bytes) -> bytes:
        query = dns.DNSMessage.unpack(data)
        assert query.question is not None
        name, type_ = query.question.name.lower(), query.question.type
        self._asked.write(json.dumps({"name": name, "type": types.to_str(type_)}) + "\n")
        if name not in self._names:
            return query.fail(response_codes.NXDOMAIN).packed
        version = {types.A: 4, types.AAAA: 6}.get(type_)
        addresses = [ip_address(a) for a in self._names[name]]
        records = [dns.ResourceRecord(name, type_, 1, 60, a.packed) for a in addresses if a.version == version]
        return query.succeed(records).packed

    async def _over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            length = int.from_bytes(await reader.readexactly(2))
            answer = self._resolve(await reader.readexactly(length))
            writer.write(len(answer).to_bytes(2) + answer)
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolve: Callable[[bytes], bytes]) -> None:
        self._resolve = resolve

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._transport.sendto(self._resolve(data), address)


if __name__ == "__main__":
    asyncio.run(_Servers(Path(sys.argv[1])).serve())
