"""What to do about a client that doesn't trust: a line to paste, exactly, and where."""

import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Final

from sidecar.inject.names import TRUST_VOLUME
from sidecar.trust.env import BUNDLE, CA, ENV, pem_variables

ALIAS: Final = "egress-sidecar"
_DEBIAN: Final = PurePath("/etc/ssl/certs/ca-certificates.crt")
_ANCHORS: Final = {
    "update-ca-certificates": f"/usr/local/share/ca-certificates/{ALIAS}.crt",
    "update-ca-trust": f"/etc/pki/ca-trust/source/anchors/{ALIAS}.pem",
}


class How(StrEnum):
    """Where a fix belongs."""

    RUN = "run"  # in the workload's container, as a user who may
    SET = "set"  # in the workload's environment, before its programs start
    MOUNT = "mount"  # where the workload's container is described


@dataclass(frozen=True, slots=True)
class Fix:
    """
    Attributes:
        text: A shell's line. Of a mount: an option of ``docker run`` and ``podman run``, with the trust folder's place
            on the host in ``$TRUST_DIR``.
        pod: Of a mount: the item of ``volumeMounts`` that does the same in a pod.
    """

    how: How
    text: str
    pod: str = ""


def set_all(trust: PurePath) -> Fix:
    """Set all variables of the trust folder at once."""
    return Fix(How.SET, f"set -a; . {shlex.quote(str(trust / ENV))}; set +a")


def set_variable(name: str, trust: PurePath) -> Fix | None:
    """Point a variable to its file in the trust folder; None if it's one that the folder's ``env`` doesn't set."""
    value = pem_variables(trust).get(name)
    return None if value is None else Fix(How.SET, f"export {name}={shlex.quote(value)}")


def add_to_file(path: PurePath, trust: PurePath) -> Fix:
    """Add the session CA to a file of the user's own."""
    return Fix(How.RUN, f"cat {shlex.quote(str(trust / CA))} >> {shlex.quote(str(path))}")


def system_fixes(path: PurePath | None, writable: bool, update: str | None, trust: PurePath) -> tuple[Fix, ...]:
    """Bring the session CA into the file of the distribution: by its own command, or by a mount over it."""
    ca = shlex.quote(str(trust / CA))
    if path is not None and writable:
        anchor = _ANCHORS.get(PurePath(update).name) if update is not None else None
        if anchor is not None:
            return (Fix(How.RUN, f"install -D -m 644 {ca} {anchor} && {update}"),)
        return (add_to_file(path, trust),)
    at = path or _DEBIAN
    volume = f"{{name: {TRUST_VOLUME}, mountPath: {at}, subPath: {BUNDLE}, readOnly: true}}"
    return (Fix(How.MOUNT, f'--volume "$TRUST_DIR/{BUNDLE}:{at}:ro"', volume),)


def nss_fixes(trust: PurePath, home: PurePath) -> tuple[Fix, ...]:
    """Bring the session CA into the user's NSS database, which Chromium reads; made if it isn't there."""
    database = home / ".pki" / "nssdb"
    folder, ca = shlex.quote(str(database)), shlex.quote(str(trust / CA))
    made = f"mkdir -p {folder} && {{ [ -e {folder}/cert9.db ] || certutil -d sql:{folder} -N --empty-password; }}"
    return (Fix(How.RUN, f"{made} && certutil -d sql:{folder} -A -t C,, -n {ALIAS} -i {ca}"),)
