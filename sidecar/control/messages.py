"""What goes over the control socket: the fence check's messages, bounded and checked, and the file it is kept in."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sidecar.errors import SidecarError
from sidecar.fence.verdict import Report, Result, Verdict

type _Text = Annotated[str, Field(max_length=500)]
_VERDICTS = Literal["held", "works", "skipped", "got_through", "broken", "unproven"]


class MessageError(SidecarError):
    """The message isn't what the control API takes."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Result(_Message):
    canary: _Text
    target: _Text
    expected: _Text
    seen: _Text
    verdict: _VERDICTS


class _Report(_Message):
    canaries: Annotated[tuple[_Result, ...], Field(min_length=1, max_length=200)]


class _Announcement(_Message):
    nonces: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")], ...], Field(max_length=200)]


class _Kept(_Message):
    network_namespace: str
    report: _Report


def parse_report(data: bytes) -> Report:
    """
    A fence check's report. Whether it held is concluded from its verdicts, not said.

    Raises:
        MessageError: Not such a message.
    """
    try:
        return _report(_Report.model_validate_json(data))
    except ValidationError as e:
        raise MessageError(f"not a report of a fence check: {_first(e)}") from None


def report_json(report: Report) -> str:
    return _message(report).model_dump_json()


def parse_announcement(data: bytes) -> tuple[str, ...]:
    """
    The nonces that a check is about to send.

    Raises:
        MessageError: Not such a message.
    """
    try:
        return _Announcement.model_validate_json(data).nonces
    except ValidationError as e:
        raise MessageError(f"not an announcement of canaries: {_first(e)}") from None


def announcement_json(nonces: tuple[str, ...]) -> str:
    return _Announcement(nonces=nonces).model_dump_json()


def kept_json(report: Report, network_namespace: str) -> str:
    """The report as it is kept for a restart of the sidecar, with the namespace that it is about."""
    return _Kept(network_namespace=network_namespace, report=_message(report)).model_dump_json()


def parse_kept(data: bytes, network_namespace: str) -> Report | None:
    """The report that was kept; None where it is about another network namespace, or no report at all."""
    try:
        kept = _Kept.model_validate_json(data)
    except ValidationError:
        return None
    return _report(kept.report) if kept.network_namespace == network_namespace else None


def _message(report: Report) -> _Report:
    return _Report(
        canaries=tuple(
            _Result(canary=r.canary, target=r.target, expected=r.expected, seen=r.seen, verdict=r.verdict.value)
            for r in report.results
        )
    )


def _report(message: _Report) -> Report:
    return Report(tuple(Result(c.canary, c.target, c.expected, c.seen, Verdict(c.verdict)) for c in message.canaries))


def _first(error: ValidationError) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'the message'}: {problem['msg']}"
