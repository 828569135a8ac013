"""
The sidecar as an outside suite's proxy under test: ``suite_proxy.py PORT UPSTREAM_CA FOLDER HOSTS [ADDRESS…]``.

HOSTS is a file with the hosts to allow, one a line; ``-`` allows all. The ADDRESSes are excepted from the guard;
``accept=WORD`` among them is what every upstream is forgiven.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from sidecar.bootstrap import Order, bootstrap


def main() -> None:
    port, upstream_ca, folder, hosts, *addresses = sys.argv[1:]
    here = Path(folder)
    here.mkdir(parents=True, exist_ok=True)
    bootstrap(Order(common_name="suite", ca_dir=here / "ca", trust_dir=here / "trust"), datetime.now(UTC))
    names = [] if hosts == "-" else Path(hosts).read_text().split()
    policy = {
        "version": 1,
        "default": "allow" if hosts == "-" else "deny",
        "rules": [{"allow": names}] if names else [],
        "network": {"allow_addresses": [address for address in addresses if "=" not in address]},
    }
    if accepted := [word.removeprefix("accept=") for word in addresses if "=" in word]:
        policy["upstreams"] = [{"hosts": ["**", "0.0.0.0/0", "::/0"], "accept": accepted}]
    (here / "policy.yaml").write_text(json.dumps(policy))  # JSON is YAML
    command = [
        sys.executable,
        "-m",
        "sidecar",
        "run",
        "--policy",
        str(here / "policy.yaml"),
        "--ca-dir",
        str(here / "ca"),
    ]
    command += ["--listen", f"127.0.0.1:{port}", "--upstream-ca", upstream_ca, "--events", str(here / "events.jsonl")]
    os.execv(command[0], command)


main()
