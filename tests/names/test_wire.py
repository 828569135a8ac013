import struct
from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import dns

from sidecar.names.answers import real_addresses
from sidecar.names.records import Question, Record, Type
from sidecar.names.wire import WireError, decode_message, encode_name, encode_query

HEADER = struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0)
QUESTION = b"\x01a\x04test\x00" + struct.pack("!2H", Type.A, 1)


def answer(type_: int, data: bytes, owner: bytes = b"\xc0\x0c", class_: int = 1, ttl: int = 60) -> bytes:
    return HEADER + QUESTION + owner + struct.pack("!2HIH", type_, class_, ttl, len(data)) + data


def test_a_query_is_what_another_implementation_reads() -> None:
    query = dns.DNSMessage.unpack(encode_query(513, Question("api.example.com", Type.AAAA)))
    assert (query.id, query.query, query.recursion_desired) == (513, True, True)
    assert query.questions == [dns.Question("api.example.com", Type.AAAA, 1)]
    assert [(r.name, r.type, r.class_, r.data) for r in query.additionals] == [("", Type.OPT, 1232, b"")]


def test_an_answer_of_another_implementation_is_read() -> None:
    query = dns.DNSMessage.unpack(encode_query(513, Question("a.test", Type.A)))
    packed = query.succeed(
        [dns.ResourceRecord.CNAME("a.test", "b.test", ttl=30), dns.ResourceRecord.A("b.test", ip_address("192.0.2.1"))]  # type: ignore[arg-type]
    ).packed
    message = decode_message(packed)
    assert (message.id, message.is_response, message.rcode) == (513, True, 0)
    assert message.question == Question("a.test", Type.A)
    assert real_addresses(message, Question("A.test", Type.A)) == ([ip_address("192.0.2.1")], 30)


@pytest.mark.parametrize(
    ("data", "record"),
    [
        pytest.param(answer(Type.A, b"\xc0\x00\x02\x01"), Record("a.test", Type.A, 60, b"\xc0\x00\x02\x01"),
                     id="an address that looks like a compression pointer stays"),
        pytest.param(answer(Type.CNAME, b"\x01b\xc0\x0e"), Record("a.test", Type.CNAME, 60, b"\x01b\x04test\x00"),
                     id="a compressed alias is written out"),
        pytest.param(answer(Type.SRV, struct.pack("!3H", 1, 2, 0xC00C) + b"\xc0\x0e"),
                     Record("a.test", Type.SRV, 60, b"\x00\x01\x00\x02\xc0\x0c\x04test\x00"),
                     id="a port that looks like a pointer stays, the name behind it is written out"),
        pytest.param(answer(Type.MX, b"\x00\x0a\xc0\x0c"), Record("a.test", Type.MX, 60, b"\x00\x0a\x01a\x04test\x00"),
                     id="MX"),
        pytest.param(answer(Type.A, b"abcd", ttl=1 << 31), Record("a.test", Type.A, 0, b"abcd"), id="a TTL below 0"),
    ],
)  # fmt: skip
def test_record_data(data: bytes, record: Record) -> None:
    assert decode_message(data).answers == (record,)


def test_records_of_other_classes_are_left_out() -> None:
    assert decode_message(answer(Type.A, b"abcd", class_=3)).answers == ()


def test_a_truncated_answer_is_not_read_to_its_end() -> None:
    cut = struct.pack("!6H", 7, 0x8380, 1, 9, 0, 0) + QUESTION + b"\xc0"
    message = decode_message(cut)
    assert message.truncated
    assert message.answers == ()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEADER, id="a header alone"),
        pytest.param(answer(Type.A, b"abcd")[:-1], id="cut off in record data"),
        pytest.param(answer(Type.A, b"abcd", owner=b"\xc0\xff"), id="a pointer forwards"),
        pytest.param(HEADER + b"\xc0\x0c" + b"\x00\x01\x00\x01", id="a pointer to itself"),
        pytest.param(answer(Type.A, b"abcd", owner=b"\x03a.b\x00"), id="a dot inside a label"),
        pytest.param(answer(Type.A, b"abcd", owner=b"\x01\x00\x00"), id="a control byte in a label"),
        pytest.param(answer(Type.A, b"abcd", owner=b"\x01\xff\x00"), id="a byte that isn't ASCII"),
        pytest.param(answer(Type.CNAME, b"\x01b\xc0\x0e\x00"), id="bytes behind an alias"),
    ],
)
def test_what_is_no_answer_is_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_message(data)


@given(st.binary(max_size=64))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tail: bytes) -> None:
    with suppress(WireError):
        decode_message(HEADER + tail)


@pytest.mark.parametrize("name", ["a..b", "a" * 64, "é.test", ".".join(["a" * 63] * 4)])
def test_names_that_cannot_be_asked_for_are_errors(name: str) -> None:
    with pytest.raises(WireError):
        encode_name(name)


def test_a_loop_of_aliases_ends_without_an_address() -> None:
    loop = [("a.test", "b.test"), ("b.test", "a.test")]
    query = dns.DNSMessage.unpack(encode_query(1, Question("a.test", Type.A)))
    message = decode_message(query.succeed([dns.ResourceRecord.CNAME(*pair) for pair in loop]).packed)
    assert real_addresses(message, Question("a.test", Type.A)) == ([], 0)


def test_an_address_of_a_name_that_no_alias_leads_to_does_not_count() -> None:
    query = dns.DNSMessage.unpack(encode_query(1, Question("a.test", Type.A)))
    stray = dns.ResourceRecord.A("evil.test", ip_address("192.0.2.1"))  # type: ignore[arg-type]
    assert real_addresses(decode_message(query.succeed([stray]).packed), Question("a.test", Type.A)) == ([], 0)
