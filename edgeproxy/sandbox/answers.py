"""The answers that are not the usual 200."""

from aiohttp import web

from edgeproxy.sandbox.faults import Faults


def faulty(faults: Faults) -> web.Response:
    status = faults.status or 200
    if status < 300:
        response = web.json_response({"success": True}, status=status)
        if status in {204, 205}:
            response = web.Response(status=status)
    else:
        response = error(status, "fault", f"Answered {status} as PUT /faults asked.")
    if 300 <= status < 400:
        response.headers["Location"] = "/redirected"
    if faults.retry_after is not None:
        after = faults.retry_after
        response.headers["Retry-After"] = after if isinstance(after, str) else f"{after:g}"
    return response


def error(status: int, code: str, message: str) -> web.Response:
    return web.json_response(
        {"success": False, "error": message, "code": code, "message": message}, status=status
    )
