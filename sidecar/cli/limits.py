"""``sidecar limits``: what bounds the sidecar."""

from sidecar.limits import table


def limits() -> None:
    """Print all limits as a table of Markdown: what they bound, and what becomes of it when one is reached."""
    print(table())
