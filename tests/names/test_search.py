from ipaddress import ip_address

import pytest

from sidecar.names.search import ResolvConf, is_local, parse_resolv_conf

KUBERNETES = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")


@pytest.mark.parametrize(
    ("text", "conf"),
    [
        pytest.param(
            "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n"
            "options ndots:5\n",
            ResolvConf((ip_address("10.96.0.10"),), KUBERNETES, 5),
            id="what a kubelet writes",
        ),
        pytest.param(
            "# made by hand\nnameserver 192.0.2.1 # first\nnameserver\t2001:db8::1\n; search no.test\n",
            ResolvConf((ip_address("192.0.2.1"), ip_address("2001:db8::1")), (), 1),
            id="comments, tabs, IPv6",
        ),
        pytest.param("search a.test\nsearch B.test. .\n", ResolvConf((), ("b.test",)), id="the last search, no root"),
        pytest.param("domain a.test\n", ResolvConf((), ("a.test",)), id="domain is a search list of one"),
        pytest.param("options rotate ndots:99 ndots:x\n", ResolvConf((), (), 15), id="ndots is capped"),
        pytest.param("nameserver nonsense\nnameserver\nsortlist x\n\n", ResolvConf(), id="what isn't understood"),
        pytest.param(
            "nameserver fe80::1%eth0", ResolvConf((ip_address("fe80::1%eth0"),)), id="a zone id stays"
        ),
    ],
)  # fmt: skip
def test_resolv_conf(text: str, conf: ResolvConf) -> None:
    assert parse_resolv_conf(text) == conf


@pytest.mark.parametrize(
    ("name", "local"),
    [
        pytest.param("api.github.com.default.svc.cluster.local", True, id="an expansion"),
        pytest.param("cluster.local", True, id="a search domain itself"),
        pytest.param("kubernetes", True, id="a single label"),
        pytest.param("notcluster.local", False, id="a name that only ends like a search domain"),
        pytest.param("api.github.com", False, id="an outside name"),
    ],
)
def test_is_local(name: str, local: bool) -> None:
    assert is_local(name, KUBERNETES) is local
