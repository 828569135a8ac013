"""
Is what stands in a pod what we would put there? Decided field by field: a name or an annotation proves nothing.

Others complete what we write: the API server fills in defaults, LimitRanger adds resources, the service account's
token is mounted into every container. Nothing else may differ. One more variable, mount or argument can undo the
sidecar, so such a container isn't ours.
"""

from typing import Any, Final

from sidecar.inject.names import SERVICE_ACCOUNT_PATH, Json

_ANY: Final = object()

# Fields that may be there though we don't write them, with the value that they must have then.
_DEFAULTS: Final[dict[str, object]] = {
    "apiVersion": "v1",
    "defaultMode": 0o644,
    "failureThreshold": _ANY,
    "periodSeconds": _ANY,
    "procMount": "Default",
    "protocol": "TCP",
    "recursiveReadOnly": "Disabled",
    "resizePolicy": _ANY,  # with Kubernetes 1.27 and later, wherever there are resources
    "resources": _ANY,
    "scheme": "HTTP",
    "successThreshold": 1,
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "timeoutSeconds": _ANY,
}


def intact(present: Any, expected: Any) -> bool:
    """Whether *present* is *expected*, completed by nobody but the API server."""
    if isinstance(expected, dict):
        if not isinstance(present, dict):
            return False
        return all(_same(key, present.get(key), value) for key, value in expected.items()) and all(
            _harmless(key, present[key]) for key in present.keys() - expected.keys()
        )
    if isinstance(expected, list):
        if not isinstance(present, list) or len(present) != len(expected):
            return False
        return all(intact(one, other) for one, other in zip(present, expected, strict=True))
    return bool(present == expected) and isinstance(present, bool) == isinstance(expected, bool)


def _same(key: str, present: Any, expected: Any) -> bool:
    if key == "resources":
        return True  # how much it may use is the namespace's to say
    if key == "imagePullPolicy" and present == "Always":
        return True  # as AlwaysPullImages has it for every container, and no looser than what we write
    if key == "volumeMounts" and isinstance(present, list):
        present = [mount for mount in present if not _is_token(mount)]
    return intact(present, expected)


def _harmless(key: str, value: Any) -> bool:
    if key == "volumeMounts":
        return isinstance(value, list) and all(_is_token(mount) for mount in value)
    if value in (None, False, "", [], {}):
        return True
    return key in _DEFAULTS and _DEFAULTS[key] in (_ANY, value)


def _is_token(mount: Json) -> bool:
    return mount.get("mountPath") == SERVICE_ACCOUNT_PATH and mount.get("readOnly") is True and "subPath" not in mount


def find(present: list[Json], expected: Json) -> Json | None:
    """The intact one among *present*; none where it is missing, changed, or there twice."""
    named = [one for one in present if one.get("name") == expected["name"]]
    return named[0] if len(named) == 1 and intact(named[0], expected) else None
