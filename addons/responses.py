"""What the sidecar answers itself, as mitmproxy responses."""

from mitmproxy import http

from sidecar import builtin
from sidecar.problem import MEDIA_TYPE, Problem


def problem_response(flow: http.HTTPFlow, problem: Problem) -> http.Response:
    """The answer that a refused request gets: RFC 9457, never cached."""
    request = flow.request
    body = problem.body(
        method=request.method,
        host=request.host,
        port=request.port,
        path=request.path.partition("?")[0],
        request_id=flow.id,
    )
    response = _answer(flow, problem.status, MEDIA_TYPE, body)
    if problem.status == 405:
        response.headers["allow"] = ", ".join(builtin.METHODS)  # RFC 9110, section 15.5.6
    return response


def builtin_response(flow: http.HTTPFlow) -> http.Response:
    """The answer of `builtin.TRUST_HOST`."""
    return _answer(flow, 200, builtin.MEDIA_TYPE, builtin.BODY)


def _answer(flow: http.HTTPFlow, status: int, media_type: str, body: bytes) -> http.Response:
    headers = {"content-type": media_type, "cache-control": "no-store"}
    response = http.Response.make(status, b"" if flow.request.method == "HEAD" else body, headers)
    response.headers["content-length"] = str(len(body))  # also of the body that HEAD doesn't get
    return response
