"""The U-Net in PyTorch is that of ours: the same logits, loss and gradient for the same weights."""

import argparse

import jax
import numpy as np
import pytest

from benchmarks import unet_step
from gxdistill import models
from gxdistill.segmentation.losses import segmentation_loss
from tests import toy

WIDTH, DEPTH, SIDE, BATCH = 4, 2, 16, 2


def _by_torch(params):
    """Flax's weights under PyTorch's names and in its layout."""
    named = {}
    for name, part in params.items():
        kind, _, level = name.partition("_")
        if kind in ("down", "joined"):
            for i in range(2):  # Convolution, norm and ReLU, twice.
                named[f"{kind}.{level}.{3 * i}.weight"] = part[f"Conv_{i}"]["kernel"]
                named[f"{kind}.{level}.{3 * i + 1}.weight"] = part[f"Norm_{i}"]["scale"]
                named[f"{kind}.{level}.{3 * i + 1}.bias"] = part[f"Norm_{i}"]["bias"]
        elif kind == "up":
            before, after = part["kernel"].shape[2], part["kernel"].shape[3] // 4
            # Each 2x2 pixels of an output are four products of one input's.
            named[f"up.{level}.weight"] = part["kernel"].reshape(before, 2, 2, after)
            named[f"up.{level}.bias"] = part["bias"].reshape(4, after).mean(axis=0)
        else:
            named["head.weight"], named["head.bias"] = part["kernel"], part["bias"]
    return named


@pytest.mark.slow
def test_both_sides_take_the_same_step():
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
    from benchmarks import torch_unet

    channels, classes = unet_step.CHANNELS, unet_step.CLASSES
    network = models.create(
        "unet", shape=(SIDE, SIDE, channels), classes=classes, width=WIDTH, depth=DEPTH
    )
    params = network.init(jax.random.key(0))
    images, labels = unet_step.noise(BATCH, SIDE)

    def loss(params):
        return segmentation_loss(network.apply(params, images), labels)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)

    peer = torch_unet.UNet(channels, classes, WIDTH, DEPTH)
    weights = {}
    for name, leaf in _by_torch(params).items():
        order = {"up": (0, 3, 1, 2)}.get(name.split(".")[0], (3, 2, 0, 1))
        leaf = np.array(leaf)
        weights[name] = torch.tensor(leaf.transpose(order) if leaf.ndim == 4 else leaf)
    peer.load_state_dict(weights)
    theirs = torch_unet.segmentation_loss(
        peer(torch.tensor(images.transpose(0, 3, 1, 2))), torch.tensor(labels.astype(np.int64))
    )
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-5)
    theirs.backward()
    for name, leaf in _by_torch(gradient).items():
        order = {"up": (0, 3, 1, 2)}.get(name.split(".")[0], (3, 2, 0, 1))
        ours = np.array(leaf)
        ours = ours.transpose(order) if ours.ndim == 4 else ours
        if name.startswith("up") and name.endswith("bias"):
            ours = ours * 4  # Four of ours are one of theirs.
        other = dict(peer.named_parameters())[name].grad.numpy()
        np.testing.assert_allclose(ours, other, atol=1e-4 * max(1e-2, np.abs(other).max()))


def test_a_step_is_measured(monkeypatch):
    monkeypatch.setattr(unet_step, "PER_CALL", 1)
    given = argparse.Namespace(width=2, depth=1, batch=1, image_size=8, repeats=1)
    with toy.quick_compilation():
        figures = unet_step.measure(given)
    assert figures.keys() == {"median_cpu_s", "median_s", "peak_rss_mb", "compile_s"}
    assert min(figures.values()) > 0
