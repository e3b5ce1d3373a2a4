"""The client's record: who was mixed with what, and when a second mixing is refused."""

import hashlib
import json
import stat

import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.mixup.mixing import exposure
from gxdistill.tasks.mixup import mixings
from gxdistill.tasks.mixup.mixings import Mixing

SLICES = np.random.default_rng(0).integers(0, 256, (3, 8, 6), np.uint8)


def _fresh(*shares):
    return [Mixing(f"{number:064x}", share) for number, share in enumerate(shares)]


@pytest.fixture
def record(tmp_path):
    """The record after a patient was mixed once, as it is read back."""
    path = tmp_path / "mixings.json"
    plan = mixings.plan(mixings.read(path), ["Ada", "4711"], SLICES, _fresh(0.4))
    mixings.write(path, plan.record)
    return path


def test_the_same_slices_are_sent_as_the_same_mixture(record):
    other = [Mixing("f" * 64, 0.31)]
    plan = mixings.plan(mixings.read(record), ["Ada"], SLICES, other)
    assert plan.mixings == tuple(_fresh(0.4))
    assert plan.exposure == exposure([0.4])
    assert len(plan.record.entries) == 1


@pytest.mark.parametrize(
    ("names", "slices", "count"),
    [
        (["Ada"], SLICES, 2),  # More references.
        (["4711"], SLICES + 1, 1),  # Another image of the patient.
        (["somebody else"], SLICES, 3),  # The same image under another name.
        (["somebody else"], np.concatenate([SLICES[1:2], SLICES + 9]), 1),  # One slice of it.
    ],
)
def test_a_second_mixing_is_refused_unless_it_is_allowed(record, names, slices, count):
    fresh = _fresh(*[0.35] * count)
    with pytest.raises(UserError, match="mixed before"):
        mixings.plan(mixings.read(record), names, slices, fresh)
    plan = mixings.plan(mixings.read(record), names, slices, fresh, again=True)
    assert plan.mixings == tuple(fresh)
    assert plan.exposure == exposure([0.4, *[0.35] * count])


def test_another_patient_is_mixed(record):
    plan = mixings.plan(mixings.read(record), ["Grace"], SLICES + 1, _fresh(0.45))
    assert plan.mixings == tuple(_fresh(0.45))
    assert len(plan.record.entries) == 2


def test_the_record_holds_neither_names_nor_plain_hashes(record):
    text = record.read_text()
    plain = hashlib.sha256(SLICES[0].tobytes()).hexdigest()
    for told in ("Ada", "4711", plain, hashlib.sha256(b"Ada").hexdigest()):
        assert told not in text
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    again = mixings.plan(mixings.read(record.with_name("x")), ["Ada"], SLICES, _fresh(0.4))
    assert not {*again.record.entries[0].names} & {*json.loads(text)["entries"][0]["names"]}


def test_a_damaged_record_stops_everything(record):
    record.write_text('{"entries": [{}]}')
    with pytest.raises(UserError, match="may be mixed twice"):
        mixings.read(record)
