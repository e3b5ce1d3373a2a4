"""The server's routes: what of HTTP becomes a request, and how its answer becomes HTTP again.

Imported only where a server starts: Starlette is an extra.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gxdistill.runtime.console import Log
from gxdistill.service import metrics, protocol
from gxdistill.service.protocol import RefusedError
from gxdistill.service.state import Asked, State
from gxdistill.service.tokens import Token

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_LINGER_S = 2.0  # For which the rest of a refused body is taken, so that the refusal is read.


def create(state: State, log: Log) -> App:
    """Makes the application, an ASGI callable.

    Args:
      state: what requests share.
      log: gets one JSON object a request, without its content and without tokens.
    """
    app = Starlette(
        routes=[
            Route(protocol.SEGMENT, _segment, methods=["POST"]),
            Route(protocol.MODEL, _model),
            Route(protocol.HEALTH, _health),
            Route(protocol.READY, _ready),
            Route(protocol.METRICS, _metrics),
        ],
        exception_handlers={RefusedError: _refused, HTTPException: _not_here},  # type: ignore[dict-item]
    )
    app.state.service = state
    return _watched(app, state, log)


def _state(request: Request) -> State:
    state: State = request.app.state.service
    return state


def _token(request: Request) -> Token:
    token = _state(request).tokens.find(request.headers.get("authorization"))
    if token is None:
        raise RefusedError(401, "token", "A valid token is missing. Ask the operator for one.")
    request.scope["token"] = token.id
    return token


async def _segment(request: Request) -> Response:
    state, headers = _state(request), request.headers
    try:
        token = _token(request)
        identity = headers.get(protocol.REQUEST_ID) or ""
        request.scope["request"] = protocol.short(identity)
        digest = protocol.read_digest(headers.get(protocol.EXPECTED_MODEL))
        most = state.check(digest, identity)
        if headers.get("content-type", "").lower() != protocol.MEDIA_TYPE:
            raise RefusedError(415, "media-type", f"The body must be {protocol.MEDIA_TYPE}.")
        place = state.admission.admitted(token.id)
        place.__enter__()
    except RefusedError:
        await _discard(request)
        raise
    try:
        content = await _body(request, most)
        answer, answered_by = await state.answer(Asked(token, identity, digest, content))
    finally:
        place.__exit__(None, None, None)
    tag = protocol.quote_digest(answered_by)
    return Response(answer, headers={protocol.ANSWERED_BY: tag}, media_type=protocol.MEDIA_TYPE)


async def _body(request: Request, most: int) -> bytes:
    """Reads a body of at most so many bytes, in a bounded time."""
    limits = _state(request).limits
    too_large = RefusedError(
        413, "size", f"A body may be of {most} bytes. Send fewer images at a time."
    )
    if int(request.headers.get("content-length", "0")) > most:
        await _discard(request)
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                if len(content) + len(chunk) > most:
                    raise too_large
                content += chunk
    except TimeoutError as error:
        raise RefusedError(
            408, "slow", f"The body was not there within {limits.body_s:g} s."
        ) from error
    except ClientDisconnect as error:
        raise RefusedError(400, "gone", "The connection was closed.") from error
    return bytes(content)


async def _discard(request: Request) -> None:
    """Takes what may still come of a body: a client that is sending reads no refusal."""
    left = _state(request).limits.body_bytes
    try:
        async with asyncio.timeout(_LINGER_S):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return
    except (TimeoutError, ClientDisconnect):
        return


async def _model(request: Request) -> Response:
    _token(request)
    return JSONResponse(_state(request).describe())


async def _health(_: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _ready(request: Request) -> Response:
    is_ready = _state(request).is_ready
    return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)


async def _metrics(request: Request) -> Response:
    _token(request)
    return Response(_state(request).metrics.text(), media_type=metrics.MEDIA_TYPE)


async def _refused(_: Request, error: RefusedError) -> Response:
    headers = {"connection": "close"} if error.status in (400, 401, 408, 413) else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["retry-after"] = f"{max(1, round(error.retry_after))}"
    told = {"error": error.code, "message": error.message}
    return JSONResponse(told, error.status, headers)


async def _not_here(request: Request, error: HTTPException) -> Response:
    await _discard(request)
    return JSONResponse({"error": "path", "message": error.detail}, error.status_code)


def _watched(app: App, state: State, log: Log) -> App:
    """Has each request logged, counted and answered, and its answer taken within a deadline."""

    async def call(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def send_in_time(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            async with asyncio.timeout(state.limits.write_s):
                await send(message)

        try:
            await app(scope, receive, send_in_time)
        except Exception as error:  # ours, or a client that takes nothing: the server goes on
            # Not its text, which may hold what was sent.
            fault = _fault(error)
            log(json.dumps({"event": "fault", "fault": fault}))
            if not status:
                message = {"error": "fault", "message": "The server failed. It was logged."}
                await JSONResponse(message, 500)(scope, receive, send_in_time)
        finally:
            seconds = time.monotonic() - began
            state.metrics.responded(status, seconds)
            line = {
                "event": "request",
                "at": round(time.time(), 3),
                "path": scope["path"] if scope["path"] in _PATHS else "other",
                "status": status,
                "ms": round(1000 * seconds, 1),
                "token": scope.get("token"),
                "request": scope.get("request"),
            }
            log(json.dumps(line))

    return call


_PATHS = (
    protocol.SEGMENT,
    protocol.MODEL,
    protocol.HEALTH,
    protocol.READY,
    protocol.METRICS,
)


def _fault(error: BaseException) -> str:
    """Says where an error arose: its type, and the innermost place."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    code = trace.tb_frame.f_code
    return f"{type(error).__name__} in {code.co_name}:{trace.tb_lineno}"
