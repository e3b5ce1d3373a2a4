"""Packets as messages of Flower, and back."""

import logging
import os
from io import BytesIO
from typing import Any

import numpy as np

from gxdistill.errors import UserError
from gxdistill.federated.exchange import Packet, RefusedError

_MOST_ARRAYS = 10_000  # Of a message.
_MOST_FIELDS = 32
_MAX_HEADER_BYTES = 1 << 16  # Of an array.
# What Flower reads of the environment, whatever that says.
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_ENABLE_EVENT_LOG": "0",
    "FLWR_DATABASE": ":flwr-in-memory:",  # No update is ever on the server's disk.
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def check_installed() -> None:
    """Refuses to go on without Flower, and keeps it from calling home.

    Raises:
      UserError: it is not installed.
    """
    os.environ.update(_QUIET)
    try:
        import flwr  # noqa: F401
    except ImportError as error:
        raise UserError(
            "A federation over the network needs Flower, which is not installed. It wants an "
            "environment of its own: `make setup-federated`, then "
            "`.venv-federated/bin/gxdistill federate ...`; or there "
            "`pip install -c constraints-federated.txt '.[federated]'`."
        ) from error
    logging.getLogger("flwr").setLevel(logging.CRITICAL)


def to_message(packet: Packet, **about: Any) -> Any:
    """Makes a message of Flower."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

    arrays = {f"{i:05d}": Array(np.asarray(a, order="C")) for i, a in enumerate(packet.arrays)}
    content = {"arrays": ArrayRecord(arrays), "fields": ConfigRecord(dict(packet.fields))}
    return Message(RecordDict(content), **about)


def from_message(message: Any) -> Packet:
    """Reads a message of Flower, which a stranger may have made.

    Raises:
      RefusedError: it is not of the form of `to_message`.
    """
    from flwr.app import ArrayRecord, ConfigRecord

    if message.has_error():
        raise RefusedError("Flower could not deliver its answer")
    content = message.content
    parts = {name: type(record) for name, record in content.items()}
    if parts != {"arrays": ArrayRecord, "fields": ConfigRecord}:
        raise RefusedError("its message has other parts than it must have")
    names = list(content["arrays"])
    if len(names) > _MOST_ARRAYS or names != [f"{i:05d}" for i in range(len(names))]:
        raise RefusedError("its arrays are named in another way than they must be")
    fields = dict(content["fields"])
    if len(fields) > _MOST_FIELDS:
        raise RefusedError("its message has too many fields")
    arrays = [_array(content["arrays"][name]) for name in names]
    return Packet(arrays, {str(name): value for name, value in fields.items()})


def _array(sent: Any) -> np.ndarray:
    """Reads an array without a byte that did not come: NumPy would allocate what a header says."""
    stream = BytesIO(sent.data)
    try:
        if sent.stype != "numpy.ndarray" or np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(
            stream, max_header_size=_MAX_HEADER_BYTES
        )
        if fortran or dtype.hasobject:
            raise ValueError
        return np.frombuffer(sent.data, dtype, offset=stream.tell()).reshape(shape)
    except ValueError as error:
        raise RefusedError("one of its arrays cannot be read") from error
