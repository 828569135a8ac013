"""What an upstream's answer says about addresses."""

from ipaddress import IPv4Address, IPv6Address

from sidecar.hosts import IPAddress
from sidecar.names.records import ADDRESS_TYPES, Question, Type
from sidecar.names.wire import Message, decode_name


def real_addresses(answer: Message, question: Question) -> tuple[list[IPAddress], int]:
    """The addresses at the end of the chain of aliases that begins at *question*'s name, and the chain's least TTL."""
    version = ADDRESS_TYPES.get(question.type)
    if version is None:
        return [], 0
    aliases = {record.name.lower(): record for record in answer.answers if record.type == Type.CNAME}
    name, ttl_s = question.name.lower(), (1 << 31) - 1
    for _ in range(len(aliases)):
        alias = aliases.get(name)
        if alias is None:
            break
        name, ttl_s = decode_name(alias.data, 0)[0].lower(), min(ttl_s, alias.ttl)
    addresses: list[IPAddress] = []
    for record in answer.answers:
        if record.type == question.type and record.name.lower() == name:
            if len(record.data) != (4 if version == 4 else 16):
                continue
            addresses.append(IPv4Address(record.data) if version == 4 else IPv6Address(record.data))
            ttl_s = min(ttl_s, record.ttl)
    return addresses, ttl_s if addresses else 0
