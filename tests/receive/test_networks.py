import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from gxdistill import package
from gxdistill.cli import main
from gxdistill.errors import UserError
from gxdistill.package.seeds import Use
from gxdistill.receive import networks
from gxdistill.runtime import console
from tests import small_jobs
from tests.packages import change


@pytest.fixture
def sent(run, tmp_path):
    """The package alone, as it arrives."""
    return Path(shutil.copy(run / "package.gxd", tmp_path / "sent.gxd"))


def _leaves(params):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


def _sgd(network, params, content, decay=0.0):
    """Trains step by step in Python: the definition of a replay."""
    data = content.distilled

    def loss(params, images, labels):
        return -(labels * jax.nn.log_softmax(network.apply(params, images))).sum(-1).mean()

    gradient, trace = jax.jit(jax.grad(loss)), jax.tree.map(np.zeros_like, params)
    for step, log_lr in enumerate(np.asarray(data.log_lr, np.float64)):
        batch = step % len(data.images)
        grads = gradient(params, data.images[batch], data.labels[batch])
        rate = float(np.exp(log_lr))
        trace = jax.tree.map(lambda m, g: decay * m + g, trace, grads)
        params = jax.tree.map(lambda p, m, rate=rate: p - rate * m, params, trace)
    return params


def test_a_known_start_gives_its_one_network(sent):
    trained = networks.train_networks(sent)
    content = package.load(sent)
    assert trained.record == {
        "network": {"name": "convnet", "options": {"width": 4, "depth": 1}},
        "package": package.digest(sent),
        "init": "known",
        "count": 1,
        "seed": None,
        "proof": {**trained.record["proof"], "equal": True, "gap": 0.0, "proven": True},
    }
    expected = _sgd(trained.network, content.start, content)
    for mine, theirs in zip(_leaves(trained.params), _leaves(expected), strict=True):
        np.testing.assert_allclose(mine[0], theirs, atol=1e-5)


def test_a_package_is_replayed_with_the_optimiser_that_it_names(sent):
    content = package.load(sent)
    momentum = {"name": "momentum", "decay": 0.5}
    package.save(sent, change(content, "distillation", inner=momentum))
    trained = networks.train_networks(sent)
    expected = _sgd(trained.network, content.start, content, decay=0.5)
    for mine, theirs in zip(_leaves(trained.params), _leaves(expected), strict=True):
        np.testing.assert_allclose(mine[0], theirs, atol=1e-5)


def test_fresh_networks_differ_by_seed_and_from_one_another(sent):
    first = networks.train_networks(sent, count=2, seed=0)
    assert first.record["init"] == "fresh"
    again = networks.train_networks(sent, count=2, seed=0)
    other = networks.train_networks(sent, count=2, seed=1)
    name = ("Dense_0", "kernel")
    kernels = [t.params[name[0]][name[1]] for t in (first, again, other)]
    assert kernels[0].shape == (2, 8 * 8 * 4, 3)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    different = {np.asarray(one).tobytes() for kernel in kernels for one in kernel}
    assert len(different) == 4


def test_no_fresh_network_starts_where_the_known_one_does(sent):
    """Not even for the seed of the sender, which the known start is drawn from, too."""
    known = package.load(sent).start
    fresh = networks.train_networks(sent, count=8, seed=0).network
    root = jax.random.fold_in(jax.random.key(0), int(Use.FRESH))
    for key in jax.random.split(root, 8):
        for mine, theirs in zip(_leaves(fresh.init(key)), _leaves(known), strict=True):
            assert mine.std() == 0 or (mine != theirs).any()


@pytest.mark.parametrize(("name", "every"), [(None, 1), ("lenet", 25 / 1000)])
def test_training_tells_how_far_it_is_and_gives_what_it_gives_in_silence(
    sent, monkeypatch, name, every
):
    """Whole networks of the package's own kind, and steps of others, are counted."""
    monkeypatch.setattr(networks, "Progress", partial(console.Progress, every=0.0))
    lines: list[str] = []
    trained = networks.train_networks(sent, count=2, name=name, log=lines.append)
    first, *others = lines
    assert re.fullmatch(f"training 2 network.s. {trained.record['network']['name']} on .+", first)
    told = [re.fullmatch(re.escape(first) + r": (\d+)/(\d+), .+ s left", one) for one in others]
    done = [int(one[1]) / int(one[2]) for one in told]
    expected = np.arange(every, 2 + every / 2, every) / 2
    np.testing.assert_allclose(done, expected[expected < 1] if name is None else expected)
    silent = networks.train_networks(sent, count=2, name=name)
    for mine, theirs in zip(_leaves(trained.params), _leaves(silent.params), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_any_network_of_the_zoo_that_fits_is_trained(sent):
    trained = networks.train_networks(sent, count=1, name="lenet")
    assert trained.record["network"] == {"name": "lenet", "options": {}}
    root = jax.random.fold_in(jax.random.key(0), int(Use.FRESH))
    start = trained.network.init(jax.random.split(root, 1)[0])
    for mine, before in zip(_leaves(trained.params), _leaves(start), strict=True):
        assert mine.shape == (1, *before.shape)
        assert np.isfinite(mine).all()
        assert (mine[0] != before).any()
    with pytest.raises(UserError, match="'unet'; it must be one of"):
        networks.train_networks(sent, name="unet")
    with pytest.raises(UserError, match="0 networks"):
        networks.train_networks(sent, count=0)


def test_other_networks_replay_a_package_whose_rates_suit_any(sent, tmp_path):
    """Adam's do; those of descent belong to the network that they were learned for."""

    def replayed(name, **constants):
        told = {"name": name, **constants}
        path = tmp_path / f"{name}.gxd"
        package.save(path, change(package.load(sent), "distillation", inner=told))
        found = networks.train_networks(path, count=1, name="lenet")
        content = package.load(path)
        expected = networks.replay_package(content, found.network, found.record)
        pairs = zip(_leaves(found.params), _leaves(expected), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)

    assert replayed("adam", b1=0.9, b2=0.999, eps=1e-8)
    assert not replayed("momentum", decay=0.9)
    assert not replayed("sgd")


def test_a_package_without_a_start_gives_fresh_networks(sent, tmp_path):
    random = change(package.load(sent), init=package.Init("random", None))
    package.save(tmp_path / "random", dataclasses.replace(random, start=None))
    trained = networks.train_networks(tmp_path / "random", count=2)
    assert trained.record | {"package": ""} == {
        "network": {"name": "convnet", "options": {"width": 4, "depth": 1}},
        "package": "",
        "init": "fresh",
        "count": 2,
        "seed": 0,
    }
    assert networks.train_networks(tmp_path / "random", fresh=3).record["count"] == 3
    assert networks.train_networks(sent, fresh=3).record["init"] == "known"
    fresh = networks.train_networks(sent, count=2, seed=0)
    for mine, theirs in zip(_leaves(trained.params), _leaves(fresh.params), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_networks_of_several_kinds_are_trained_the_own_first(sent):
    own, other = networks.train_each(sent, ["lenet", "convnet", "lenet"], count=1, seed=4)
    assert [one.record["network"]["name"] for one in (own, other)] == ["convnet", "lenet"]
    alone = networks.train_networks(sent, count=1, seed=4)
    assert own.record == alone.record
    for mine, theirs in zip(_leaves(own.params), _leaves(alone.params), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    (default,) = networks.train_each(sent, [])
    assert default.record | {"package": ""} == {
        "network": {"name": "convnet", "options": {"width": 4, "depth": 1}},
        "package": "",
        "init": "fresh",
        "count": 5,
        "seed": 0,
    }


def test_networks_come_back_bit_for_bit(sent, tmp_path):
    trained = networks.train_networks(sent, count=2, seed=5)
    for _ in range(2):  # the second takes the place of the first
        networks.save_networks(tmp_path / "networks", trained)
    loaded = networks.load_networks(tmp_path / "networks", sent)
    assert loaded.record == trained.record
    assert loaded.network is trained.network
    for mine, theirs in zip(_leaves(loaded.params), _leaves(trained.params), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_networks_of_another_package_are_refused(run, sent, tmp_path):
    package.save(tmp_path / "other", change(package.load(sent), name="another"))
    with pytest.raises(UserError, match=r"were not trained on .*other.*gxdistill train"):
        networks.load_networks(run / "networks", tmp_path / "other")


@pytest.mark.parametrize("harm", ["missing", "edited", "flipped", "no json"])
def test_damaged_networks_are_refused(harm, run, sent, tmp_path):
    folder = tmp_path / "networks"
    shutil.copytree(run / "networks", folder)
    if harm == "missing":
        shutil.rmtree(folder / "arrays")
    elif harm == "edited":
        record = json.loads((folder / "networks.json").read_text())
        record["network"]["name"] = "lenet"
        (folder / "networks.json").write_text(json.dumps(record))
    elif harm == "flipped":
        files = [path for path in (folder / "arrays").rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[100] ^= 1
        largest.write_bytes(content)
    else:
        (folder / "networks.json").write_text("{")
    with pytest.raises(UserError, match=r"networks"):
        networks.load_networks(folder, sent)


def test_distilled_data_that_makes_networks_diverge_is_refused(sent, tmp_path):
    content = package.load(sent)
    wild = content.distilled.replace(log_lr=content.distilled.log_lr + 80)
    package.save(tmp_path / "wild", dataclasses.replace(content, distilled=wild))
    for options in ({}, {"seed": 1, "count": 2}):
        with pytest.raises(UserError, match=r"network 1 of . on the distilled data diverged"):
            networks.train_networks(tmp_path / "wild", **options)
    (kept,) = networks.train_each(tmp_path / "wild", [], count=2)
    assert kept.record["count"] == 2
    assert not all(np.isfinite(leaf).all() for leaf in _leaves(kept.params))
    with pytest.raises(SystemExit, match=r"^gxdistill train: .*diverged"):
        main.main(["train", f"--package={tmp_path / 'wild'}", f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_the_command_needs_the_package_and_nothing_else(run, sent, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    command = os.path.join(os.path.dirname(sys.executable), "gxdistill")
    arguments = ("train", f"--package={sent}", "--workdir=received")
    done = subprocess.run(
        [command, *arguments], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    begun, first, second = done.stderr.splitlines()
    assert begun.startswith("training 1 network(s) convnet on ")
    assert first == "trained 1 convnet network(s) from the known start"
    assert second == "the sender's network, bit for bit"
    assert [path.name for path in home.iterdir()] == ["received"]
    # The hospital's own command trained the same network.
    assert small_jobs.content(home / "received/networks") == small_jobs.content(run / "networks")
