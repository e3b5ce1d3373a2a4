"""The peer in PyTorch is faithful: it finds the meta-gradients that ours finds."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import against_torch
from benchmarks.record import read
from gxdistill import models
from gxdistill.distill import meta_gradient, truncation
from gxdistill.pytrees import Batch, Distilled
from tests import small_jobs

CLASSES = 10
STEPS, EPOCHS, IMAGES = 2, 2, 10


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")


def _weights(params, side):
    """Flax's weights in the order and layout of PyTorch; `side` of what the first Dense reads."""
    layers = sorted(params, key=lambda name: (name.startswith("Dense"), name.split("_")[1], name))
    weights = []
    for name in layers:
        kernel = np.asarray(params[name].get("kernel", params[name].get("scale")))
        if kernel.ndim == 4:
            kernel = kernel.transpose(3, 2, 0, 1)
        elif name == "Dense_0":
            channels = len(kernel) // side**2
            kernel = kernel.reshape(side, side, channels, -1).transpose(3, 2, 0, 1)
            kernel = kernel.reshape(len(kernel), -1)
        elif kernel.ndim == 2:
            kernel = kernel.T
        weights += [kernel, np.asarray(params[name]["bias"])]
    return weights


def _case(size):
    keys = jax.random.split(jax.random.key(3), 3)
    images = jax.random.normal(keys[0], (STEPS, IMAGES, size, size, 1))
    labels = jax.random.normal(keys[1], (STEPS, IMAGES, CLASSES))
    rates = jnp.log(jnp.linspace(0.01, 0.04, STEPS * EPOCHS))
    rows = jnp.arange(32, dtype=jnp.int32)
    real = jax.random.normal(keys[2], (32, size, size, 1))
    return Distilled(images, labels, rates), Batch(real, rows % CLASSES, rows)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("name", "size", "side", "window", "options"),
    [("lenet", 28, 5, 0, {}), ("convnet", 16, 2, 3, {"width": 8})],
)
def test_both_find_the_same_meta_gradient(
    torch, monkeypatch, name, size, side, window, options, compiled
):
    from benchmarks import torch_peer

    network = models.create(name, shape=(size, size, 1), classes=CLASSES, **options)
    distilled, batch = _case(size)
    key = jax.random.key(7)
    train = truncation.fixed_window(window) if window else truncation.full()
    step = meta_gradient.after_training(network, rule="raw", train=train, known_key=key)
    loss, grads = jax.jit(step)(distilled, key, batch)

    peer = getattr(torch_peer, name)((1, size, size), CLASSES, **options)
    weights = [torch.tensor(np.array(w)) for w in _weights(network.init(key), side)]
    assert [tuple(w.shape) for w in weights] == peer.shapes
    data = torch_peer.Distilled(
        torch.tensor(np.array(distilled.images.transpose(0, 1, 4, 2, 3))),
        torch.tensor(np.array(distilled.labels)),
        torch.tensor(np.array(distilled.log_lr)),
    )
    real = torch.tensor(np.array(batch.images.transpose(0, 3, 1, 2)))
    labels = torch.tensor(np.array(batch.targets, np.int64))
    if compiled:
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # For minutes.
        gradient = torch_peer.compiled_meta_gradient(peer.apply, window=window)
        their_loss, their_gradient = gradient(weights, data, real, labels)
    else:
        their_loss, their_gradient = torch_peer.meta_gradient(
            peer.apply, weights, data, real, labels, window=window
        )

    np.testing.assert_allclose(loss, their_loss.numpy(), rtol=1e-5)
    theirs = (
        their_gradient.images.permute(0, 1, 3, 4, 2),
        their_gradient.labels,
        their_gradient.log_lr,
    )
    for ours, other in zip((grads.images, grads.labels, grads.log_lr), theirs, strict=True):
        scale = float(jnp.abs(ours).max())
        assert scale > 1e-6
        np.testing.assert_allclose(ours / scale, other.numpy() / scale, atol=1e-4)


def test_the_rounds_are_summed_up():
    ours = [
        {"median_cpu_s": cpu, "peak_rss_mb": rss, "compile_s": compile_s}
        for cpu, rss, compile_s in ((0.1, 300, 0.9), (0.5, 310, 0.8), (0.2, 305, 1.1))
    ]
    theirs = [{"median_cpu_s": cpu, "peak_rss_mb": 620} for cpu in (0.5, 0.4, 0.3)]
    first = {"median_cpu_s": 9.9, "peak_rss_mb": 700, "compile_s": 12.0}
    assert against_torch.summary(first, ours, theirs) == {
        "cpu_s": 0.2,
        "torch_cpu_s": 0.4,
        "cpu_ratio": 0.5,
        "peak_rss_mb": 310,
        "torch_peak_rss_mb": 620,
        "rss_ratio": 0.5,
        "first_compile_s": 12.0,
        "first_peak_rss_mb": 700,
        "next_compile_s": 0.9,
    }


@pytest.mark.slow
@pytest.mark.usefixtures("torch")
def test_both_sides_are_run_and_recorded(tmp_path):
    command = ["-m", "benchmarks.against_torch", "--rows", "lenet_1x1", "--rounds=1"]
    command += ["--repeats=1", "--record", f"--results={tmp_path}"]
    done = subprocess.run(
        [sys.executable, *command], cwd=small_jobs.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    said = json.loads(line)
    assert said.pop("row") == "lenet_1x1"
    assert {figure.metric: figure.value for figure in read(tmp_path)} == said
    assert said.keys() == against_torch.UNITS.keys()
    assert min(said.values()) > 0
    assert said["next_compile_s"] < 0.5 * said["first_compile_s"]
