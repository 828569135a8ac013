"""Tables for people: a session's summary."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sidecar.events.model import Summary


def summary_table(summary: Summary) -> Group:
    """The summary as a table of hosts under one line of totals."""
    table = Table(title="What the session talked to", title_justify="left", title_style="bold")
    for heading in ("host", "port", "allowed", "denied", "failed", "bytes in", "bytes out"):
        table.add_column(heading, justify="left" if heading == "host" else "right")
    for seen in summary.hosts:
        style = "red" if seen.denied and not seen.allowed else "yellow" if seen.failed else "green"
        numbers = (seen.port, seen.allowed, seen.denied, seen.failed, seen.bytes_in, seen.bytes_out)
        table.add_row(
            seen.host, *(f"{number:,}" if number != seen.port else str(number) for number in numbers), style=style
        )
    if summary.hosts_omitted:
        table.add_row(f"… and {summary.hosts_omitted} more", *[""] * 6)
    total = (
        f"{summary.requests_allowed} requests allowed, {summary.requests_denied} denied, "
        f"{summary.requests_failed} failed; "
        f"{summary.connections_allowed} connections passed through, {summary.connections_denied} denied; "
        f"{summary.handshakes_failed} TLS handshakes failed; {summary.events_dropped} events dropped; "
        f"{summary.duration_ms / 1000:.1f} s"
    )
    return Group(table, Text(total))
