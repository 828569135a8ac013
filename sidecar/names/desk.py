"""Where questions are served: outcomes become replies, names get their addresses, what was handed out is noted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from sidecar.hosts import Host, IPAddress
from sidecar.names.answers import real_addresses
from sidecar.names.channel import FILLING, LEAVING, Channel
from sidecar.names.handed_out import HandedOut
from sidecar.names.outcomes import (
    AskUpstream,
    DnsReason,
    Empty,
    IfExists,
    Keep,
    Loopback,
    Minimal,
    NxDomain,
    Refuse,
    Reverse,
    Synthesize,
)
from sidecar.names.questions import NameRules, Zone, judge_question
from sidecar.names.records import ADDRESS_TYPES, Question, Rcode, Record, Type
from sidecar.names.search import is_local
from sidecar.names.services import plain_service
from sidecar.names.synthetic import SyntheticNames
from sidecar.names.wire import Message, encode_name

_MINIMAL = b"\x07RFC8482\x00"  # HINFO's two strings
_LOOPBACK: dict[int, IPAddress] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the workload is told; with a reason, an event says so."""

    rcode: Rcode
    records: tuple[Record, ...] = ()
    denied: DnsReason | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What an upstream resolver has to be asked first; its answers go to `Desk.receive`, in this order."""

    question: Question
    outcome: AskUpstream | IfExists
    queries: tuple[Question, ...]


class Desk:
    """Serves one question at a time. Holds the names of the session; waits for nothing and opens nothing."""

    def __init__(
        self,
        rules: Callable[[], NameRules],
        zone: Zone,
        synthetic: SyntheticNames,
        handed_out: HandedOut,
        *,
        leaving: Channel | None = None,
        filling: Channel | None = None,
    ) -> None:
        """
        Args:
            rules: Called once per question: a reload swaps the whole value.
            zone: What the pod is like.
            synthetic: Shared with whoever asks which name an original destination is.
            handed_out: The same, for real answers.
            leaving: Judges names that an upstream resolver is asked for.
            filling: Judges names that would take a synthetic address.
        """
        self._rules, self._zone, self._synthetic, self._handed_out = rules, zone, synthetic, handed_out
        self._leaving = leaving or Channel(LEAVING)
        self._filling = filling or Channel(FILLING)

    def ask(self, question: Question, *, now: float) -> Reply | Ask:
        """Serve *question*, at *now* in seconds of a monotonic clock, or say what has to be asked for that."""
        outcome = judge_question(question, self._rules(), self._zone)
        match outcome:
            case Refuse(reason):
                return Reply(Rcode.REFUSED, denied=reason)
            case NxDomain():
                return Reply(Rcode.NXDOMAIN)
            case Empty(reason):
                return Reply(Rcode.NOERROR, denied=reason)
            case Minimal():
                return self._own(question, Type.HINFO, _MINIMAL)
            case Loopback():
                return self._addresses(question, tuple(_LOOPBACK.values()))
            case Reverse(address):
                return self._reverse(question, address, now)
            case Synthesize(host):
                return self._synthesize(question, host, now)
            case AskUpstream(host) | IfExists(host):
                reason = self._leaving.refuse(host.name, now=now)
                if reason is not None:
                    # A local name may be an outside name's expansion, and REFUSED would end the search for that.
                    local = is_local(host.name, self._zone.search)
                    return Reply(Rcode.NXDOMAIN if local else Rcode.REFUSED, denied=reason)
                types = (Type.A, Type.AAAA) if isinstance(outcome, IfExists) else (question.type,)
                return Ask(question, outcome, tuple(Question(host.name, type_) for type_ in types))

    def receive(self, ask: Ask, answers: tuple[Message, ...], *, now: float) -> Reply:
        """Make a reply of what upstream said."""
        # Some servers say NXDOMAIN for the family that a name lacks: an address decides, whatever the other says.
        found = any(real_addresses(answer, query)[0] for answer, query in zip(answers, ask.queries, strict=True))
        if found and isinstance(ask.outcome, IfExists):
            return self._synthesize(ask.question, ask.outcome.host, now)
        rcodes = {answer.rcode for answer in answers}
        if not rcodes <= {Rcode.NOERROR, Rcode.NXDOMAIN}:
            return Reply(Rcode.SERVFAIL)
        if Rcode.NXDOMAIN in rcodes:
            return Reply(Rcode.NXDOMAIN)
        match ask.outcome:
            case IfExists():
                return Reply(Rcode.NOERROR)
            case AskUpstream(host, Keep.ADDRESSES):
                return self._pass_on_addresses(ask.question, host, answers[0], now)
            case AskUpstream(_, keep):
                return self._pass_on_records(ask.question, keep, answers[0])

    def _synthesize(self, question: Question, host: Host, now: float) -> Reply:
        version = ADDRESS_TYPES[question.type]
        if version not in self._zone.families:
            return Reply(Rcode.NOERROR)
        pair = self._synthetic.pair_of(host.name)
        if pair is None:
            reason = self._filling.refuse(host.name, now=now)
            if reason is not None:
                return Reply(Rcode.REFUSED, denied=reason)
            pair = self._synthetic.assign(host.name)
        if pair is None:
            return Reply(Rcode.SERVFAIL, denied=DnsReason.RANGE_FULL)
        return self._addresses(question, (pair.v4, pair.v6))

    def _addresses(self, question: Question, addresses: tuple[IPAddress, ...]) -> Reply:
        version = ADDRESS_TYPES[question.type]
        if version not in self._zone.families:
            return Reply(Rcode.NOERROR)
        [address] = [address for address in addresses if address.version == version]
        return self._own(question, question.type, address.packed)

    def _own(self, question: Question, type_: int, data: bytes) -> Reply:
        return Reply(Rcode.NOERROR, (Record(question.name, type_, self._zone.ttl_s, data),))

    def _reverse(self, question: Question, address: IPAddress, now: float) -> Reply:
        name = "localhost" if address.is_loopback else self._synthetic.name_of(address)
        names = (name,) if name is not None else self._handed_out.names_of(address, now=now)
        return self._own(question, Type.PTR, encode_name(names[0])) if names else Reply(Rcode.NXDOMAIN)

    def _pass_on_addresses(self, question: Question, host: Host, answer: Message, now: float) -> Reply:
        version = ADDRESS_TYPES[question.type]
        if version not in self._zone.families:
            return Reply(Rcode.NOERROR)
        found, ttl_s = real_addresses(answer, Question(host.name, question.type))
        # An upstream that answers with one of our own addresses would give one name's connections to another.
        addresses = [address for address in found if address not in self._synthetic]
        ttl_s = min(ttl_s, self._zone.longest_ttl_s)
        self._handed_out.remember(host.name, addresses, ttl_s=ttl_s, now=now)
        return Reply(
            Rcode.NOERROR, tuple(Record(question.name, question.type, ttl_s, address.packed) for address in addresses)
        )

    def _pass_on_records(self, question: Question, keep: Keep, answer: Message) -> Reply:
        records = []
        for record in answer.answers:
            data = record.data
            if record.type == question.type and keep is Keep.SERVICES:
                plain = plain_service(data)
                if plain is None:
                    continue
                data = plain
            if record.type in (question.type, Type.CNAME):
                records.append(replace(record, data=data, ttl=min(record.ttl, self._zone.longest_ttl_s)))
        return Reply(Rcode.NOERROR, tuple(records))
