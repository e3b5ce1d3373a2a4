"""The server: TLS, signals, and a new model while requests are answered."""

import asyncio
import dataclasses
import json
import signal
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.runtime.console import Log
from gxdistill.service.model import SIZES, Compilations, CompiledModel, Load
from gxdistill.service.protocol import Limits
from gxdistill.service.state import State
from gxdistill.service.tokens import TokenFile
from gxdistill.service.usage import Usage

if TYPE_CHECKING:
    from hypercorn.asyncio.tcp_server import TCPServer
    from hypercorn.config import Config

_LOOK_S = 1.0  # Between two looks at the model's file.
_GRACE_S = 5.0  # Beside the deadlines of what is under way, until a stopping server gives up.


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a server runs.

    Attributes:
      model: file of the model; another in its place is taken while the server runs.
      certificate: PEM, with those between it and its authority.
      key: PEM, the certificate's private key.
      tokens: file of `tokens.make`.
      journal: file of what was served.
      host: address to listen at.
      port: 0 takes a free one.
      limits: see `Limits`.
      sizes: images of a batch.
      together: whether requests of several clients share a batch.
    """

    model: Path
    certificate: Path
    key: Path
    tokens: Path
    journal: Path
    host: str = "127.0.0.1"
    port: int = 8443
    limits: Limits = dataclasses.field(default_factory=Limits)
    sizes: Sequence[int] = SIZES
    together: bool = True


def serve(settings: Settings, load: Load, log: Log) -> None:
    """Serves until SIGTERM or SIGINT; requests that were accepted are then answered.

    Args:
      settings: see `Settings`.
      load: reads and verifies the model's file.
      log: gets one JSON object for each request and event.

    Raises:
      UserError: the model, the certificate or the tokens cannot be used, the address is taken, or
        the extra `serve` is not installed.
    """
    try:
        import hypercorn  # noqa: F401
        import starlette  # noqa: F401
    except ImportError as error:
        raise UserError(
            "The server needs the libraries of the extra serve. Install them by "
            "`pip install '.[serve]'`."
        ) from error
    config = _config(settings)
    state = State(
        TokenFile(settings.tokens),
        usage := Usage(settings.journal),
        settings.limits,
        together=settings.together,
    )
    compilations = Compilations()
    state.metrics.gauges["compilations_under_load"] = lambda: compilations.count
    with _listening(settings) as listener:
        stamp = _stamp(settings.model)  # Before it is read: it may be replaced meanwhile.
        with compilations.expected():
            state.take(CompiledModel(load(settings.model), settings.sizes))
        where = f"https://{settings.host}:{listener.getsockname()[1]}"
        log(json.dumps({"event": "ready", "url": where, "model": state.digests()[0]}))
        config.bind = [f"fd://{listener.detach()}"]  # Which closes it.
        server = _Server(settings, load, log, state, compilations, stamp)
        asyncio.run(server.run(config))
    usage.close()
    log(json.dumps({"event": "stopped"}))


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise UserError(
            f"{settings.host}:{settings.port} cannot be listened at: {error.strerror or error}. "
            f"Choose another --host or --port."
        ) from error


def _config(settings: Settings) -> "Config":
    from hypercorn.config import Config

    limits = settings.limits

    class Tightened(Config):
        """With what a stranger may not do before a request is ours to judge."""

        def create_ssl_context(self) -> ssl.SSLContext:
            context = super().create_ssl_context()
            assert context is not None  # There are certificate and key.
            context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
            return context

    config = Tightened()
    config.certfile, config.keyfile = str(settings.certificate), str(settings.key)
    config.alpn_protocols = ["http/1.1"]
    config.ssl_handshake_timeout = limits.handshake_s
    # Runs from the first byte that may come to the end of a header, slow or not, and between two
    # requests.
    config.keep_alive_timeout = limits.header_s
    config.read_timeout = int(max(limits.header_s, limits.body_s, limits.answer_s)) + 1
    config.graceful_timeout = limits.body_s + limits.answer_s + limits.write_s + _GRACE_S
    config.accesslog = config.errorlog = None  # The application logs, and says less.
    config.include_server_header = False
    try:
        config.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"{settings.certificate} and {settings.key} cannot be used as certificate and private "
            f"key: {error.strerror or error}. Both must be PEM, and belong together."
        ) from error
    return config


def _connections(log: Log) -> type["TCPServer"]:
    from hypercorn.asyncio.tcp_server import TCPServer

    class Contained(TCPServer):
        """A connection whose failure ends nothing but itself.

        When Hypercorn stops, the first connection that fails takes the server with it, and what
        others wait for is lost. It takes no more than a client who sends on while it is closed:
        TLS then raises `ssl.SSLError`, which Hypercorn lets through.
        """

        async def run(self) -> None:
            try:
                await super().run()
            except Exception as error:
                log(json.dumps({"event": "connection failed", "reason": type(error).__name__}))

    return Contained


class _NoHTTP2:
    """Closes a connection that turns to HTTP/2.

    Hypercorn changes over whatever ALPN agreed on, and none of our deadlines holds there: such a
    connection stayed open without end.
    """

    def __init__(self, *arguments: Any):
        self._send = arguments[-1]

    async def initiate(self, *_: Any) -> None:
        from hypercorn.events import Closed

        await self._send(Closed())

    async def handle(self, _: Any) -> None:
        """Takes no more."""


@dataclasses.dataclass(frozen=True)
class _Server:
    settings: Settings
    load: Load
    log: Log
    state: State
    compilations: Compilations
    stamp: tuple[int, int, int] | None

    async def run(self, config: "Config") -> None:
        import hypercorn.asyncio.run
        import hypercorn.protocol
        from hypercorn.asyncio import serve

        from gxdistill.service import app

        hypercorn.protocol.H2Protocol = _NoHTTP2  # type: ignore[attr-defined, assignment]
        hypercorn.asyncio.run.TCPServer = _connections(self.log)  # type: ignore[attr-defined]

        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def begin_to_stop() -> None:
            self.state.is_draining = True
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, begin_to_stop)
        helpers = [loop.create_task(self.state.batcher.run()), loop.create_task(self._watch())]
        try:
            application = app.create(self.state, self.log)
            await serve(application, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _watch(self) -> None:
        """Takes a new model when its file was replaced; what cannot be used changes nothing."""
        seen = self.stamp
        while True:
            await asyncio.sleep(_LOOK_S)
            stamp = _stamp(self.settings.model)
            if stamp in (seen, None):
                continue
            seen = stamp
            try:
                model = await asyncio.to_thread(self._compiled)
            except (UserError, ValueError) as error:
                self.log(json.dumps({"event": "model refused", "reason": str(error)}))
                continue
            if model.model.digest != self.state.digests()[0]:
                self.state.take(model)
            self.log(json.dumps({"event": "model", "models": self.state.digests()}))

    def _compiled(self) -> CompiledModel:
        with self.compilations.expected():
            return CompiledModel(self.load(self.settings.model), self.settings.sizes)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def totals(journal: Path) -> dict[str, tuple[int, int]]:
    """Returns the requests and images that each token was served, by its id.

    Raises:
      UserError: there is no journal.
    """
    with storage.reading(journal):
        journal.stat()
    usage = Usage(journal)
    try:
        return usage.totals()
    finally:
        usage.close()
