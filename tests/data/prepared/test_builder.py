import hashlib
import itertools
import json

import numpy as np
import pytest

from gxdistill.data.prepared import builder, parts
from gxdistill.pytrees import Cohort


@pytest.fixture
def cohort():
    rng, n = np.random.default_rng(0), 10
    return Cohort(
        images=rng.integers(0, 256, (n, 12, 9, 1), np.uint8),
        masks=rng.random((n, 12, 9)) < 0.5,
        labels=np.arange(n, dtype=np.int32) % 2,
        patients=np.array([f"patient {i // 2}" for i in range(n)]),
        sites=np.array([f"hospital {i % 3}" for i in range(n)]),
        splits=np.array(["train"] * 6 + ["test"] * 4),
        names=np.array([f"{i}.png" for i in range(n)]),
        class_names=("irrelevant", "negative", "positive"),
    )


@pytest.fixture
def made(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_PART_IMAGES", 4)
    names = parts.pseudonyms(tmp_path / "pseudonyms.json", cohort.sites.tolist())
    return parts.parts_of_cohort(cohort, names)


@pytest.mark.slow
def test_beam_writes_the_same_records(cohort, made, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra `beam`")
    import tensorflow_datasets as tfds

    splits = {k: list(v) for k, v in itertools.groupby(made, lambda part: part.split)}
    by_beam = builder.builder(made[0].form, tmp_path, "1.0.0", splits)
    by_beam.download_and_prepare(file_format="array_record")
    for split in ("train", "test"):
        records = tfds.builder_from_directory(by_beam.data_dir).as_data_source(split)
        in_split = cohort.select(cohort.splits == split)
        seen = {record["image"].tobytes(): record for record in records}
        assert len(seen) == len(records) == len(in_split.images)
        for image, mask, label in zip(
            in_split.images, in_split.masks, in_split.labels, strict=True
        ):
            np.testing.assert_array_equal(seen[image.tobytes()]["mask"], mask)
            assert seen[image.tobytes()]["label"] == label


def test_patients_are_named_by_a_keyed_hash_and_sites_by_a_code(made, tmp_path):
    salt = bytes.fromhex(json.loads((tmp_path / "pseudonyms.json").read_text())["salt"])
    assert len(salt) == 32
    inner, outer = (bytes(b ^ pad for b in salt.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    entries = [entry for part in made for entry in part.entries]
    assert sorted(entry.line for entry in entries) == list(range(10))
    for entry in entries:  # RFC 2104, step by step
        patient = f"patient {entry.line // 2}".encode()
        digest = hashlib.sha256(outer + hashlib.sha256(inner + patient).digest()).hexdigest()
        assert entry.patient == digest[:16]
        assert entry.site == f"site-{entry.line % 3}"


def test_parts_are_of_one_split_and_few_images(made):
    assert [(part.split, len(part.entries)) for part in made] == [
        ("train", 4),
        ("train", 2),
        ("test", 4),
    ]
    assert len({part.inputs for part in made}) == 3
    assert made[0].without({99}) is made[0]
    less = made[0].without({1, 2})
    assert [entry.line for entry in less.entries] == [0, 3]
    assert less.inputs != made[0].inputs


def test_pseudonyms_stay_and_new_sites_are_added(tmp_path):
    path = tmp_path / "pseudonyms.json"
    first = parts.pseudonyms(path, ["b", "a"])
    assert first.sites == {"a": "site-0", "b": "site-1"}
    later = parts.pseudonyms(path, ["0", "b"])
    assert later.sites == {"a": "site-0", "b": "site-1", "0": "site-2"}
    assert later.salt == first.salt
    other = parts.pseudonyms(tmp_path / "other.json", ["a"])
    assert other.salt != first.salt
