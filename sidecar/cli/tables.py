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
        f"requests: {summary.requests_allowed} allowed, {summary.requests_denied} denied, "
        f"{summary.requests_failed} failed · connections: {summary.connections_allowed} passed through, "
        f"{summary.connections_denied} denied · TLS handshakes failed: {summary.handshakes_failed} · "
        f"events dropped: {summary.events_dropped} · {summary.duration_ms / 1000:.1f} s"
    )
    return Group(table if summary.hosts else Text("The session talked to no host", style="bold"), Text(total))
