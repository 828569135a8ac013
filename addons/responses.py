"""A problem as a mitmproxy response."""

from mitmproxy import http

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
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", "content-length": str(len(body))}
    return http.Response.make(problem.status, b"" if request.method == "HEAD" else body, headers)
