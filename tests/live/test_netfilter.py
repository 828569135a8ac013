"""
The fence in real namespaces, with small listeners in the sidecar's place.

Every vector is also run in a pod without the fence: where it doesn't get through there, it shows nothing.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from sidecar.addresses import SYNTHETIC_V4, SYNTHETIC_V6
from sidecar.errors import Exit
from sidecar.hosts import IPAddress
from sidecar.netfilter.ruleset import Ruleset
from tests.live.pod import (
    FORBIDDEN_CAPABILITIES,
    GATEWAY_LINK_LOCAL,
    GATEWAY_V4,
    INTERNET_V4,
    INTERNET_V6,
    POD_V4,
    POD_V6,
    SIDECAR_UID,
    WORKLOAD_UID,
    Namespace,
    Pod,
    Process,
    pods,
)

pytestmark = [pytest.mark.live, pytest.mark.root]

V4, OTHER_V4 = INTERNET_V4[:2]
V6, OTHER_V6 = INTERNET_V6[:2]

# Answers on each `kind/address/port` with its own name and, after a redirect, where the client wanted to go.
SERVER: Final = """
import socket, struct, sys, threading
name, *binds = sys.argv[1:]
def wanted(c):
    v4 = c.family == socket.AF_INET
    try: raw = c.getsockopt(*((0, 80, 16) if v4 else (41, 80, 28)))  # SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST
    except OSError: return ""
    at = socket.inet_ntop(c.family, raw[4:8] if v4 else raw[8:24]), struct.unpack("!H", raw[2:4])[0]
    return "" if at == c.getsockname()[:2] else " for {} {}".format(*at)
def tcp(s):
    while True:
        c, _ = s.accept()
        threading.Thread(target=talk, args=(c,), daemon=True).start()
def talk(c):
    c.sendall((name + wanted(c)).encode())
    while data := c.recv(4096): c.sendall(data)
def udp(s):
    while True:
        data, peer = s.recvfrom(4096)
        s.sendto(name.encode(), peer)
for bind in binds:
    kind, address, port = bind.split("/")
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, getattr(socket, kind))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in address: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((address, int(port)))
    if kind == "SOCK_STREAM": s.listen()
    threading.Thread(target=tcp if kind == "SOCK_STREAM" else udp, args=(s,), daemon=True).start()
print("ready")
sys.stdin.read()
"""

# Prints what comes of one attempt: the answer, or the error's name; and the milliseconds that it took.
PROBE: Final = """
import errno, json, socket, sys, time
kind, address, port, *rest = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
icmp = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
types = {
    "tcp": (socket.SOCK_STREAM, 0), "mptcp": (socket.SOCK_STREAM, 262), "udp": (socket.SOCK_DGRAM, 0),
    "udplite": (socket.SOCK_DGRAM, 136), "ping": (socket.SOCK_DGRAM, icmp), "gre": (socket.SOCK_RAW, 47),
    "rawicmp": (socket.SOCK_RAW, icmp), "rawtcp": (socket.SOCK_RAW, 6),
}
began = time.monotonic()
try:
    s = socket.socket(family, *types[kind])
    s.settimeout(2)
    if rest and rest[0] == "bound": s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    if rest and rest[0] == "rthdr":  # a type 4 routing header by way of another address
        s.setsockopt(41, 57, bytes([0, 4, 4, 1, 1, 0, 0, 0]) + socket.inet_pton(family, rest[1]) * 2)
    if rest and rest[0] == "from":
        s.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
        s.bind((rest[1], int(rest[2])))
    if rest and rest[0] == "port": s.bind(("", int(rest[1])))
    target = socket.getaddrinfo(address, int(port))[0][4]
    if kind in ("gre", "rawicmp", "rawtcp"):
        syn = b"\\x9c\\x40\\x01\\xbb" + bytes(8) + b"\\x50\\x02\\xff\\xff" + bytes(4)
        s.sendto({"gre": b"\\0\\0\\x08\\0hello", "rawicmp": b"\\x03\\x01" + bytes(30), "rawtcp": syn}[kind], target)
        said = "sent"
    else:
        s.connect(target)
        echo = 128 if family == socket.AF_INET6 else 8  # also the text of datagrams
        if "tcp" not in kind: s.send(bytes([echo]) + bytes(7))
        said = s.recv(200).decode("latin-1")
except OSError as e:
    said = errno.errorcode.get(e.errno, "timeout") if e.errno else "timeout"
print(json.dumps([said, round((time.monotonic() - began) * 1000)]))
"""

# Everything but neighbour discovery that arrives at the Internet, told when a packet from the harness is seen.
SNIFFER: Final = """
import json, socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
s.bind(("eth0", 3))
print("ready")
seen = []
while True:
    data, (_, ethertype, direction, *_) = s.recvfrom(65535)
    if direction == socket.PACKET_OUTGOING or ethertype not in (0x0800, 0x86DD): continue
    if ethertype == 0x0800: proto, at, src, dst = data[9], (data[0] & 15) * 4, data[12:16], data[16:20]
    else: proto, at, src, dst = data[6], 40, data[8:24], data[24:40]
    if ethertype == 0x86DD and proto == 58 and data[at] in (130, 131, 132, 133, 134, 135, 136, 143): continue
    if ethertype == 0x86DD and proto == 0: continue  # hop-by-hop: listener reports
    if proto == 17 and data[at + 8:] == b"what have you seen?":
        print(json.dumps(seen)); seen = []; continue
    family = socket.AF_INET if ethertype == 0x0800 else socket.AF_INET6
    seen.append([proto, socket.inet_ntop(family, src), socket.inet_ntop(family, dst)])
"""

ASK: Final = """
import socket, sys
socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM).sendto(
    b"what have you seen?", (sys.argv[1], 7))
"""


class Internet:
    """The other side of the link: servers that answer, and what they could have seen."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        addresses = (*(INTERNET_V4 if pod.ipv4 else ()), *(INTERNET_V6 if pod.ipv6 else ()))
        ports = (("SOCK_STREAM", 443), ("SOCK_STREAM", 5432), ("SOCK_DGRAM", 443), ("SOCK_DGRAM", 53))
        # Bound to each, or UDP would be answered from the gateway's address.
        pod.internet.serve(SERVER, "internet", *(f"{kind}/{at}/{port}" for at in addresses for kind, port in ports))
        self._sniffer = pod.internet.serve(SNIFFER)

    def seen(self) -> list[list[Any]]:
        """Packets as [protocol, source, destination], since the last time; all that left before this call."""
        self._pod.python(ASK, V4 if self._pod.ipv4 else V6, uid=SIDECAR_UID).check_returncode()
        packets: list[list[Any]] = json.loads(self._sniffer.line())
        return packets


@dataclass(frozen=True)
class Scene:
    pod: Pod
    internet: Internet


def probe(where: Namespace, *arguments: str, uid: int | None = WORKLOAD_UID) -> tuple[str, int]:
    """The answer or the error's name, and milliseconds."""
    result = where.run([sys.executable, "-c", PROBE, *arguments], uid=uid)
    assert result.returncode == 0, result.stderr
    said, ms = json.loads(result.stdout)
    return said, ms


def sidecar_netfilter(pod: Pod, *arguments: str, drop: tuple[str, ...] = ()) -> tuple[int, str]:
    """Exit code and output of the real command."""
    code = "import sys; from sidecar.cli import main; sys.argv[0] = 'sidecar'; main()"
    result = pod.run([sys.executable, "-c", code, "netfilter", *arguments], drop=drop, timeout=60)
    return result.returncode, result.stdout + result.stderr


def fence(pod: Pod, ruleset: Ruleset | None = None) -> None:
    pod.run(["nft", "-f", "-"], input=(ruleset or Ruleset()).text(), check=True)


def stand_ins(pod: Pod) -> Process:
    """The sidecar's listeners, as its user."""
    return pod.serve(
        SERVER,
        "sidecar",
        *(
            f"{kind}/{loopback}/{port}"
            for loopback in ("127.0.0.1", "::1")
            for kind, port in (
                ("SOCK_STREAM", 14100),
                ("SOCK_STREAM", 14101),
                ("SOCK_STREAM", 14102),
                ("SOCK_STREAM", 14153),
                ("SOCK_DGRAM", 14153),
                ("SOCK_STREAM", 14120),
            )
        ),
        uid=SIDECAR_UID,
    )


def _open_sockets_for_ping(pod: Pod) -> None:
    pod.sysctl(**{"net.ipv4.ping_group_range": "0 2147483647"})


@pytest.fixture(scope="module")
def unfenced() -> Iterator[Scene]:
    with pods() as pod:
        _open_sockets_for_ping(pod)
        yield Scene(pod, Internet(pod))


@pytest.fixture(scope="module")
def fenced() -> Iterator[Scene]:
    with pods() as pod:
        _open_sockets_for_ping(pod)
        fence(pod)
        stand_ins(pod)
        yield Scene(pod, Internet(pod))


@pytest.fixture
def bare() -> Iterator[Pod]:
    with pods() as pod:
        yield pod


@pytest.mark.parametrize("port", [22, 443, 14102])
@pytest.mark.parametrize("address", [V4, V6, OTHER_V4, str(SYNTHETIC_V4[77]), str(SYNTHETIC_V6[77])])
def test_tcp_reaches_the_sidecar_with_its_original_destination(fenced: Scene, address: str, port: int) -> None:
    for uid in (WORKLOAD_UID, 0):
        assert probe(fenced.pod, "tcp", address, str(port), uid=uid)[0] == f"sidecar for {address} {port}"


@pytest.mark.parametrize("address", [V4, V6])
def test_without_the_fence_tcp_reaches_the_internet(unfenced: Scene, address: str) -> None:
    assert probe(unfenced.pod, "tcp", address, "443")[0] == "internet"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", [V4, V6])
def test_the_sidecar_passes(fenced: Scene, address: str, kind: str) -> None:
    assert probe(fenced.pod, kind, address, "443", uid=SIDECAR_UID)[0] == "internet"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("server", [V4, V6, "127.0.0.53", "169.254.20.10", "10.96.0.10", "::1"])
def test_whichever_server_is_asked_for_a_name_the_sidecar_answers(fenced: Scene, server: str, kind: str) -> None:
    assert probe(fenced.pod, kind, server, "53")[0].startswith("sidecar")


REFUSED: Final = ("EPERM", "ECONNREFUSED", "EACCES", "EHOSTUNREACH")
AT_ONCE_MS: Final = 700  # without the fence's answer the probe waits for 2000


@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize("first", ["workload", "sidecar"])
def test_a_source_port_that_both_use_mixes_no_questions_up(fenced: Scene, address: str, first: str) -> None:
    uids = {"workload": WORKLOAD_UID, "sidecar": SIDECAR_UID}
    order = (first, *(name for name in uids if name != first), first)
    port = "40053" if first == "workload" else "40054"

    answers = [probe(fenced.pod, "udp", address, "53", "port", port, uid=uids[name])[0] for name in order]

    expected = {"workload": "sidecar", "sidecar": "internet"}
    assert answers == [expected[name] for name in order]


@dataclass(frozen=True)
class Vector:
    arguments: tuple[str, ...]
    uid: int | None = WORKLOAD_UID
    outcomes: tuple[str, ...] = REFUSED


VECTORS: Final = [
    pytest.param(Vector(("udp", V4, "443")), id="QUIC"),
    pytest.param(Vector(("udp", V6, "443")), id="QUIC by IPv6"),
    pytest.param(Vector(("udp", V6, "443"), uid=0), id="QUIC as root"),
    pytest.param(Vector(("ping", V4, "0")), id="ping"),
    pytest.param(Vector(("ping", V6, "0")), id="ping by IPv6"),
    pytest.param(Vector(("udplite", V4, "443")), id="UDP-Lite"),
    pytest.param(Vector(("udplite", V6, "443")), id="UDP-Lite by IPv6"),
    pytest.param(Vector(("udp", "224.0.0.251", "5353")), id="multicast"),
    pytest.param(Vector(("udp", "ff02::fb%eth0", "5353")), id="multicast by IPv6"),
    pytest.param(Vector(("udp", str(GATEWAY_V4), "443")), id="UDP to the gateway"),
    pytest.param(Vector(("tcp", f"{GATEWAY_LINK_LOCAL}%eth0", "443")), id="TCP to the gateway's link-local address"),
    pytest.param(Vector(("udp", V6, "443", "rthdr", OTHER_V6)), id="IPv6 source routing"),
    pytest.param(Vector(("tcp", V4, "443", "bound"), outcomes=("timeout",)), id="TCP bound to the link"),
    pytest.param(Vector(("tcp", V6, "443", "bound"), outcomes=("timeout",)), id="TCP bound to the link, IPv6"),
    pytest.param(Vector(("tcp", "127.0.0.1", "443", "bound"), outcomes=("timeout",)), id="the node's loopback"),
    pytest.param(Vector(("udp", "127.0.0.1", "443", "bound")), id="the node's loopback by UDP"),
    pytest.param(Vector(("udp", V4, "53", "bound"), outcomes=("EPERM", "timeout")), id="DNS bound to the link"),
    pytest.param(Vector(("udp", V6, "53", "bound"), outcomes=("EPERM", "timeout")), id="DNS bound to the link, IPv6"),
    pytest.param(Vector(("udp", V6, "53", "from", OTHER_V6, "7777")), id="DNS whose answer would go elsewhere"),
    pytest.param(
        Vector(("tcp", V6, "443", "from", OTHER_V6, "7777"), outcomes=(*REFUSED, "timeout")), id="TCP likewise"
    ),
    pytest.param(Vector(("gre", V4, "0"), uid=None), id="GRE, with NET_RAW"),
    pytest.param(Vector(("gre", V6, "0"), uid=None), id="GRE by IPv6, with NET_RAW"),
    pytest.param(Vector(("rawicmp", V4, "0"), uid=None), id="an ICMP error made by hand, with NET_RAW"),
    pytest.param(Vector(("mptcp", V4, "443"), outcomes=(f"sidecar for {V4} 443",)), id="multipath TCP"),
    pytest.param(Vector(("mptcp", V6, "443"), outcomes=(f"sidecar for {V6} 443",)), id="multipath TCP by IPv6"),
    pytest.param(Vector(("rawtcp", V4, "0"), uid=None, outcomes=("sent", *REFUSED)), id="a raw SYN, with NET_RAW"),
]


@pytest.mark.parametrize("vector", VECTORS)
def test_nothing_leaves(fenced: Scene, vector: Vector) -> None:
    fenced.internet.seen()

    said, ms = probe(fenced.pod, *vector.arguments, uid=vector.uid)

    assert said in vector.outcomes
    assert fenced.internet.seen() == []
    if "timeout" not in vector.outcomes:
        assert ms < AT_ONCE_MS


@pytest.mark.parametrize("vector", VECTORS)
def test_the_same_leaves_without_the_fence(unfenced: Scene, vector: Vector) -> None:
    unfenced.internet.seen()

    probe(unfenced.pod, *vector.arguments, uid=vector.uid)

    assert unfenced.internet.seen() != []


# A packet "from" outside to the pod's own address, then an answer to it: two sockets that any process may make.
REPLY_TO_A_LIE: Final = """
import socket, sys
outside, own, out = sys.argv[1], sys.argv[2], []
inside = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); inside.bind((own, 9999)); inside.settimeout(1)
liar = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); liar.setsockopt(41, 78, 1); liar.bind((outside, 4443))
for act in (lambda: liar.sendto(b"knock", (own, 9999)), lambda: inside.sendto(b"secret", (outside, 4443))):
    try: act()
    except OSError as e: out.append(type(e).__name__)
print(out)
"""


def test_a_packet_with_a_source_outside_opens_no_way_out(fenced: Scene, unfenced: Scene) -> None:
    unfenced.internet.seen()
    unfenced.pod.python(REPLY_TO_A_LIE, V6, str(POD_V6), uid=WORKLOAD_UID)
    assert unfenced.internet.seen() == [[17, str(POD_V6), V6]]
    fenced.internet.seen()

    said = fenced.pod.python(REPLY_TO_A_LIE, V6, str(POD_V6), uid=WORKLOAD_UID).stdout

    assert fenced.internet.seen() == []
    assert said.count("PermissionError") == 2


@pytest.mark.parametrize("uid", [pytest.param(WORKLOAD_UID, id="user"), pytest.param(0, id="root")])
@pytest.mark.parametrize("port", ["14100", "14102", "14153"])
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::ffff:127.0.0.1", str(POD_V4), str(POD_V6)]
)
def test_the_workload_does_not_reach_the_sidecars_own_ports(fenced: Scene, address: str, port: str, uid: int) -> None:
    assert probe(fenced.pod, "tcp", address, port, uid=uid)[0] == "ECONNREFUSED"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_of_the_sidecars_ports_proxy_and_health_are_open(fenced: Scene, address: str) -> None:
    for port in ("14101", "14120"):
        assert probe(fenced.pod, "tcp", address, port)[0] == "sidecar"
    assert probe(fenced.pod, "tcp", address, "14102", uid=SIDECAR_UID)[0] == "sidecar"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", str(POD_V4), str(POD_V6)])
def test_the_pod_talks_to_itself(fenced: Scene, address: str) -> None:
    server = fenced.pod.serve(
        SERVER, "itself", f"SOCK_STREAM/{address}/8181", f"SOCK_DGRAM/{address}/8181", uid=WORKLOAD_UID
    )

    assert probe(fenced.pod, "tcp", address, "8181")[0] == "itself"
    assert probe(fenced.pod, "udp", address, "8181")[0] == "itself"
    server.kill()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Pod, id="both families"),
        pytest.param(partial(Pod, ipv6=False), id="IPv4 only"),
        pytest.param(partial(Pod, ipv4=False), id="IPv6 only"),
    ],
)
def test_what_comes_in_is_answered_with_a_cold_neighbour_cache(make: type[Pod]) -> None:
    with pods(make) as pod:
        fence(pod)
        own = [str(address) for address, v in ((POD_V4, 4), (POD_V6, 6)) if v in pod.families]
        binds = [f"{kind}/{address}/8080" for kind in ("SOCK_STREAM", "SOCK_DGRAM") for address in own]
        pod.serve(SERVER, "workload", *binds, uid=WORKLOAD_UID)

        for address in own:
            for kind in ("tcp", "udp"):
                for side in (pod, pod.internet):
                    side.ip("neighbour", "flush", "dev", "eth0")
                assert probe(pod.internet, kind, address, "8080")[0] == "workload"
            # The kernel refuses a closed port itself, with a packet that no process owns.
            assert probe(pod.internet, "tcp", address, "8088")[0] == "ECONNREFUSED"
            assert probe(pod.internet, "udp", address, "8088")[0] == "ECONNREFUSED"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(partial(Pod, ipv6=False), id="IPv4 only"),
        pytest.param(partial(Pod, ipv4=False), id="IPv6 only"),
        pytest.param(partial(Pod, default_route=False), id="no default route"),
    ],
)
def test_synthetic_addresses_of_both_families_work_in_every_pod(make: type[Pod]) -> None:
    with pods(make) as pod:
        stand_ins(pod)
        addresses = (str(SYNTHETIC_V4[77]), str(SYNTHETIC_V6[77]))
        fence(pod)
        assert "ENETUNREACH" in {probe(pod, "tcp", address, "443")[0] for address in addresses}

        code, said = sidecar_netfilter(pod)

        assert (code, said.count("\n")) == (Exit.YES, 1), said
        for address in addresses:
            assert probe(pod, "tcp", address, "443")[0] == f"sidecar for {address} 443"


# What it has received it acknowledges at once. An acknowledgement that the rules held back would be asked for again,
# and the reset that a closed socket answers with carries nothing, but is a packet.
CONNECTED: Final = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
tcp = socket.create_connection((sys.argv[1], 443), 3); tcp.recv(100)
def acknowledge(): tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
acknowledge()
udp = socket.socket(family, socket.SOCK_DGRAM); udp.settimeout(3); udp.connect((sys.argv[1], 443))
udp.send(b"hello"); udp.recv(100)
print("ready")
for line in sys.stdin:
    for s in (tcp, udp):
        try: s.send(b"more"); said = s.recv(100).decode(); acknowledge(); print(said)
        except OSError as e: print(type(e).__name__)
"""


@pytest.mark.parametrize("tracked", [pytest.param(True, id="tracked"), pytest.param(False, id="not tracked before")])
@pytest.mark.parametrize("address", [V4, V6])
def test_a_connection_from_before_the_rules_does_not_go_on(bare: Pod, address: str, tracked: bool) -> None:
    internet = Internet(bare)
    stand_ins(bare)
    if tracked:
        before = (
            "table inet before { chain output { type filter hook output priority 0; ct state established accept; }; }"
        )
        bare.run(["nft", "-f", "-"], input=before, check=True)
    workload = bare.serve(CONNECTED, address, uid=WORKLOAD_UID)
    workload.say("")
    assert [workload.line(), workload.line()] == ["more", "internet"]
    fence(bare)
    internet.seen()

    workload.say("")

    assert workload.line() in ("ConnectionResetError", "TimeoutError")
    assert workload.line() in ("PermissionError", "ConnectionRefusedError")
    assert internet.seen() == []


# Fills its send buffer, closes, and is gone: what the kernel still has to send belongs to nobody.
CLOSES_EARLY: Final = """
import socket, sys
s = socket.create_connection((sys.argv[1], 9090), 3); s.setblocking(False)
sent = 0
try:
    while sent < 4_000_000: sent += s.send(bytes(65536))
except BlockingIOError: pass
s.close(); print(sent, flush=True)
"""
READS_LATE: Final = """
import socket, sys
listener = socket.create_server((sys.argv[1], 9090), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("ready")
s, _ = listener.accept(); sys.stdin.readline(); s.settimeout(10)
got = 0
while data := s.recv(65536): got += len(data)
print(got)
"""


@pytest.mark.parametrize("address", [V4, V6])
def test_what_the_sidecar_wrote_before_it_closed_still_arrives(fenced: Scene, address: str) -> None:
    server = fenced.pod.internet.serve(READS_LATE, address)

    sent = fenced.pod.python(CLOSES_EARLY, address, uid=SIDECAR_UID).stdout.strip()
    server.say("now")

    assert int(sent) > 100_000
    assert server.line() == sent
    server.kill()


def test_an_exemption_passes_and_its_neighbour_does_not(bare: Pod) -> None:
    _open_sockets_for_ping(bare)
    Internet(bare)
    stand_ins(bare)

    code, said = sidecar_netfilter(
        bare, "--exclude-cidr", f"{V4}/32", "--exclude-cidr", f"{V6}/128", "--exclude-port", "5432"
    )

    assert code == Exit.YES, said
    for exempt, other in ((V4, OTHER_V4), (V6, OTHER_V6)):
        assert probe(bare, "tcp", exempt, "443")[0] == "internet"
        assert probe(bare, "udp", exempt, "443")[0] == "internet"
        assert probe(bare, "tcp", other, "5432")[0] == "internet"
        assert probe(bare, "tcp", other, "443")[0] == f"sidecar for {other} 443"
        assert probe(bare, "udp", other, "443")[0] in REFUSED
        assert probe(bare, "udp", exempt, "53")[0] == "sidecar"
        assert probe(bare, "ping", other, "0")[0] in REFUSED
        assert probe(bare, "tcp", "127.0.0.1", "14102")[0] == "ECONNREFUSED"
    # From an exempt host on to another one.
    assert probe(bare, "udp", OTHER_V6, "443", "rthdr", V6)[0] in REFUSED


@pytest.mark.parametrize(
    ("beyond", "gateway"), [("192.0.2.99", POD_V4), ("2001:db8:99::99", POD_V6)], ids=["IPv4", "IPv6"]
)
def test_the_pod_forwards_nothing(bare: Pod, beyond: str, gateway: IPAddress) -> None:
    internet = Internet(bare)
    bare.sysctl(**{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
    bare.internet.ip("route", "add", beyond, "via", str(gateway))
    probe(bare.internet, "udp", beyond, "443")
    assert [packet for packet in internet.seen() if packet[2] == beyond]

    fence(bare)
    probe(bare.internet, "udp", beyond, "443")

    assert [packet for packet in internet.seen() if packet[2] == beyond] == []


def test_rules_stay_when_the_sidecar_dies_and_nothing_flows_then(bare: Pod) -> None:
    internet = Internet(bare)
    fence(bare)
    sidecar = stand_ins(bare)
    assert probe(bare, "tcp", V4, "443")[0] == f"sidecar for {V4} 443"

    sidecar.kill()
    internet.seen()

    assert probe(bare, "tcp", V4, "443")[0] == "ECONNREFUSED"
    assert probe(bare, "tcp", V6, "443")[0] == "ECONNREFUSED"
    assert probe(bare, "udp", V4, "53")[0] == "ECONNREFUSED"
    assert internet.seen() == []


def test_apply_check_and_remove(bare: Pod) -> None:
    assert sidecar_netfilter(bare, "--check")[0] == Exit.NO

    assert sidecar_netfilter(bare)[0] == Exit.YES
    assert sidecar_netfilter(bare)[0] == Exit.YES
    tables = bare.run(["nft", "list", "tables"], check=True).stdout
    assert tables == "table inet egress_sidecar\n"
    assert sidecar_netfilter(bare, "--check") == (Exit.YES, "in force\n")
    assert bare.run(["nft", "list", "tables"], check=True).stdout == tables
    code, said = sidecar_netfilter(bare, "--check", "--json", "--sidecar-uid", "4711")
    assert (code, json.loads(said)["in_force"]) == (Exit.NO, False)

    assert sidecar_netfilter(bare, "--remove") == (Exit.YES, "removed\n")
    assert bare.run(["nft", "list", "ruleset"], check=True).stdout == ""
    assert sidecar_netfilter(bare, "--remove") == (Exit.YES, "there were no rules\n")


def test_remove_takes_its_routes_and_no_others() -> None:
    with pods(partial(Pod, default_route=False)) as pod:
        before = pod.ip("route"), pod.ip("-6", "route")
        sidecar_netfilter(pod)
        assert (pod.ip("route"), pod.ip("-6", "route")) != before

        sidecar_netfilter(pod, "--remove")

        assert (pod.ip("route"), pod.ip("-6", "route")) == before


@pytest.mark.parametrize(
    "tampering",
    [
        pytest.param("flush chain inet egress_sidecar capture", id="a flushed chain"),
        pytest.param("add rule inet egress_sidecar capture accept", id="an added rule"),
        pytest.param("insert rule inet egress_sidecar output accept", id="a rule in front"),
        pytest.param("add chain inet egress_sidecar output { policy accept; }", id="another policy"),
        pytest.param("add table inet egress_sidecar { flags dormant; }", id="a dormant table"),
        pytest.param("delete table inet egress_sidecar", id="no table"),
    ],
)
def test_check_notices(bare: Pod, tampering: str) -> None:
    check = "from sidecar.netfilter import apply as a, ruleset as r; print(len(a.check(r.Ruleset())))"
    fence(bare)
    assert bare.python(check).stdout == "0\n"

    bare.run(["nft", "-f", "-"], input=tampering, check=True)

    assert int(bare.python(check).stdout) > 0


def test_without_the_capability_it_says_so(bare: Pod) -> None:
    for arguments in ((), ("--check",), ("--remove",)):
        code, said = sidecar_netfilter(bare, *arguments, drop=("net_admin",))

        assert code == Exit.CANNOT_RUN
        assert "NET_ADMIN" in said


def test_the_capability_alone_suffices(bare: Pod) -> None:
    every = Path("/proc/sys/kernel/cap_last_cap").read_text()
    others = tuple(f"cap_{n}" for n in range(int(every) + 1) if n not in (2, 12))  # DAC_READ_SEARCH: the test's paths

    assert sidecar_netfilter(bare, drop=others)[0] == Exit.YES


def test_what_a_workload_may_not_have_leaves_root_no_way_to_become_the_sidecar(fenced: Scene) -> None:
    become = "import os; os.setgroups([]); os.setuid(int(__import__('sys').argv[1]))"

    assert fenced.pod.python(become, str(SIDECAR_UID), uid=0).returncode == 0
    result = fenced.pod.python(become, str(SIDECAR_UID), uid=0, drop=FORBIDDEN_CAPABILITIES)

    assert "PermissionError" in result.stderr
