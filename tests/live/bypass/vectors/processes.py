"""Becoming the sidecar, changing the rules, taking its sockets: held by what the workload may not have."""

from tests.live.bypass import places
from tests.live.bypass.vector import REFUSED, WITHOUT_ADMIN, WITHOUT_SETUID, WITHOUT_TRACING, Vector
from tests.live.pod import SIDECAR_UID

_GATEWAY = "10.77.0.1"


def _process(
    id: str,
    probe: str,
    *arguments: object,
    precondition: str,
    shown: bool = False,
    through: str | None = None,
    expected: tuple[str, ...] = REFUSED,
) -> Vector:
    return Vector(
        id=id,
        probe=f"processes.{probe}",
        arguments=arguments,
        expected=expected,
        precondition=precondition,
        shown=shown,
        through=through,
    )


VECTORS = (
    _process(
        "setuid() to the sidecar's user", "become", SIDECAR_UID, places.V4, precondition=WITHOUT_SETUID, shown=True
    ),
    _process("setfsuid() to it", "set_file_user", SIDECAR_UID, places.V4, precondition=WITHOUT_SETUID, shown=True),
    _process(
        *("a user namespace that maps it", "mapped", SIDECAR_UID, places.V4),
        precondition=WITHOUT_SETUID,
        shown=True,
    ),
    _process(
        *("a setuid file that belongs to it", "run_as_owner", "{program}", places.V4),
        precondition="no privilege escalation",
        shown=True,
        expected=("UID 0", "UID 1000"),
    ),
    _process("flushing the rules", "flush", precondition=WITHOUT_ADMIN, through="exit 0"),
    _process("a rule of one's own ahead of the fence", "add_rule", precondition=WITHOUT_ADMIN, through="exit 0"),
    _process("a route of one's own", "add_route", precondition=WITHOUT_ADMIN, through="exit 0"),
    _process("a network device of one's own", "tunnel_device", precondition=WITHOUT_ADMIN, through="made"),
    _process(
        *("entering another network namespace", "enter", "{internet}", _GATEWAY),
        precondition="no SYS_ADMIN",
        through="entered row-",
    ),
    _process("a BPF program", "load_program", precondition="no BPF, no SYS_ADMIN", through="loaded"),
    _process("tracing the sidecar", "trace", "{sidecar}", precondition=WITHOUT_TRACING, through="attached"),
    _process(
        "taking a socket of the sidecar", "take_socket", "{sidecar}", precondition=WITHOUT_TRACING, through="taken"
    ),
    _process("the sidecar's memory", "read_memory", "{sidecar}", precondition=WITHOUT_TRACING, through="opened"),
)
