"""Packages that become one: a replay of the whole beside a loop over both, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import package
from gxdistill.cli import main
from gxdistill.data.batches.resident import Normalisation
from gxdistill.distill import replay
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled
from tests import packages, toy


def _pair():
    """Two packages for the same initial weights."""
    first, second = packages.make(0), packages.make(1)
    return first, dataclasses.replace(second, start=first.start)


def test_a_replay_of_the_whole_trains_on_one_after_the_other_in_each_epoch():
    """By SGD in a loop over both sets, on a network of whose gradient JAX is asked alone."""
    rng, network = np.random.default_rng(0), toy.network()
    sets = []
    for steps in (2, 3):
        shape = (steps, 4, *toy.SHAPE)
        labels = rng.dirichlet(np.ones(toy.CLASSES), size=(steps, 4))
        rates = np.log(rng.uniform(0.05, 0.3, size=steps * packages.E))
        sets.append(Distilled(*map(jnp.float32, (rng.normal(size=shape), labels, rates))))
    loop = {"epochs": packages.E, "images_per_step": 4, "label_rule": "raw"}
    made = []
    for data in sets:
        plain = packages.make()
        plain = dataclasses.replace(plain, distilled=data)
        made.append(packages.change(plain, "distillation", steps=len(data.images), **loop))
    whole = package.merge(made, "both").distilled
    weights = network.init(jax.random.key(0))
    expected = weights

    def loss(params, images, labels):
        return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(network.apply(params, images)), -1))

    for epoch in range(packages.E):
        for data in sets:
            steps = len(data.images)
            for step in range(steps):
                grads = jax.grad(loss)(expected, data.images[step], data.labels[step])
                lr = np.exp(float(data.log_lr[epoch * steps + step]))
                expected = jax.tree.map(lambda w, g, lr=lr: w - lr * g, expected, grads)
    trained = replay.replay(network, weights, whole, rule="raw")
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_merged_package_is_read_as_it_was_written(tmp_path):
    first, second = _pair()
    whole = package.merge([first, second, first], "three")
    package.save(tmp_path / "three.gxd", whole)
    read = package.load(tmp_path / "three.gxd")
    assert packages.bits(read.distilled) == packages.bits(whole.distilled)
    assert packages.bits(read.start) == packages.bits(first.start)
    about = read.manifest
    assert about.distillation.steps == 3 * packages.S
    assert about.cohort.patients == 150
    assert about.cohort.splits.train.labels == {"negative": 120, "positive": 90}
    assert (about.results, about.proof, about.likeness) == ({}, None, None)
    assert about.decision.tau == first.manifest.decision.tau


def test_images_are_put_into_the_units_of_the_first():
    first, second = _pair()
    second = packages.change(second, normalisation=Normalisation((0.3,), (0.5,)))
    whole = package.merge([first, second], "both").distilled.images
    # A pixel of the second is 0.3 + 0.5 x; the first calls it (pixel - 0.5) / 0.25.
    pixels = 0.3 + 0.5 * np.asarray(second.distilled.images)
    np.testing.assert_allclose(whole[packages.S :], (pixels - 0.5) / 0.25, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole[: packages.S], first.distilled.images)


@pytest.mark.parametrize("kind", ["bfloat16", "uint8"])
def test_packages_of_one_precision_stay_of_it(kind, tmp_path):
    first, second = packages.make_rounded(kind, 0), packages.make_rounded(kind, 1)
    second = dataclasses.replace(second, start=first.start)
    package.save(tmp_path / "both.gxd", package.merge([first, second], "both"))
    read = package.load(tmp_path / "both.gxd")
    assert read.manifest.precision == kind
    images = np.concatenate([first.distilled.images, second.distilled.images])
    np.testing.assert_allclose(read.distilled.images, images, atol=1e-5)


def test_ledgers_add_up_as_if_all_patients_were_the_same():
    record = package.from_json(package.LedgerRecord, packages.LEDGER)
    pair = [packages.change(made, ledger=record) for made in _pair()]
    ledger = package.merge(pair, "both").manifest.ledger
    assert ledger.epsilon == pytest.approx(2 * 7.9961)
    assert ledger.delta == pytest.approx(0.002)
    assert len(ledger.events) == 2
    assert ledger.uncovered == ("the choice of the settings",)


@pytest.mark.parametrize(
    ("part", "changes", "fault"),
    [
        (None, {"class_names": ("a", "b", "c")}, "class_names is"),
        (None, {"image_normalisation": "image"}, "image_normalisation is 'cohort' and 'image'"),
        ("distillation", {"label_rule": "raw"}, "distillation.label_rule is 'softmax' and 'raw'"),
        ("distillation", {"augmentations": ("flip",)}, "distillation.augmentations is"),
        ("network", {"name": "other"}, "network is"),
        ("patch", {"stride": 5}, "patch is"),
    ],
)
def test_packages_that_do_not_fit_are_refused_by_the_field(part, changes, fault):
    first, second = _pair()
    with pytest.raises(UserError, match=fault) as refusal:
        package.merge([first, packages.change(second, part, **changes)], "both")
    assert "tiny0 and tiny1 do not fit" in str(refusal.value)


def test_other_initial_weights_and_half_a_guarantee_are_refused():
    first, second = packages.make(0), packages.make(1)
    with pytest.raises(UserError, match="different initial weights"):
        package.merge([first, second], "both")
    record = package.from_json(package.LedgerRecord, packages.LEDGER)
    first, second = _pair()
    with pytest.raises(UserError, match="has a ledger and the other none"):
        package.merge([first, packages.change(second, ledger=record)], "both")
    with pytest.raises(UserError, match="1 packages were named; 2 to 64"):
        package.merge([first], "alone")


def test_the_command_merges_files_and_overwrites_none(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, made in zip("ab", _pair(), strict=True):
        package.save(tmp_path / f"{name}.gxd", made)
    main.main(["merge", "a.gxd", "b.gxd", "--out=both.gxd"])
    assert "both.gxd: 2 packages" in capsys.readouterr().out
    assert package.load(tmp_path / "both.gxd").manifest.name == "both"
    with pytest.raises(SystemExit, match=r"both\.gxd exists already"):
        main.main(["merge", "a.gxd", "b.gxd", "--out=both.gxd"])
