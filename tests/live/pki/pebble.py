"""Pebble, an ACME server for tests (RFC 8555), on loopback; and an order placed with it by a real client."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from acme import challenges, crypto_util, messages
from acme.client import ClientNetwork, ClientV2
from acme.standalone import HTTP01RequestHandler, HTTP01Server
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from josepy.jwk import JWKRSA

from tests.live.sidecars import until
from tests.live.upstreams import Root

type Resources = set[HTTP01RequestHandler.HTTP01Resource]


@dataclass(frozen=True)
class Pebble:
    """A running server; every name leads it to 127.0.0.1."""

    directory: str
    management: str
    trust: Path  # the root of its own HTTPS
    resources: Resources  # what is answered below /.well-known/acme-challenge

    def root(self) -> bytes:
        """The root under which it issues: another one at each start."""
        context = ssl.create_default_context(cafile=str(self.trust))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with closing(opener.open(f"{self.management}/roots/0", timeout=60)) as answer:
            pem: bytes = answer.read()
        return pem

    def issue(self, host: str) -> bytes:
        """Order a certificate for *host*, prove it over HTTP-01; key, certificate and chain as PEM."""
        account = JWKRSA(key=rsa.generate_private_key(65537, 2048))
        network = ClientNetwork(account, verify_ssl=str(self.trust), timeout=60)  # type: ignore[arg-type]  # a file, too
        network.session.trust_env = False
        client = ClientV2(ClientV2.get_directory(self.directory, network), network)
        client.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        order = client.new_order(crypto_util.make_csr(key, domains=[host]))
        offered = [c for c in order.authorizations[0].body.challenges if isinstance(c.chall, challenges.HTTP01)]
        response, validation = offered[0].response_and_validation(network.key)
        self.resources.add(HTTP01RequestHandler.HTTP01Resource(offered[0].chall, response, validation))
        client.answer_challenge(offered[0], response)
        return key + client.poll_and_finalize(order).fullchain_pem.encode()


@contextmanager
def serving(folder: Path) -> Iterator[Pebble]:
    """Run Pebble, its resolver, and the server that answers its challenges."""
    for tool in ("pebble", "pebble-challtestsrv"):
        if shutil.which(tool) is None:
            if os.environ.get("CI"):
                pytest.fail(f"needs {tool} (Debian's package pebble)")
            pytest.skip(f"needs {tool}")
    resources: Resources = set()
    root, (acme, management, dns, dns_management) = Root(folder), _free_ports(4)
    with ExitStack() as stack:
        challenged = HTTP01Server(("127.0.0.1", 0), resources)
        stack.callback(challenged.server_close)
        threading.Thread(target=challenged.serve_forever, daemon=True).start()
        stack.callback(challenged.shutdown)
        own = folder / "pebble.pem"
        own.write_bytes(root.server_pem("127.0.0.1"))
        configuration = {
            "listenAddress": f"127.0.0.1:{acme}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(own),
            "privateKey": str(own),
            "httpPort": challenged.server_address[1],
            "tlsPort": 1,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": configuration}))
        resolver = ["pebble-challtestsrv", "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{dns_management}"]
        resolver += ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]
        stack.enter_context(_process(resolver, folder / "resolver.log", "Starting management server"))
        server = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
        stack.enter_context(_process(server, folder / "pebble.log", "ACME directory available"))
        yield Pebble(f"https://127.0.0.1:{acme}/dir", f"https://127.0.0.1:{management}", root.pem, resources)


@contextmanager
def _process(command: list[str], log: Path, started: str) -> Iterator[None]:
    variables = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=variables)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return started in log.read_text()

    try:
        until(ready, f"{started!r} in {log}")
        yield
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
