"""A server and sites of a federation in one process, on loopback and under TLS."""

import contextlib
import threading

from gxdistill.federated.exchange import Packet
from gxdistill.federated.flower import superlink, supernode
from gxdistill.service import certificates
from gxdistill.tasks.federation import keys


def make_files(folder, names):
    """Certificates for loopback, and the keys of sites, by name."""
    files = certificates.make(folder, ["localhost", "127.0.0.1"])
    return files, {name: keys.make(folder, name) for name in names}


def registered(pairs, names):
    """The public keys of some sites."""
    return {name: pairs[name].public.read_bytes() for name in names}


def endpoint(files, port=0):
    return superlink.Endpoint("127.0.0.1", port, files.server, files.key)


def connection(link, files, pair):
    return supernode.Connection(link.address, files.authority, pair.private)


def echo(packet):
    """Sends back what came, with a field more."""
    if packet.fields["kind"] == "end":
        return Packet((), {"kind": "end"}), True
    return packet._replace(fields={**packet.fields, "seen": 1}), False


@contextlib.contextmanager
def site(link, files, pair, respond=echo, log=lambda _: None):
    """Takes part in a thread for as long as the context lasts, or until it is dismissed."""
    thread = threading.Thread(
        target=supernode.take_part,
        args=(connection(link, files, pair), respond, log),
        daemon=True,
    )
    thread.start()
    yield thread
    thread.join(30)
    assert not thread.is_alive()
