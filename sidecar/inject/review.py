"""AdmissionReview, version v1 of admission.k8s.io: a review in, its answer out."""

import base64
import json
from typing import Any, Literal

from sidecar.errors import SidecarError
from sidecar.inject import annotations, guard
from sidecar.inject.choice import choose, sidecar_plan
from sidecar.inject.config import Config
from sidecar.inject.names import Json, Refusal
from sidecar.inject.patch import diff
from sidecar.inject.plan import SidecarPlan, TrustPlan
from sidecar.inject.pod import Changed, with_sidecar
from sidecar.inject.trust_only import with_bundle

type Webhook = Literal["mutate", "trust", "validate"]

# What the API server keeps of warnings: 4096 characters in all, 256 of each.
_WARNINGS, _WARNING_LENGTH = 16, 256


class ReviewError(SidecarError):
    """It isn't an AdmissionReview that can be answered."""


def parse_review(body: bytes) -> Json:
    """
    Read a request's body.

    Returns:
        The review's request, with ``uid``.

    Raises:
        ReviewError: No JSON, another kind or version, or no request.
    """
    try:
        review: Any = json.loads(body)
    except ValueError:
        raise ReviewError("the body is not JSON; send an AdmissionReview") from None
    request = review.get("request") if isinstance(review, dict) else None
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or not request["uid"]:
        raise ReviewError("the body has no request with a uid; send an AdmissionReview")
    if (review.get("apiVersion"), review.get("kind")) != ("admission.k8s.io/v1", "AdmissionReview"):
        raise ReviewError("this is no AdmissionReview of admission.k8s.io/v1; list v1 in admissionReviewVersions")
    return request


def answer(webhook: Webhook, request: Json, config: Config) -> Json:
    """
    Answer a review: with a JSON Patch, a plain yes, or a no and its reasons. Nothing else happens.

    Raises:
        ReviewError: The object is no pod's, though the resource says so.
    """
    try:
        match webhook:
            case "mutate":
                return _mutate(request, config)
            case "trust":
                return _mutate(request, config.model_copy(update={"namespaces": []}))
            case "validate":
                return _validate(request, config)
    except Refusal as e:
        return _refused(request, [str(e)])


def change(pod: Json, namespace: str, config: Config) -> Changed | None:
    """
    The pod as the webhook makes it; None where it is left alone.

    Raises:
        Refusal: It can't be admitted so.
    """
    match choose(pod, namespace, config):
        case SidecarPlan() as plan:
            changed = with_sidecar(pod, plan)
            rule = config.rule_for(namespace)
            # Where nobody refuses these, their author should at least know.
            holes = [] if rule is None or rule.enforce else guard.objections(changed.pod, plan, config)
            return Changed(changed.pod, (*changed.warnings, *holes))
        case TrustPlan() as plan:
            return with_bundle(pod, plan)
    return None


def _mutate(request: Json, config: Config) -> Json:
    if not _is_new_pod(request):
        return _allowed(request)
    pod = _pod_of(request, "object")
    changed = change(pod, _namespace(request), config)
    if changed is None:
        return _allowed(request)
    made = _allowed(request)
    if operations := list(diff(pod, changed.pod)):
        patch = base64.b64encode(json.dumps(operations).encode()).decode()
        made["response"] |= {"patchType": "JSONPatch", "patch": patch}
    if changed.warnings:
        made["response"]["warnings"] = [text[:_WARNING_LENGTH] for text in changed.warnings[:_WARNINGS]]
    return made


def _validate(request: Json, config: Config) -> Json:
    namespace = _namespace(request)
    rule = config.rule_for(namespace)
    if rule is None or not rule.enforce or (request.get("resource") or {}).get("resource") != "pods":
        return _allowed(request)
    found: list[str] = []
    match request.get("operation"), request.get("subResource") or "":
        case "CREATE", "":
            pod = _pod_of(request, "object")
            plan = sidecar_plan(pod, namespace, rule, config, annotations.read(pod, config))
            found = guard.objections(pod, plan, config)
        case "UPDATE", "ephemeralcontainers":
            pod = _pod_of(request, "object")
            # By the rule's first policy: which one is in force plays no part here, and the annotation may have changed.
            plan = sidecar_plan({}, namespace, rule, config, annotations.read({}, config))
            found = guard.objections_to_debugging(pod, _pod_of(request, "oldObject"), plan, config)
        case "UPDATE", "":
            found = guard.objections_to_update(_pod_of(request, "object"), _pod_of(request, "oldObject"))
        case "CONNECT", "exec" | "attach" as what:
            options = request.get("object") or {}
            found = guard.objections_to_entering(options.get("container"), what)
    return _refused(request, found) if found else _allowed(request)


def _is_new_pod(request: Json) -> bool:
    resource = request.get("resource") or {}
    is_pod = (resource.get("group", ""), resource.get("resource")) == ("", "pods")
    return is_pod and request.get("operation") == "CREATE" and not request.get("subResource")


def _namespace(request: Json) -> str:
    # Not the object's: a new pod may leave it out.
    return str(request.get("namespace") or "")


def _pod_of(request: Json, key: str) -> Json:
    pod = request.get(key)
    if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
        raise ReviewError(f"the review's {key} is no Pod with a spec; send pods only")
    return pod


def _allowed(request: Json) -> Json:
    return _response(request, {"allowed": True})


def _refused(request: Json, reasons: list[str]) -> Json:
    message = "egress sidecar: " + "; ".join(reasons)
    return _response(request, {"allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": message}})


def _response(request: Json, more: Json) -> Json:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": request["uid"], **more},
    }
