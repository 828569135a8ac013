from dataclasses import replace
from ipaddress import ip_address

import pytest

from sidecar.hosts import parse_host
from sidecar.pki.pod_names import Pod, PodNameError, hosts_of

V4, V6 = ip_address("10.1.2.3"), ip_address("2001:db8::3")


def names(pod: Pod) -> list[str]:
    return [str(host) for host in hosts_of(pod)]


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        pytest.param(Pod(addresses=(V4, V6)), ["10.1.2.3", "2001:db8::3"], id="an address is one, of either family"),
        pytest.param(
            Pod(addresses=(V4, V6), namespace="agents"),
            [
                "10-1-2-3.agents.pod.cluster.local",
                "2001-db8--3.agents.pod.cluster.local",
                "10.1.2.3",
                "2001:db8::3",
            ],
            id="with a namespace it has a name, too",
        ),
        pytest.param(
            Pod(addresses=(ip_address("fd00::"),), namespace="a"),
            ["fd00-0000-0000-0000-0000-0000-0000-0000.a.pod.cluster.local", "fd00::"],
            id="an address that would end in a hyphen is written out",
        ),
        pytest.param(
            Pod(services=("web",), namespace="agents"),
            ["web", "web.agents", "web.agents.svc", "web.agents.svc.cluster.local"],
            id="a service is reached by four names",
        ),
        pytest.param(
            Pod(name="db-0", namespace="agents", subdomain="db", cluster_domain="corp.example"),
            ["db-0.db", "db-0.db.agents", "db-0.db.agents.svc", "db-0.db.agents.svc.corp.example", "db-0"],
            id="a StatefulSet's pod is reached below its service",
        ),
        pytest.param(
            Pod(name="db-0", hostname="first", namespace="a", subdomain="db"),
            ["first.db", "first.db.a", "first.db.a.svc", "first.db.a.svc.cluster.local", "db-0"],
            id="a host name of its own counts there",
        ),
        pytest.param(Pod(name="db-0", hostname="first"), ["db-0"], id="and nowhere else"),
        pytest.param(
            Pod(name="WEB", extra=(parse_host("web"), parse_host("api.example.com"))),
            ["web", "api.example.com"],
            id="each name is there once",
        ),
    ],
)
def test_a_pod_is_named_as_the_clusters_dns_names_it(pod: Pod, expected: list[str]) -> None:
    assert names(pod) == expected


@pytest.mark.parametrize(
    ("pod", "says"),
    [
        pytest.param(Pod(), "nothing is known of this pod.*status.podIP", id="nothing"),
        pytest.param(Pod(services=("web",)), "'web' needs the pod's namespace.*POD_NAMESPACE", id="no namespace"),
        pytest.param(Pod(subdomain="db", namespace="a"), "give --hostname, or set POD_NAME", id="no host name"),
        pytest.param(Pod(services=("web.b",), namespace="a"), "'web.b' is more than one label", id="two labels"),
        pytest.param(Pod(services=("*",), namespace="a"), r"'\*', which is no host name", id="a wildcard"),
        pytest.param(Pod(name="10.9.9.9"), "'10.9.9.9', which is no host name", id="an address for a name"),
        pytest.param(Pod(addresses=(V4,), namespace="a b"), "--namespace makes .*no host name", id="a space"),
        pytest.param(Pod(services=("web",), namespace="a.b"), "--namespace 'a.b' is more than one", id="namespace"),
    ],
)
def test_what_names_nothing_is_refused_with_the_fix(pod: Pod, says: str) -> None:
    with pytest.raises(PodNameError, match=says):
        hosts_of(pod)


def test_two_orders_of_addresses_are_two_orders_of_names_and_no_more() -> None:
    pod = Pod(addresses=(V4, V6), namespace="agents")

    assert sorted(names(pod)) == sorted(names(replace(pod, addresses=(V6, V4))))
