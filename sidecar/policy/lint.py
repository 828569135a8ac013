"""What is valid but hardly meant: rules that nothing reaches, patterns for names that anyone can have."""

from collections.abc import Iterator

from sidecar.policy.patterns import HostPattern
from sidecar.policy.problems import Problem
from sidecar.policy.rules import Policy, Protocol, Rule, Verdict

# Special-use and customary names that no stranger can register: RFC 6761, 6762, 8375, and ICANN's .internal.
_OWN = frozenset(("internal", "local", "localhost", "test", "example", "invalid", "lan", "home", "corp", "svc"))
# Names under which strangers get names. The public suffix list has thousands; these are the ones met in policies.
_SHARED = frozenset(
    (
        *("ac.uk", "co.uk", "gov.uk", "org.uk", "com.au", "net.au", "org.au", "co.in", "co.jp", "ne.jp", "or.jp"),
        *("co.kr", "co.nz", "co.za", "com.ar", "com.br", "com.cn", "com.hk", "com.mx", "com.sg", "com.tr", "com.tw"),
        *("amazonaws.com", "s3.amazonaws.com", "appspot.com", "azureedge.net", "azurewebsites.net", "blogspot.com"),
        *("blob.core.windows.net", "cloudfront.net", "cloudfunctions.net", "firebaseapp.com", "fly.dev", "github.io"),
        *("gitlab.io", "herokuapp.com", "netlify.app", "ngrok.io", "ngrok-free.app", "onrender.com", "pages.dev"),
        *("r2.dev", "run.app", "trycloudflare.com", "vercel.app", "web.app", "workers.dev"),
    )
)
_WIDEST = {4: 8, 6: 16}  # prefixes shorter than these, by IP version


def lint_policy(policy: Policy) -> tuple[Problem, ...]:
    """Warnings, in the order of the text. Rules that overlap are none: order is what resolves them."""
    found = [*_unreachable(policy), *_over_broad(policy), *_idle_upstreams(policy)]
    return tuple(sorted(found, key=lambda problem: problem.position))


def _unreachable(policy: Policy) -> Iterator[Problem]:
    for rule in policy.rules:
        covering = [_covering(policy, rule, pattern) for pattern in rule.patterns]
        found = sorted({earlier.index for earlier in covering if earlier is not None})
        if None in covering:
            continue
        labels = " and ".join(policy.rules[i].label for i in found)
        does = "decide" if len(found) > 1 else "decides"
        yield Problem(
            rule.position,
            ("rules", rule.index),
            f"is never reached: {labels} {does} all its hosts and ports; "
            f"move it before rules[{found[0]}], or remove it",
        )


def _covering(policy: Policy, rule: Rule, pattern: HostPattern) -> Rule | None:
    """An earlier rule that leaves nothing of *pattern* to *rule*."""
    if pattern.network is not None:
        indexes = policy.index.of_address(pattern.network.network_address)
    else:
        indexes = policy.index.of_name(".".join(pattern.labels))
    for i in indexes:
        earlier = policy.rules[i]
        if i >= rule.index:
            return None
        if (
            _takes_all(earlier, rule)
            and all(any(a <= first and last <= b for a, b in earlier.ports) for first, last in rule.ports)
            and any(each.covers(pattern) for each in earlier.patterns)
        ):
            return earlier
    return None


def _takes_all(earlier: Rule, rule: Rule) -> bool:
    """Whether *earlier* decides whatever *rule* could, hosts and ports aside."""
    if earlier.narrowed:
        return False
    if rule.protocol is Protocol.TCP:
        return earlier.protocol is Protocol.TCP or earlier.verdict is Verdict.DENY
    # An unnarrowed denial of HTTP decides raw TCP too: behind an allow of HTTP there is something left to it.
    denies_tcp = rule.verdict is Verdict.DENY and not rule.narrowed
    return earlier.protocol is Protocol.HTTP and (earlier.verdict is Verdict.DENY or not denies_tcp)


def _over_broad(policy: Policy) -> Iterator[Problem]:
    for rule in policy.rules:
        if rule.verdict is Verdict.DENY:
            continue
        for i, pattern in enumerate(rule.patterns):
            if message := _breadth(pattern):
                path = ("rules", rule.index, rule.verdict.value, i)
                yield Problem(rule.pattern_positions[i], path, message)


def _idle_upstreams(policy: Policy) -> Iterator[Problem]:
    """Hosts of `upstreams` whose TLS nobody opens, or of which an earlier entry speaks."""
    opened = [
        pattern
        for rule in policy.rules
        if rule.verdict is Verdict.ALLOW and rule.protocol is Protocol.HTTP
        for pattern in rule.patterns
    ]
    for entry in policy.upstreams:
        for i, pattern in enumerate(entry.patterns):
            where = ("upstreams", entry.index, "hosts", i)
            earlier = (e for e in policy.upstreams[: entry.index] if any(p.covers(pattern) for p in e.patterns))
            if (first := next(earlier, None)) is not None:
                message = f"{pattern.text!r} is never reached: upstreams[{first.index}] has it; move one, or remove it"
                yield Problem(entry.pattern_positions[i], where, message)
            elif policy.default is Verdict.DENY and not any(each.overlaps(pattern) for each in opened):
                message = f"no rule allows {pattern.text!r}, so no TLS is spoken with it; allow it, or remove it here"
                yield Problem(entry.pattern_positions[i], where, message)


def _breadth(pattern: HostPattern) -> str | None:
    if pattern.network is not None:
        widest = _WIDEST[pattern.network.version]
        if pattern.network.prefixlen >= widest:
            return None
        return f"{pattern.text!r} is a large part of the Internet; name a network of /{widest} or smaller"
    if pattern.exact:
        return None
    suffix = pattern.suffix
    if not suffix:
        return f"{pattern.text!r} matches names that anyone can register; end it with a domain of someone you trust"
    domain = ".".join(suffix)
    if (len(suffix) == 1 and domain not in _OWN) or domain in _SHARED:
        return f"{pattern.text!r}: anyone can have a name under {domain!r}; name the hosts, or a domain under it"
    return None
