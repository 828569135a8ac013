"""
``python -m bench.policy``: what deciding costs, by the number of rules.

The same three requests (an exact host, one below a suffix, one that no rule names) are judged under policies of 10,
1,000 and 10,000 rules, in turns. Exits with 1 if 10,000 cost more than 1.1 times what 10 do.
"""

import sys
import time
from statistics import median

from sidecar.hosts import Host, parse_host
from sidecar.policy import Policy, judge_request, parse_policy

SIZES = (10, 1_000, 10_000)
MOST = 1.1
ROUNDS, TIMES = 9, 4_000
ASKED = ("api3.example.com", "a.b.service2.example.net", "nobody.example.org")


def policy(rules: int) -> Policy:
    """Half of the rules name a host, half whatever is below one, for some paths."""
    lines = ["version: 1", "default: deny", "rules:"]
    for i in range(rules // 2):
        lines += [f"  - allow: ['api{i}.example.com']"]
        lines += [f"  - {{allow: ['**.service{i}.example.net'], methods: [GET], paths: ['/v1/**']}}"]
    return parse_policy("\n".join(lines) + "\n", source="policy.yaml")


def nanoseconds(of: Policy, hosts: list[Host]) -> float:
    """CPU time of one decision."""
    began = time.process_time_ns()
    for _ in range(TIMES):
        for host in hosts:
            judge_request(of, host, 443, "GET", "/v1/items")
    return (time.process_time_ns() - began) / TIMES / len(hosts)


def main() -> int:
    policies, hosts = {size: policy(size) for size in SIZES}, [parse_host(host) for host in ASKED]
    seen: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size, of in policies.items():
            seen[size].append(nanoseconds(of, hosts))
    least = median(seen[SIZES[0]])
    for size, times in seen.items():
        print(f"{size:6,} rules: {median(times):6,.0f} ns a decision, {median(times) / least:.2f}x")
    return int(median(seen[SIZES[-1]]) > MOST * least)


if __name__ == "__main__":
    sys.exit(main())
