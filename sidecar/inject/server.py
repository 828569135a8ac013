"""The webhook on HTTPS, its health beside it on plain HTTP; it follows changes of certificate and configuration."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from sidecar.errors import CannotRun, SidecarError
from sidecar.hosts import IPAddress
from sidecar.inject.certificates import ServingCertificate
from sidecar.inject.config import Config
from sidecar.inject.load import parse_config
from sidecar.inject.review import ReviewError, Webhook, answer, parse_review

MAX_BODY: Final = 8 * 1024 * 1024  # bytes: an object of etcd's limit and its former state, with room
_LOOK_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class ConfigFile:
    """The configuration in force; a change that can't be used is logged, and changes nothing."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            ConfigError: The file isn't a configuration.
            CannotRun: It can't be read.
        """
        self._path, self._text, self._refused = path, _read_text(path), ""
        self.config: Config = parse_config(self._text, str(path))

    def reload(self) -> bool:
        """Whether another configuration is in force from now on."""
        try:
            text = _read_text(self._path)
            if text == self._text:
                return False
            self.config = parse_config(text, str(self._path))
        except SidecarError as e:
            if str(e) != self._refused:
                _log.error("%s; going on with the last good configuration", e)
            self._refused = str(e)
            return False
        self._text, self._refused = text, ""
        _log.warning("%s: the new configuration is in force", self._path)
        return True


class Metrics:
    """Bounded labels only: webhook and verdict."""

    def __init__(self, certificate: ServingCertificate) -> None:
        self.registry = CollectorRegistry()
        self.reviews = Counter(
            "egress_inject_reviews", "Reviews by verdict.", ("webhook", "verdict"), registry=self.registry
        )
        self.seconds = Histogram(
            "egress_inject_review_seconds", "Time to answer.", ("webhook",), registry=self.registry
        )
        expiry = Gauge(
            "egress_inject_certificate_not_after_seconds", "End of the serving certificate.", registry=self.registry
        )
        expiry.set_function(lambda: certificate.not_after.timestamp())


@dataclass(slots=True)
class Webhooks:
    """What the two applications share."""

    certificate: ServingCertificate
    file: ConfigFile
    stopping: bool = False
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.certificate)

    def reasons(self) -> list[str]:
        """Why it isn't ready."""
        found = ["stopping"] if self.stopping else []
        return found + (["certificate"] if self.certificate.expired() else [])


def webhook_app(shared: Webhooks) -> web.Application:
    """
    ``POST /mutate`` and ``POST /validate``; ``POST /mutate/trust`` for namespaces that aren't opted in.

    The last injects no sidecar, whatever the configuration says of a namespace.
    """

    def handler(webhook: Webhook) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            with shared.metrics.seconds.labels(webhook).time():
                return _answered(shared, webhook, await request.read())

        return handle

    app = web.Application(client_max_size=MAX_BODY)
    app.on_response_prepare.append(_unsigned)
    paths: dict[str, Webhook] = {"/mutate": "mutate", "/mutate/trust": "trust", "/validate": "validate"}
    app.add_routes([web.post(path, handler(webhook)) for path, webhook in paths.items()])
    return app


def health_app(shared: Webhooks) -> web.Application:
    """``GET /livez``, ``/readyz`` (503 with the reasons) and ``/metrics``."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def readyz(_: web.Request) -> web.Response:
        reasons = shared.reasons()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(shared.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=1024)
    app.on_response_prepare.append(_unsigned)
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


def _answered(shared: Webhooks, webhook: Webhook, body: bytes) -> web.Response:
    try:
        made = answer(webhook, parse_review(body), shared.file.config)
    except ReviewError as e:
        shared.metrics.reviews.labels(webhook, "unreadable").inc()
        return web.json_response({"error": str(e)}, status=400)
    except Exception:
        # Neither a yes nor a no: the API server's failurePolicy decides, as it does when nobody answers.
        _log.exception("a review could not be answered")
        shared.metrics.reviews.labels(webhook, "error").inc()
        return web.json_response({"error": "internal error"}, status=500)
    response = made["response"]
    verdict = "refused" if not response["allowed"] else "patched" if "patch" in response else "allowed"
    shared.metrics.reviews.labels(webhook, verdict).inc()
    return web.json_response(made)


@asynccontextmanager
async def serving(shared: Webhooks, webhook: socket.socket, health: socket.socket) -> AsyncIterator[None]:
    """
    Serve on two listening sockets while the block runs; then let requests that have begun end.

    The certificate and the configuration are looked at once a second.
    """
    async with AsyncExitStack() as stack:
        for app, listener, context in (
            (health_app(shared), health, None),
            (webhook_app(shared), webhook, shared.certificate.context),
        ):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=10)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, listener, ssl_context=context).start()
        looking = asyncio.create_task(_look(shared))
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking


async def serve(
    shared: Webhooks, webhook: socket.socket, health: socket.socket, until: Callable[[], Awaitable[None]], drain: float
) -> None:
    """
    Serve until *until* ends.

    Then first be not ready, and go on answering for *drain* seconds, until nobody sends reviews here any more.
    """
    async with serving(shared, webhook, health):
        await until()
        shared.stopping = True
        await asyncio.sleep(drain)


def listen(address: IPAddress, port: int) -> socket.socket:
    """
    A listening TCP socket; on ``::`` for IPv4 as well.

    Raises:
        CannotRun: The port is taken, or the address isn't this machine's.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address.is_unspecified:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((str(address), port))
        listener.listen(512)
    except OSError as e:
        listener.close()
        raise CannotRun(f"{address} port {port}: {e.strerror}; choose another one with --listen") from None
    listener.setblocking(False)
    return listener


async def _look(shared: Webhooks) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            shared.certificate.reload()
            shared.file.reload()
        except Exception:  # our bug; but not to look again would be found out when the certificate has expired
            _log.exception("certificate or configuration could not be looked at")


async def _unsigned(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)  # versions of libraries are nobody's business


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise CannotRun(f"{path}: {(e.strerror or '').lower()}; mount the webhook's configuration there") from None
    except UnicodeDecodeError:
        raise CannotRun(f"{path} is not UTF-8; save it as UTF-8") from None
