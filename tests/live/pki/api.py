"""OpenBao's API, as its clients use it. Imports little: the stand-in for ``kubectl`` starts often."""

import json
import urllib.request
from collections.abc import Mapping
from typing import Any


def ask(address: str, path: str, token: str | None, body: Mapping[str, object] | None = None) -> Any:
    """One call of the API; raises `urllib.error.HTTPError` where it is refused."""
    headers = {} if token is None else {"X-Vault-Token": token}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/v1/{path}", data, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        return json.load(response)
