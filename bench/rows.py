"""What is measured: each row of the table."""

from enum import StrEnum


class Row(StrEnum):
    """One operation, as ``--only`` and the results name it."""

    KEEP_ALIVE = "keep-alive"
    NEW_CONNECTION = "new-connection"
    FIRST_CONTACT = "first-contact"
    IDLE_RSS = "idle-rss"

    @property
    def label(self) -> str:
        return _LABELS[self]

    @property
    def unit(self) -> str:
        return "MB" if self is Row.IDLE_RSS else "µs CPU"

    @property
    def is_load(self) -> bool:
        """Whether a client has to run for it."""
        return self is not Row.IDLE_RSS


_LABELS = {
    Row.KEEP_ALIVE: "request on a kept-alive connection, 1 kB",
    Row.NEW_CONNECTION: "new TLS connection, known host",
    Row.FIRST_CONTACT: "first contact with a host",
    Row.IDLE_RSS: "resident memory, idle",
}
