"""The control API from the other side, as the fence check uses it."""

import errno
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from sidecar.control.messages import announcement_json, report_json
from sidecar.errors import CannotRun
from sidecar.fence.plan import Listener
from sidecar.fence.verdict import Report

_TIMEOUT = aiohttp.ClientTimeout(total=5)


class Unreachable(CannotRun):
    """No sidecar answers on the control socket."""


class ControlClient:
    """Speaks to the sidecar behind a control socket; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(str(self._path))
        self._session = aiohttp.ClientSession("http://sidecar", connector=connector, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def started(self) -> bool:
        return bool((await self._ask("GET", "/v1/status"))["started"])

    async def listeners(self) -> tuple[Listener, ...]:
        status = await self._ask("GET", "/v1/status")
        return tuple(Listener(entry["kind"], entry["address"]) for entry in status["listeners"])

    async def announce(self, nonces: Sequence[str]) -> None:
        await self._ask("POST", "/v1/canaries", announcement_json(tuple(nonces)))

    async def seen(self, nonce: str) -> bool:
        return bool((await self._ask("GET", f"/v1/canaries/{nonce}"))["seen"])

    async def report(self, report: Report) -> None:
        await self._ask("POST", "/v1/fence", report_json(report))

    async def _ask(self, method: str, path: str, body: str | None = None) -> Any:
        try:
            async with self._session.request(method, path, data=body) as answer:
                if answer.status == 204:
                    return None
                content = await answer.json(content_type=None)
                if answer.status != 200:
                    raise Unreachable(f"{self._path}: the sidecar answered {answer.status} to {method} {path}")
                return content
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as e:
            if getattr(e, "errno", None) in (errno.EACCES, errno.EPERM):
                text = "this user may not use it; run the check in the sidecar's group, with --control-socket-mode 0660"
                raise Unreachable(f"{self._path}: {text}") from None
            why = getattr(e, "strerror", None) or str(e) or type(e).__name__
            text = f"{self._path}: no sidecar answers there ({why}); start it with --control-socket {self._path}"
            raise Unreachable(text) from None
