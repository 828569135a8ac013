import struct

import pytest

from sidecar.names.services import plain_service

MANDATORY, ALPN, NO_DEFAULT_ALPN, PORT, IPV4_HINT, ECH, IPV6_HINT = range(7)


def service(*params: tuple[int, bytes], target: bytes = b"\x00") -> bytes:
    return b"\x00\x01" + target + b"".join(struct.pack("!2H", key, len(value)) + value for key, value in params)


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        pytest.param(service((ALPN, b"\x02h2"), (ECH, b"config")), service((ALPN, b"\x02h2")), id="ech is removed"),
        pytest.param(service((ALPN, b"\x02h3\x02h2")), service((ALPN, b"\x02h2")), id="h3 is removed"),
        pytest.param(service((ALPN, b"\x05h3-29\x08http/1.1")), service((ALPN, b"\x08http/1.1")), id="its drafts, too"),
        pytest.param(service((ALPN, b"\x02h3")), service(), id="without h3 the default stays"),
        pytest.param(service((ALPN, b"\x02h3"), (NO_DEFAULT_ALPN, b"")), None, id="h3 alone is no service"),
        pytest.param(service((PORT, b"\x01\xbb"), (IPV4_HINT, b"abcd"), (IPV6_HINT, b"x" * 16)),
                     service((PORT, b"\x01\xbb")), id="address hints are removed"),
        pytest.param(service((MANDATORY, b"\x00\x05"), (ECH, b"config")), None, id="mandatory ech: no service"),
        pytest.param(service((MANDATORY, b"\x00\x01"), (ALPN, b"\x02h2")),
                     service((MANDATORY, b"\x00\x01"), (ALPN, b"\x02h2")), id="another mandatory key stays"),
        pytest.param(service(target=b"\x03svc\x00"), service(target=b"\x03svc\x00"), id="a target stays"),
        pytest.param(service((ALPN, b"\x02h2"))[:-1], None, id="cut off in a value"),
        pytest.param(b"\x00\x01\x05ab", None, id="cut off in the target"),
        pytest.param(b"", None, id="nothing"),
    ],
)  # fmt: skip
def test_plain_service(data: bytes, plain: bytes | None) -> None:
    assert plain_service(data) == plain
