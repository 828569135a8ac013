"""One fence check: ask the sidecar what it listens on, announce the canaries, send them, judge, report back."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

from sidecar.control.client import ControlClient, Unreachable
from sidecar.fence.plan import NAME, Listener, plan
from sidecar.fence.probe import probe, surroundings
from sidecar.fence.verdict import Report, judge
from sidecar.hosts import Authority

_RETRY_SECONDS = 0.1


async def check(
    control: Path, *, name: str = NAME, allowed: Sequence[Authority] = (), wait_seconds: float = 10.0
) -> Report:
    """
    Check the fence of the network namespace that this process runs in, and tell the sidecar the result.

    Args:
        control: The sidecar's control socket.
        name: A name that policy denies.
        allowed: Destinations that policy allows and must be reached.
        wait_seconds: How long to wait for a sidecar that is still starting.

    Raises:
        Unreachable: There is no sidecar behind the socket.
    """
    async with ControlClient(control) as client:
        listeners = await _started(client, wait_seconds)
        around = surroundings()
        canaries = plan(listeners, name=name, allowed=allowed, links=around.links)
        nonces = [secrets.token_hex(16) for _ in canaries]
        await client.announce([n for canary, n in zip(canaries, nonces, strict=True) if canary.has_nonce])
        observations = await asyncio.gather(*(probe(c, n, name) for c, n in zip(canaries, nonces, strict=True)))
        listening = {listener.address for listener in await client.listeners()}
        results = [
            judge(
                canary,
                observation,
                arrived=canary.has_nonce and await client.seen(nonce),
                listening=canary.target in listening,
                versions=around.versions,
            )
            for canary, nonce, observation in zip(canaries, nonces, observations, strict=True)
        ]
        report = Report(tuple(results))
        await client.report(report)
        return report


async def _started(client: ControlClient, wait_seconds: float) -> tuple[Listener, ...]:
    """The sidecar's listeners, once it has any."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_seconds
    while True:
        try:
            if await client.started():
                return await client.listeners()
            error = Unreachable("the sidecar has not opened its listeners yet; look at its log")
        except Unreachable as e:
            error = e
        if loop.time() >= deadline:
            raise error
        await asyncio.sleep(_RETRY_SECONDS)
