import dataclasses
import json
import shutil
import struct
import zlib

import jax
import numpy as np
import pytest
import scipy.special
from PIL import Image

from gxdistill import package
from gxdistill.cli import main
from gxdistill.errors import UserError
from gxdistill.package import shared_values
from gxdistill.package import weights_file as files
from gxdistill.receive import calibrating, networks, predicting
from gxdistill.tasks.distillation import weights
from gxdistill.training.supervised import classification_loss
from tests import small_jobs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A job's essential weights, and what it said."""
    said = []
    few = {"compress__weights__steps": 4, "compress__weights__lr": 1.0, "compress__patches": 60}
    job = small_jobs.make(tmp_path_factory.mktemp("job"), said.append, **few)
    return job, weights.compress(job, 100.0), said


def test_essential_weights_are_small_and_give_the_network_bit_for_bit(written):
    job, path, said = written
    start = job.problem.network.init(job.key(weights.Use.KNOWN))
    assert " values: " in said[-2]
    assert said[-1].startswith(f"essential weights: {path}, {package.size_bytes(path)} bytes")
    trained = networks.from_weights(path)
    assert trained.record["proof"]["equal"]
    params = jax.tree.map(lambda leaf: leaf[0], trained.params)
    coded = shared_values.unpack(package.load_weights(path).codes, start)
    jax.tree.map(np.testing.assert_array_equal, params, shared_values.restored(start, coded))
    assert np.abs(coded.values).max() > 0


def test_the_command_writes_them(written, tmp_path, capsys):
    _, path, _ = written
    few = ("weights.steps=4", "weights.lr=1.0", "patches=60")
    settings = [f"--config.compress.{setting}" for setting in few]
    config = f"--config={small_jobs.ROOT}/configs/demo.py:smoke"
    given = [config, *settings, f"--workdir={tmp_path / 'job'}", "--max-loss=100", "--weights"]
    main.main(["compress", *given])
    assert "essential weights: " in capsys.readouterr().err
    assert (tmp_path / "job/weights.gxw").read_bytes() == path.read_bytes()


def test_they_are_inspected_and_verified(written, tmp_path, capsys):
    _, path, _ = written
    main.main(["inspect", str(path)])
    said = capsys.readouterr().out
    loaded = package.load_weights(path)
    for words in (
        f"{loaded.manifest.name}: essential weights, one trained network",
        "their start of seed 0, moved by coded values",
        f"{package.size_bytes(path)} bytes: codes {len(loaded.codes)}, all else ",
        loaded.sha256,
        loaded.manifest.privacy[:40],
    ):
        assert words in said
    main.main(["verify", str(path)])
    assert capsys.readouterr().out.startswith(f"{path}: whole: no part was damaged on its way.")
    with pytest.raises(SystemExit, match="essential weights, which nobody can sign"):
        main.main(["verify", str(path), "--key=public.pem"])
    harmed = tmp_path / "harmed.gxw"
    harmed.write_bytes(path.read_bytes()[:-1] + b"\0")
    for command in ("verify", "inspect"):
        with pytest.raises(SystemExit, match="holds no essential weights, or was damaged"):
            main.main([command, str(harmed)])


def test_with_more_values_a_network_learns_more(tmp_path):
    job = small_jobs.make(tmp_path, compress__weights__steps=60, compress__weights__lr=0.3)
    start, params = weights.trained(job)
    loss = jax.jit(classification_loss(job.problem.network))
    moved = jax.tree.map(lambda s, p: float(np.abs(s - p).max()), start, params)
    assert min(jax.tree.leaves(moved)) > 0
    pool = job.cohorts.sample("train", 300, jax.random.key(0))
    losses = [float(loss(start, pool))]
    for share in (0.1, 1.0):
        coded = weights.coded(job, start, params, share)
        assert len(coded.values) <= share * sum(leaf.size for leaf in jax.tree.leaves(start))
        restored = shared_values.restored(start, coded)
        losses.append(float(loss(restored, pool)))
    assert losses[2] < losses[1] < losses[0]


def test_values_learn_half_from_classes_and_half_from_the_trained_network(tmp_path):
    job = small_jobs.make(tmp_path)
    start, whole = (job.problem.network.init(jax.random.key(seed)) for seed in (0, 1))
    fineness = shared_values.fineness_of(start, 0.1)
    values = jax.random.normal(jax.random.key(2), (sum(shared_values.counts(start, fineness)),))
    batch = job.cohorts.sample("train", 20, jax.random.key(3))
    fixed = start, shared_values.factors(start), whole
    loss = weights.halfway_loss(job.problem.network, fineness)(values, (batch, fixed))
    coarse = shared_values.moved(
        start, shared_values.factors(start), shared_values.round_values(values), fineness
    )
    logs, thought = (
        scipy.special.log_softmax(
            np.asarray(job.problem.network.apply(p, batch.images), np.float64), -1
        )
        for p in (coarse, whole)
    )
    by_class = -logs[np.arange(len(logs)), batch.targets].mean()
    by_network = -(np.exp(thought) * logs).sum(-1).mean()
    np.testing.assert_allclose(loss, (by_class + by_network) / 2, rtol=1e-5)


def test_essential_weights_decide_images(written, tmp_path):
    job, path, _ = written
    image = np.random.default_rng(0).integers(0, 256, job.cohorts.test.images.shape[1:3], np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    (row,) = predicting.predict(path, [tmp_path / "a.png"], tmp_path / "out", print)
    assert row["decision"] in (*job.cohorts.test.class_names, "undecidable")


def test_a_loss_that_cannot_be_kept_to_is_told(written, monkeypatch):
    job, _, _ = written
    monkeypatch.setattr(weights, "SHARES", (0.1,))
    with pytest.raises(UserError, match=r"loses .* points\. Raise --max-loss, or compress"):
        weights.compress(job, -100.0)


def _resealed(path, change):
    """Changes header and codes as one who knows how to make the sums anew."""
    rest = path.read_bytes()[len(files.MAGIC) + 32 :]
    size = int.from_bytes(rest[:4], "little")
    header, codes = change(zlib.decompress(rest[4 : 4 + size]), rest[4 + size :])
    packed = zlib.compress(header)
    rest = struct.pack("<L", len(packed)) + packed + codes
    path.write_bytes(files.MAGIC + files.hashlib.sha256(rest).digest() + rest)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h, c: (h, c[:-3]), "the codes are followed by others, or cut short"),
        (lambda h, c: (h, c + b"x"), "the codes are followed by others, or cut short"),
        (lambda h, c: (h.replace(b'"seeded"', b'"known"'), c), "without the seed of their start"),
        (lambda h, c: (h.replace(b'"seed": 0', b'"seed": null'), c), "without the seed"),
        (lambda h, c: (h.replace(b'"width": 4', b'"width": 5'), c), "not of this network"),
        (lambda h, c: (h.replace(b'"width": 4', b'"width": 60000'), c), "not of this network"),
        (lambda h, c: (h.replace(b'"depth": 1', b'"depth": 9'), c), "too small"),
        (lambda h, c: (h.replace(b'"purpose"', b'"porpoise"'), c), "unknown field porpoise"),
        (lambda h, c: (b" " * (2 << 20) + h, c), "its header is cut short, or of over 1 MiB"),
        (lambda _, c: (b"[]", c), "holds no JSON object"),
    ],
)
def test_a_forged_file_is_refused(written, tmp_path, change, reason):
    path = tmp_path / "w.gxw"
    shutil.copy(written[1], path)
    _resealed(path, change)
    with pytest.raises(UserError, match=reason):
        networks.from_weights(path)
    with pytest.raises(UserError, match=reason):
        package.verify(path)


def test_a_header_of_before_says_nothing_of_images_and_decides_as_it_did(written, tmp_path):
    def earlier(header, codes):
        table = json.loads(header)
        del table["likeness"], table["image_normalisation"], table["decision"]["share_positive"]
        del table["ledger"], table["decision"]["weights"]
        return json.dumps(table).encode(), codes

    path = tmp_path / "w.gxw"
    shutil.copy(written[1], path)
    before = package.load_weights(path).manifest
    assert 0 <= before.decision.share_positive <= 1
    _resealed(path, earlier)
    silent = dataclasses.replace(before.decision, share_positive=None)
    assert package.load_weights(path).manifest == dataclasses.replace(
        before, image_normalisation="cohort", likeness=None, decision=silent
    )
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"as --prevalence=0\.3, or labels"):
        calibrating.calibrate(path, [tmp_path / "a.png"], tmp_path / "c.json", print)


def test_a_harmed_file_is_refused(written, tmp_path):
    path, sound = tmp_path / "w.gxw", written[1].read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        harmed = bytearray(sound)
        harmed[rng.integers(len(harmed))] ^= 1 << rng.integers(8)
        path.write_bytes(harmed if rng.random() < 0.7 else harmed[: rng.integers(len(harmed))])
        with pytest.raises(UserError, match="holds no essential weights, or was damaged"):
            package.load_weights(path)
