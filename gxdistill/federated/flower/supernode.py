"""A site's end: a SuperNode that answers by a function of its own."""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gxdistill.errors import UserError
from gxdistill.federated import exchange
from gxdistill.federated.exchange import Packet
from gxdistill.federated.flower.messages import check_installed, from_message, to_message
from gxdistill.runtime import interrupts
from gxdistill.runtime.console import Log

_LOOK_S = 1.0  # Between two looks for a message.
_PAUSE_S = 5.0  # Before the server is looked for again.
_LINGER_S = 4.0  # After the last answer, which the server must have fetched.

# Answers a packet; the second value tells that it was the last.
Respond = Callable[[Packet], tuple[Packet, bool]]


class Connection(NamedTuple):
    """How a site reaches its server.

    Attributes:
      server: `HOST:PORT`.
      authority: PEM of who signed the server's certificate.
      key: PEM of the site's private key.
    """

    server: str
    authority: Path
    key: Path


class _LostError(Exception):
    """The server does not answer, and may later."""


def check(connection: Connection) -> None:
    """Refuses a connection that cannot come about, before any work is done.

    Raises:
      UserError: Flower is not installed, or a file is none of a key or of an authority.
    """
    check_installed()
    _private_key(connection.key)
    _authority(connection.authority)


def take_part(connection: Connection, respond: Respond, log: Log) -> None:
    """Answers what the server asks until it says that it was the last.

    A server that is not there is looked for again, for as long as it takes. What `respond` raises
    is told to the server by the name of its class alone, and to this site's log in full.

    Args:
      connection: to the server.
      respond: computes the answers.
      log: told what happens.

    Raises:
      UserError: the server is not who it should be, speaks no TLS, or does not know the key.
    """
    check(connection)
    is_last, said = False, ""
    while not is_last:
        try:
            with _client(connection) as client, _activated(connection, client) as node:
                log(f"connected to {connection.server}")
                said = ""
                while not is_last:
                    is_last = _answer_next(client, node, respond, log)
                time.sleep(_LINGER_S)
        except _LostError as lost:
            if str(lost) != said:
                log(f"{lost}; looking for it again every {_PAUSE_S:g} s")
                said = str(lost)
            time.sleep(_PAUSE_S)


def _client(connection: Connection) -> Any:
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = _private_key(connection.key)
    identity = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    authority = _authority(connection.authority)
    return FleetHttpClient.from_server_address(
        connection.server, False, authority, interceptors=identity
    )


@contextlib.contextmanager
def _activated(connection: Connection, client: Any) -> Iterator[Any]:
    """Takes this site's place at the server, and keeps it; yields Flower's node."""
    import httpx
    from flwr.common import constant
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.heartbeat import HeartbeatSender
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    public = public_key_to_bytes(_private_key(connection.key).public_key())
    every = {"heartbeat_interval": constant.HEARTBEAT_DEFAULT_INTERVAL}
    with _told(connection):
        request = ActivateNodeRequest(public_key=public, **every)
        node = Node(node_id=client.ActivateNode(request).node_id)

    def beat() -> bool:
        with contextlib.suppress(httpx.HTTPError):  # Whoever waits for a message hears of it.
            client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=node, **every))
        return True

    sender = HeartbeatSender(beat)
    sender.start()
    try:
        yield node
    except Exception as error:  # Whatever Flower's client stumbles upon.
        raise _LostError(f"{connection.server} is lost ({type(error).__name__})") from error
    finally:
        sender.stop()
        with contextlib.suppress(httpx.HTTPError):
            client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))


@contextlib.contextmanager
def _told(connection: Connection) -> Iterator[None]:
    """Says why a site is not let in."""
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (502, 503, 504):
            raise _LostError(f"{connection.server} is busy") from error
        raise UserError(
            f"{connection.server} does not let this site in (status {status}): its operator must "
            f"have the public key that belongs to {connection.key}, and the clocks must agree."
        ) from error
    except httpx.TransportError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise UserError(
                f"{connection.server} has no certificate that {connection.authority} vouches for: "
                f"{_reason(error)}. Nothing was sent. Ask its operator for the authority's file, "
                f"and name the server as its certificate does."
            ) from error
        if "SSL" in str(error):
            raise UserError(
                f"{connection.server} does not speak TLS as it must: {_reason(error)}. Nothing was "
                f"sent."
            ) from error
        raise _LostError(f"{connection.server} does not answer") from error


def _reason(error: Exception) -> str:
    return str(error).partition("] ")[2].partition(" (_ssl")[0] or type(error).__name__


def _answer_next(client: Any, node: Any, respond: Respond, log: Log) -> bool:
    """Waits for a message and answers it; tells whether it was the last."""
    from flwr.app import Message
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree

    interrupts.check()
    pulled = client.PullMessages(PullMessagesRequest(node=node))
    if not pulled.messages_list:
        time.sleep(_LOOK_S)
        return False
    run_id = pulled.messages_list[0].metadata.run_id
    tree = pulled.message_object_trees[0]

    def confirm(object_id: str) -> None:
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=node, run_id=run_id, message_object_id=object_id)
        )

    pull = make_pull_object_fn_protobuf(client.PullObject, node, run_id)
    message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
    message.metadata.__dict__["_message_id"] = tree.object_id
    try:
        packet, is_last = respond(from_message(message))
    except Exception as error:  # What it says stays here: it may name files and patients.
        log(f"warning: this round failed here: {type(error).__name__}: {error}")
        packet, is_last = exchange.fault(error), False
    _send(client, node, to_message(packet, reply_to=message))
    return is_last


def _send(client: Any, node: Any, message: Any) -> None:
    from flwr.app.message import remove_content_from_message
    from flwr.common.serde import message_to_proto
    from flwr.proto.fleet_pb2 import PushMessagesRequest
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import push_objects

    message.metadata.__dict__["_message_id"] = message.object_id
    run_id = message.metadata.run_id
    with no_object_id_recompute():
        bare = message_to_proto(remove_content_from_message(message))
        request = PushMessagesRequest(
            node=node,
            messages_list=[bare],
            message_object_trees=[get_object_tree(message)],
            clientapp_runtime_list=[0.0],
        )
        response = client.PushMessages(request)
        push_objects(
            get_all_nested_objects(message),
            make_push_object_fn_protobuf(client.PushObject, node, run_id, response.session_id),
            object_ids_to_push=set(response.objects_to_push),
        )


def _private_key(path: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{path} cannot be used as a private key: "
            f"{getattr(error, 'strerror', None) or 'it is none'}. `gxdistill federate key` makes "
            f"one."
        ) from error


def _authority(path: Path) -> bytes:
    try:
        authority = path.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata=authority.decode("ascii")
        )
    except (OSError, ValueError, ssl.SSLError) as error:
        raise UserError(
            f"{path} cannot be used as the authority of a server's certificate: "
            f"{getattr(error, 'strerror', None) or 'it is none'}. Name its operator's ca.pem."
        ) from error
    return authority
