"""Java's keystore: which one a variable names, and how the session CA gets into the one that is read."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from sidecar.trust.env import CA
from sidecar.trust.fixes import ALIAS, Fix, How

# Each is read after the ones before it, and the last word on a property counts.
VARIABLES: Final = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
_STORE, _PASSWORD = "-Djavax.net.ssl.trustStore=", "-Djavax.net.ssl.trustStorePassword="
_COPY: Final = PurePath(f"/tmp/{ALIAS}-cacerts")  # noqa: S108 - on a read-only root, what else is writable?


@dataclass(frozen=True, slots=True)
class Named:
    """A keystore that a variable names."""

    variable: str
    path: str


def java_trust_store(environment: Mapping[str, str]) -> Named | None:
    """The keystore that the variables name, if they do."""
    named = [Named(variable, value) for variable, value in _values(environment, _STORE)]
    return named[-1] if named else None


def java_fixes(
    *,
    store: PurePath | None,
    writable: bool,
    ready: PurePath | None,
    trust: PurePath,
    environment: Mapping[str, str],
    variable: str,
) -> tuple[Fix, ...]:
    """
    Bring the session CA to Java: by a keystore of the trust folder, into the one that it reads, or into a copy of that.

    Args:
        store: What it reads now, if that is there.
        ready: A keystore that may take its place.
        variable: The one that is to name a keystore. What else it holds stays in front: the last word counts.
    """
    if ready is not None:
        return (_option(ready, environment, variable),)
    # A password of the user's own is asked for, rather than printed.
    password = "" if _values(environment, _PASSWORD) else "-storepass changeit "
    ca = shlex.quote(str(trust / CA))
    imports = f"keytool -importcert -noprompt -trustcacerts -alias {ALIAS} -file {ca} {password}-keystore"
    if store is not None and writable:
        return (Fix(How.RUN, f"{imports} {shlex.quote(str(store))}"),)
    copied = f"cp {shlex.quote(str(store))} {_COPY} && chmod u+w {_COPY} && " if store is not None else ""
    return Fix(How.RUN, f"{copied}{imports} {_COPY}"), _option(_COPY, environment, variable)


def _option(store: PurePath, environment: Mapping[str, str], variable: str) -> Fix:
    option = shlex.quote(f"{_STORE}{store}")
    kept = f'"${variable} "' if environment.get(variable) else ""
    return Fix(How.SET, f"export {variable}={kept}{option}")


def _values(environment: Mapping[str, str], option: str) -> list[tuple[str, str]]:
    """The variables that hold *option*, with what they say, the one that counts last."""
    found = []
    for variable in VARIABLES:
        text = environment.get(variable, "")
        try:
            words = shlex.split(text)
        except ValueError:
            words = text.split()
        found += [(variable, word.removeprefix(option)) for word in words if word.startswith(option)]
    return found
