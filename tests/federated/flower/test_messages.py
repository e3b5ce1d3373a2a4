"""Packets through Flower's messages, and what a stranger may put into one."""

import io
import pickle

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from gxdistill.federated.exchange import Packet, RefusedError
from gxdistill.federated.flower.messages import from_message, to_message

ABOUT = {"dst_node_id": 1, "message_type": "train"}


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 2, 3


def _npy(array=None, *, header=None):
    stream = io.BytesIO()
    if header is None:
        np.save(stream, array, allow_pickle=True)
    else:
        np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _sent(data, *, stype="numpy.ndarray", name="00000", fields=None):
    array = Array("float32", (1,), stype, data)
    records = {
        "arrays": ArrayRecord({name: array}),
        "fields": ConfigRecord(fields or {"kind": "x"}),
    }
    return Message(RecordDict(records), **ABOUT)


def test_a_packet_survives_with_every_bit():
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(3, 4)).astype(np.float32),
        np.float32(-0.0)[None],
        np.zeros((0, 2), np.float32),
        np.array(7, np.int32),
        np.asfortranarray(rng.normal(size=(5, 6)).astype(np.float32)),
    ]
    fields = {"kind": "round", "round": 7, "loss": 0.1}
    read = from_message(to_message(Packet(arrays, fields), **ABOUT))
    assert read.fields == fields
    for array, came in zip(arrays, read.arrays, strict=True):
        assert (came.dtype, came.shape) == (array.dtype, array.shape)
        assert came.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (lambda: _sent(_npy(np.array([{}], object))), "cannot be read"),
        (lambda: _sent(pickle.dumps(np.zeros(3))), "cannot be read"),
        (lambda: _sent(b""), "cannot be read"),
        (lambda: _sent(_npy(np.zeros(3, np.float32))[:-1]), "cannot be read"),
        (lambda: _sent(_npy(np.zeros(3, np.float32)) + b"x"), "cannot be read"),
        (lambda: _sent(_npy(np.zeros(3)), stype="torch"), "cannot be read"),
        (
            # Would take 4 TB if it were believed.
            lambda: _sent(
                _npy(header={"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
            ),
            "cannot be read",
        ),
        (
            lambda: _sent(_npy(header={"descr": "<f4", "fortran_order": True, "shape": (1, 2)})),
            "cannot be read",
        ),
        (lambda: _sent(_npy(np.zeros(1)), name="weights"), "named in another way"),
        (
            lambda: _sent(_npy(np.zeros(1)), fields={str(i): i for i in range(40)}),
            "too many fields",
        ),
        (lambda: Message(RecordDict({"m": MetricRecord({"x": 1})}), **ABOUT), "other parts"),
        (lambda: Message(RecordDict(), **ABOUT), "other parts"),
        (
            lambda: Message(
                RecordDict({"arrays": ConfigRecord(), "fields": ArrayRecord()}), **ABOUT
            ),
            "other parts",
        ),
    ],
)
def test_what_is_no_packet_is_refused_without_a_byte_that_did_not_come(message, fault):
    with pytest.raises(RefusedError, match=fault):
        from_message(message())
