"""The server's end: Flower's SuperLink in a thread of the server's own process."""

import asyncio
import contextlib
import hmac
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gxdistill.errors import UserError
from gxdistill.federated.exchange import Packet, RefusedError
from gxdistill.federated.flower.messages import check_installed, from_message, to_message

_MAX_BODY_BYTES = 16 << 20  # Of a request; Flower cuts arrays into pieces of 5 MiB.
_BODY_S = 60.0  # For the body of a request.
_LOOK_S = 0.05  # Between two looks at whether they have started.
_STOP_S = 2  # For the requests under way when the servers end.


class Endpoint(NamedTuple):
    """Where a server listens, and by which certificate it is known.

    Attributes:
      host: address.
      port: 0 takes a free one.
      certificate: PEM, with those between it and its authority.
      key: PEM, the certificate's private key.
    """

    host: str
    port: int
    certificate: Path
    key: Path


class _Door:
    """Lets the sites' requests in, and the server's own with its token; all else stays out."""

    def __init__(self, app: Any, token: bytes, is_open: Callable[[str], bool]):
        self._app, self._token, self._is_open = app, token, is_open

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not self._lets_in(scope):
            await _refuse(scope, send)
            return
        left = _MAX_BODY_BYTES

        async def bounded() -> Any:
            nonlocal left
            event = await asyncio.wait_for(receive(), _BODY_S)
            left -= len(event.get("body", b""))
            if left < 0:
                raise ValueError("a body is too large")
            return event

        with contextlib.suppress(TimeoutError, ValueError):
            await self._app(scope, bounded, send)

    def _lets_in(self, scope: Any) -> bool:
        if self._is_open(scope["path"]):
            return True
        tokens = [value for name, value in scope["headers"] if name == b"flwr-task-token"]
        is_ours = len(tokens) == 1 and hmac.compare_digest(tokens[0], self._token)
        return bool(self._token) and is_ours and scope["path"].startswith("/v1/runtime/")


async def _refuse(scope: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextlib.contextmanager
def superlink(endpoint: Endpoint, keys: Mapping[str, bytes]) -> Iterator["SuperLink"]:
    """Listens for sites for as long as the context lasts.

    Args:
      endpoint: where.
      keys: PEM of the public key of each site that may take part, by its name.

    Yields:
      The link to the sites.

    Raises:
      UserError: the address is taken, or the certificate or a key cannot be used.
    """
    check_installed()
    from flwr.supercore.heartbeat import HeartbeatSender
    from flwr.superlink.grid import HttpGrid
    from flwr.superlink.main import create_app

    _check_certificate(endpoint)
    with _listening(endpoint.host, endpoint.port) as outer, _listening("127.0.0.1", 0) as inner:
        # Without a configuration: none of Flower's other servers is started, nor any program.
        app = create_app()
        app.state.enable_supernode_auth = True
        state = app.state.linkstate_factory.state()
        state.activate_node = _taking_over(state)
        nodes = {_registered(state, name, pem): name for name, pem in keys.items()}
        run, token = _started(state)
        _pass_by_proxies("127.0.0.1")
        beat = HeartbeatSender(lambda: bool(state.acknowledge_task_heartbeat(run.primary_task_id)))
        grid = HttpGrid(f"127.0.0.1:{inner.getsockname()[1]}", insecure=True, token=token)
        grid.set_run(run)
        with _serving(_servers(app, endpoint, token, outer, inner)):
            beat.start()
            try:
                yield SuperLink(grid, state, nodes, f"{endpoint.host}:{outer.getsockname()[1]}")
            finally:
                beat.stop()
                grid.close()


def _pass_by_proxies(host: str) -> None:
    """Keeps what this process tells itself from a proxy that the environment names."""
    names = ("no_proxy", "NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, (*map(os.environ.get, names), host)))


def _taking_over(state: Any) -> Callable[[int, float], bool]:
    """Lets a site that was killed and started anew take its own place.

    Flower counts it as there for another minute, and would refuse it meanwhile.
    """
    activate = state.activate_node

    def take_over(node_id: int, heartbeat_interval: float) -> bool:
        state.deactivate_node(node_id)
        return bool(activate(node_id, heartbeat_interval))

    return take_over


def _registered(state: Any, name: str, pem: bytes) -> int:
    """Registers a site, and returns Flower's number of it."""
    from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID

    key = _public_key(pem, name)
    try:
        return int(state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0))
    except ValueError as error:
        raise UserError(
            f"The key of site {name} is that of another site, too. Each makes its own by "
            f"`gxdistill federate key`."
        ) from error


def _started(state: Any) -> tuple[Any, str]:
    """Starts what Flower calls a run, and takes on its one task; returns that task's token, too."""
    from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID
    from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
    from flwr.supercore.task_identity import TaskIdentity

    run_id = state.create_run(
        None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
    )
    (run,) = state.get_run_info(run_ids=[run_id])
    token = state.claim_task(run.primary_task_id)
    state.activate_task(run.primary_task_id)
    TaskIdentity.task_id, TaskIdentity.run_id = run.primary_task_id, run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    return run, token


def _servers(
    app: Any, endpoint: Endpoint, token: str, outer: socket.socket, inner: socket.socket
) -> list[tuple[Any, socket.socket]]:
    """Makes the two doors of the SuperLink: for sites under TLS, and for this very process."""
    import uvicorn

    quiet = {"log_config": None, "log_level": "critical"}  # Strangers fill no log.
    shut = {"access_log": False, "server_header": False, "lifespan": "off", "ws": "none"}
    plain = {**quiet, **shut, "timeout_graceful_shutdown": _STOP_S}
    tls = {"ssl_certfile": str(endpoint.certificate), "ssl_keyfile": str(endpoint.key)}
    fleet = _Door(app, b"", lambda path: path.startswith("/v1/fleet/"))
    local = _Door(app, token.encode(), lambda _: False)
    return [
        (uvicorn.Server(uvicorn.Config(fleet, **plain, **tls)), outer),
        (uvicorn.Server(uvicorn.Config(local, **plain)), inner),
    ]


@contextlib.contextmanager
def _serving(servers: list[tuple[Any, socket.socket]]) -> Iterator[None]:
    async def serve() -> None:
        await asyncio.gather(*(server.serve(sockets=[listener]) for server, listener in servers))

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="superlink", daemon=True)
    thread.start()
    while not all(server.started for server, _ in servers):
        if not thread.is_alive():
            raise RuntimeError("Flower's SuperLink did not start.")
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        for server, _ in servers:
            server.should_exit = True
        thread.join()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise UserError(
            f"{host}:{port} cannot be listened at: {error.strerror or error}. Choose another "
            f"--host or --port."
        ) from error


def _check_certificate(endpoint: Endpoint) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(endpoint.certificate, endpoint.key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"{endpoint.certificate} and {endpoint.key} cannot be used as certificate and private "
            f"key: {error.strerror or error}. Both must be PEM, and belong together."
        ) from error


class SuperLink(NamedTuple):
    """The server's end: a `Link`.

    Attributes:
      grid: of Flower.
      state: of Flower.
      nodes: names of the sites, by Flower's number of each.
      address: `HOST:PORT` at which it listens.
    """

    grid: Any
    state: Any
    nodes: Mapping[int, str]
    address: str

    def present(self) -> frozenset[str]:
        """See `Link`."""
        return frozenset(self.nodes[i] for i in self.grid.get_node_ids() if i in self.nodes)

    def exchange(
        self, packets: Mapping[str, Packet], timeout: float
    ) -> dict[str, "Packet | RefusedError"]:
        """See `Link`."""
        numbers = {name: number for number, name in self.nodes.items()}

        def ask(name: str) -> "Packet | RefusedError | None":
            return self._ask(numbers[name], packets[name], timeout)

        # What a site sends may break Flower's reader: each has one of its own.
        with ThreadPoolExecutor(max_workers=max(len(packets), 1)) as pool:
            answers = zip(packets, pool.map(ask, packets), strict=True)
            return {name: packet for name, packet in answers if packet is not None}

    def _ask(self, node: int, packet: Packet, timeout: float) -> "Packet | RefusedError | None":
        from flwr.common.constant import ErrorCode

        message = to_message(packet, dst_node_id=node, message_type="train", ttl=timeout)
        try:
            for reply in self.grid.send_and_receive([message], timeout=timeout):
                if reply.metadata.src_node_id == node:
                    return from_message(reply)
                if reply.error.code == ErrorCode.NODE_UNAVAILABLE:
                    return RefusedError("it went away")
            return None
        except RefusedError as refused:
            return refused
        except Exception as error:  # Whatever Flower's reader stumbles upon.
            return RefusedError(f"Flower cannot read its answer ({type(error).__name__})")
        finally:  # Flower keeps what was never fetched, and that is a network's weights.
            self.state.object_store.delete(message.metadata.message_id)


def _public_key(pem: bytes, name: str) -> bytes:
    """Reads the public key of a site as Flower wants it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, uses_nist_ec_curve

    try:
        key = load_pem_public_key(pem)
        if not uses_nist_ec_curve(key):
            raise ValueError
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"The key of site {name} is no public key of a federation. The site makes one by "
            f"`gxdistill federate key`, and sends the file .pub."
        ) from error
    return public_key_to_bytes(key)
