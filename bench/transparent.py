"""
New connections in transparent mode: a pod's namespace with its fence, the workload's client, and an upstream behind it.

The namespaces are those of the live tests (`tests.live.pod`). It needs root; without, the row stays empty.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.measure import samples, under_load
from bench.names import KNOWN
from bench.plan import Plan
from bench.processes import PATIENCE_SECONDS, on_cpu, stop, two_cpus
from bench.proxies import Contestant, Proxy, mitmdump_command, sidecar_command, takes_part
from bench.rows import Row
from bench.samples import Sample
from bench.upstream import Upstream, serving
from bench.wire import Load
from sidecar.netfilter.ruleset import Ruleset

PORT = 14100  # where the fence sends what it redirects


def possible() -> bool:
    tools = all(shutil.which(tool, path=f"{os.defpath}:/usr/sbin:/sbin") for tool in ("ip", "nft", "setpriv"))
    return os.geteuid() == 0 and tools


def redirected(folder: Path, plan: Plan, tell: Callable[[str], None]) -> Iterator[Sample]:
    """The row's samples: contestants in pods of their own, which take turns."""
    contestants = [c for c in plan.contestants if takes_part(c, Row.TRANSPARENT)]
    with ExitStack() as stack:
        scenes = {c: stack.enter_context(_scene(c, folder / f"pod-{c}")) for c in contestants}
        for number in range(plan.rounds):
            for contestant in contestants if number % 2 else reversed(contestants):
                tell(f"round {number + 1} of {plan.rounds}: {Row.TRANSPARENT.label}, {contestant}")
                proxy, upstream, inside = scenes[contestant]
                load = Load(
                    row=Row.TRANSPARENT,
                    proxy_port=0,
                    upstream_port=upstream.port,
                    live_port=upstream.live_port,
                    ca_file=str(proxy.ca_file),
                    seconds=plan.seconds,
                    resolve=True,
                )
                yield from samples(Row.TRANSPARENT, contestant, under_load(load, proxy, inside), load)


@contextmanager
def _scene(contestant: Contestant, folder: Path) -> Iterator[tuple[Proxy, Upstream, list[str]]]:
    """A pod with one proxy in it; what starts a client there."""
    from tests.live.pod import INTERNET_V4, SIDECAR_UID, WORKLOAD_UID, Pod  # with pytest: for nobody else

    cpu, load_cpu = two_cpus()
    folder.mkdir()
    folder.chmod(0o755)
    with Pod(ipv6=False) as pod, ExitStack() as stack:
        address = INTERNET_V4[0]
        outside = pod.internet.command([])
        upstream = stack.enter_context(serving(folder / "upstream", load_cpu, inside=outside, address=address))
        pod.run(["nft", "-f", "-"], input=Ruleset().text(), check=True)
        pod.resolv_conf(f"nameserver {address}\n")
        place = folder / "proxy"
        place.mkdir()
        if contestant is Contestant.SIDECAR:
            command, ca_file = sidecar_command(place, upstream, "127.0.0.1:14101")
            command += ["--transparent", "--fence", "off"]
        else:
            pod.hosts(f"127.0.0.1 localhost\n{address} {KNOWN}\n")
            command, ca_file = mitmdump_command(place, upstream, PORT)
            command += ["--mode", "transparent"]
        for path in (place, *place.rglob("*")):
            os.chown(path, SIDECAR_UID, SIDECAR_UID)
        log = place / "log.txt"
        with log.open("w") as output, on_cpu(cpu):
            process = subprocess.Popen(
                pod.command(command, uid=SIDECAR_UID),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )
        stack.callback(stop, process)
        proxy = Proxy(contestant, process.pid, PORT, ca_file, log)
        # Which port listens in the pod is asked there; names are served a moment later.
        listens = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 1)"
        answers = f"import socket; socket.gethostbyname({KNOWN!r})"
        deadline = time.monotonic() + PATIENCE_SECONDS * 3
        for probe, uid in ((listens, SIDECAR_UID), (answers, WORKLOAD_UID)):
            while pod.run([sys.executable, "-c", probe], uid=uid).returncode:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise proxy.error(f"{contestant} doesn't listen in the pod")
                time.sleep(0.1)
        yield proxy, upstream, pod.command([], uid=WORKLOAD_UID)
