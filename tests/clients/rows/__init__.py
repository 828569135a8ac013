"""Every client of the matrix, by section of the page."""

from collections.abc import Mapping, Sequence
from typing import Final

from tests.clients.client import Client
from tests.clients.rows import languages, managers, node, programs, python

SECTIONS: Final[Mapping[str, Sequence[Client]]] = {
    "Programs": programs.CLIENTS,
    "Package managers": managers.CLIENTS,
    "Python": python.CLIENTS,
    "Node, Bun, Deno": node.CLIENTS,
    "Other languages": languages.CLIENTS,
}
CLIENTS: Final[Sequence[Client]] = [client for clients in SECTIONS.values() for client in clients]
