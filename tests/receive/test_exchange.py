import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from gxdistill import models, package, patching
from gxdistill.cli import main
from gxdistill.errors import UserError
from gxdistill.receive import exchange, networks, predicting
from tests.commands import refusal

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, of the extra `dev`")
pytest.importorskip("onnx", reason="needs the extra `onnx`")


def _about(run, side):
    about = package.load(run / "package.gxd").manifest
    return dataclasses.replace(about, patch=dataclasses.replace(about.patch, size=side))


def _drawn(network):
    """Weights of which no scale is 1 and no bias 0."""
    rng = np.random.default_rng(3)

    def draw(keys, leaf):
        kind = keys[-1].key
        spread = np.prod(leaf.shape[:-1]) ** -0.5 if kind == "kernel" else 0.1
        return ((kind == "scale") + spread * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(network.init, jax.random.key(0)))


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("lenet", 17, {}),
        ("convnet", 19, {"width": 6, "depth": 2}),
        ("convnet", 16, {"width": 6, "depth": 1, "norm": "group"}),
        ("convnet", 16, {"width": 6, "depth": 1, "norm": "none"}),
        ("resnet18", 17, {"width": 6, "stages": [1, 1]}),
        ("resnet18", 65, {"width": 4, "stages": [1, 2]}),
        pytest.param("resnet18", 32, {"width": 16}, marks=pytest.mark.slow),
    ],
)
def test_another_runtime_finds_the_same_probabilities(run, name, side, options):
    about = _about(run, side)
    network = models.create(name, shape=(side, side, 1), classes=len(about.class_names), **options)
    params = _drawn(network)
    pixels = np.random.default_rng(0).integers(0, 256, (5, side, side, 1)).astype(np.float32)
    images = (pixels / 255 - about.normalisation.mean) / about.normalisation.std
    images = images.astype(np.float32)
    expected = jax.nn.softmax(jax.jit(network.apply)(params, images))
    content = exchange.to_onnx(about, {"name": name, "options": options}, params)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (seen,) = session.run(["probabilities"], {"pixels": pixels.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert np.ptp(seen, axis=0).max() > 1e-3  # They tell one image from another.


def test_exported_networks_predict_as_predict_does(run, tmp_path, capsys):
    flags = [f"--workdir={run}", f"--package={run / 'package.gxd'}", f"--out={tmp_path / 'onnx'}"]
    main.main(["export-networks", "--to=onnx", *flags])
    (path,) = (tmp_path / "onnx").iterdir()
    assert capsys.readouterr().out == f"{path}\n"
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    about = package.load(run / "package.gxd").manifest
    grid = predicting.patch_grid(about)
    side = about.patch.image_height
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 1), np.uint8)
    expected = predicting.of_patches(trained, grid, pixels)
    corners = patching.patch_corners((side, side), grid.size, grid.stride, border=grid.border)
    cuts = [pixels[r : r + grid.size, c : c + grid.size] for r, c in np.asarray(corners)]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = np.array(cuts, np.float32).transpose(0, 3, 1, 2)
    (seen,) = session.run(["probabilities"], {"pixels": given})
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == list(about.class_names)
    assert said["normalisation"].startswith("inside")
    assert "exists already" in refusal("export-networks", "--to=onnx", *flags)
    assert "choose onnx or safetensors" in refusal("export-networks", "--to=tflite", *flags)


def test_the_library_safetensors_reads_the_weights(run, tmp_path):
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    about = package.load(run / "package.gxd").manifest
    (path,) = exchange.export_networks(about, trained, tmp_path / "out", "safetensors")
    seen = safetensors.numpy.load_file(path)
    expected = jax.tree_util.tree_leaves_with_path(trained.params)
    assert len(seen) == len(expected)
    for keys, leaf in expected:
        name = ".".join(key.key for key in keys)
        np.testing.assert_array_equal(seen[name], leaf[0])


def test_a_network_of_others_has_no_graph(run):
    about = package.load(run / "package.gxd").manifest
    with pytest.raises(UserError, match="'mine' has no ONNX form; choose lenet"):
        exchange.to_onnx(about, {"name": "mine", "options": {}}, {})
