"""The sidecar's listeners, dialled directly: only the proxy and health are for the workload."""

from tests.live.bypass.vector import REFUSED, Vector
from tests.live.pod import POD_V4, POD_V6


def _own(address: str, port: int, what: str) -> Vector:
    return Vector(
        id=f"{what} at {address}",
        probe="streams.silent",
        arguments=(address, port),
        expected=REFUSED,
        through="sidecar's port",
    )


VECTORS = (
    *(
        _own(address, port, what)
        for port, what in ((14100, "the transparent listener"), (14102, "the control port"), (14153, "the resolver"))
        for address in ("127.0.0.1", "::1", "0.0.0.0", "127.0.0.53", "::ffff:127.0.0.1", str(POD_V4), str(POD_V6))
    ),
)
