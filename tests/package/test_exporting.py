import csv
import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from gxdistill import models, package
from gxdistill.data.batches.resident import Normalisation
from gxdistill.distill import inner, replay
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled
from tests.packages import change, make

ROOT = Path(__file__).parents[2]


def _softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def _check_arrays(found, made):
    np.testing.assert_array_equal(found["images"], made.distilled.images)
    np.testing.assert_allclose(found["labels"], _softmax(made.distilled.labels), rtol=1e-6)
    np.testing.assert_allclose(found["learning_rates"], np.exp(made.distilled.log_lr), rtol=1e-6)


def test_numpy_reads_an_npz(tmp_path):
    package.export(make(), tmp_path / "p.npz", "npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as found:
        _check_arrays(found, make())
        np.testing.assert_array_equal(
            found["start.params.Dense_0.kernel"], make().start["params"]["Dense_0"]["kernel"]
        )
        assert found["class_names"].tolist() == [*make().manifest.class_names]
        assert (found["mean"], found["std"]) == (0.5, 0.25)


def test_the_library_safetensors_reads_its_form(tmp_path):
    made = make()
    made.start["low"] = np.array([1.5, -2, 0.25], ml_dtypes.bfloat16)
    made.start["turned"] = np.arange(6, dtype=np.float64).reshape(2, 3).T
    made.start["one"] = np.float32(3)
    package.export(made, tmp_path / "p.safetensors", "safetensors")
    found = safetensors.numpy.load_file(tmp_path / "p.safetensors")
    _check_arrays(found, made)
    assert found["start.low"].tobytes() == made.start["low"].tobytes()
    np.testing.assert_array_equal(found["start.turned"], [[0, 3], [1, 4], [2, 5]])
    assert (found["start.one"].shape, found["start.one"]) == ((), 3)
    assert found["start.params.Dense_0.bias"].shape == (3,)
    with safetensors.safe_open(tmp_path / "p.safetensors", "np") as file:
        manifest = json.loads(file.metadata()["manifest"])
    assert package.from_json(package.Manifest, manifest) == make().manifest


def test_without_safetensors_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(UserError, match=r"by `pip install safetensors`, or export to npz"):
        package.export(make(), tmp_path / "p.safetensors", "safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_array_that_safetensors_is_not_given_is_named(tmp_path):
    made = make()
    made.start["count"] = np.array([1, 2])
    with pytest.raises(UserError, match=r"start\.count is of int64; only floats"):
        package.export(made, tmp_path / "p.safetensors", "safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_show_the_pixels(tmp_path, channels):
    made, scale = make(), Normalisation((0.4, 0.5, 0.6)[:channels], (0.2, 0.1, 0.3)[:channels])
    images = np.repeat(made.distilled.images, channels, -1)
    changed = change(made, normalisation=scale)
    changed = dataclasses.replace(changed, distilled=made.distilled.replace(images=images))
    package.export(changed, tmp_path / "p", "png")
    with (tmp_path / "p/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    labels = _softmax(made.distilled.labels)
    for row in rows:
        step, place = int(row["step"]), int(row["image"])
        with Image.open(tmp_path / "p" / row["file"]) as picture:
            pixels = np.asarray(picture).reshape(8, 8, channels)
        expected = 255 * (images[step, place] * np.array(scale.std) + np.array(scale.mean))
        np.testing.assert_allclose(pixels, np.clip(expected, 0, 255), atol=0.51)
        told = [float(row[name]) for name in made.manifest.class_names]
        np.testing.assert_allclose(told, labels[step, place], rtol=1e-6)
    assert "## Privacy" in (tmp_path / "p/README.md").read_text()


@pytest.mark.slow
def test_tensorflow_datasets_reads_its_folder_in_order(tmp_path, capfd):
    if importlib.util.find_spec("tensorflow_datasets") is None:
        pytest.skip("needs tensorflow-datasets: pip install -e '.[tfds]'")
    import tensorflow_datasets as tfds

    made = make()
    for name in ("another", "p"):  # A process may export more than one package.
        package.export(made, tmp_path / name, "tfds")
    assert capfd.readouterr().out == ""
    examples = list(tfds.builder_from_directory(tmp_path / "p").as_data_source("train"))
    assert len(examples) == 8
    for i, example in enumerate(examples):
        step, place = divmod(i, 4)
        assert example["step"] == step
        np.testing.assert_array_equal(example["image"], made.distilled.images[step, place])
        labels = _softmax(made.distilled.labels[step, place])
        np.testing.assert_allclose(example["label"], labels, rtol=1e-6)
        rates = np.exp(made.distilled.log_lr[step::2])
        np.testing.assert_allclose(example["learning_rates"], rates, rtol=1e-6)
    assert not any(path.is_dir() for path in (tmp_path / "p").iterdir())


def test_without_tfds_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match="pip install tensorflow-datasets"):
        package.export(make(), tmp_path / "p", "tfds")


def test_images_that_are_no_pictures_are_not_drawn(tmp_path):
    images = np.zeros((1, 1, 4, 4, 2), np.float32)
    odd = Distilled(images, np.zeros((1, 1, 3), np.float32), np.zeros(1, np.float32))
    with pytest.raises(UserError, match="Images of 2 channels are no pictures"):
        package.export(package.Package(odd, make().manifest), tmp_path / "p", "png")


def test_a_folder_for_pytorch_has_its_layouts(tmp_path):
    made = make()
    kernel = np.arange(2 * 2 * 3 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
    made.start["Conv_0"] = {"kernel": kernel}
    made.start["Norm_0"] = {"scale": np.ones(4, ml_dtypes.bfloat16)}
    package.export(made, tmp_path / "p", "pytorch-folder")
    found = {
        path.relative_to(tmp_path / "p").with_suffix("").as_posix(): np.load(path)
        for path in (tmp_path / "p").rglob("*.npy")
    }
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    _check_arrays({**found, "images": found["images"].transpose(0, 1, 3, 4, 2)}, made)
    dense = made.start["params"]["Dense_0"]
    np.testing.assert_array_equal(found["start/params.Dense_0.weight"], dense["kernel"].T)
    np.testing.assert_array_equal(found["start/params.Dense_0.bias"], dense["bias"])
    assert found["start/Conv_0.weight"].shape == (4, 3, 2, 2)
    assert found["start/Conv_0.weight"][3, 1, 0, 1] == kernel[0, 1, 1, 3]
    np.testing.assert_array_equal(found["start/Norm_0.weight"], np.ones(4))
    assert json.loads((tmp_path / "p/manifest.json").read_text())["name"] == "tiny0"


def test_weights_of_one_name_in_pytorch_are_refused(tmp_path):
    made = make()
    made.start["Conv_0"] = {"kernel": np.ones((3, 4)), "scale": np.ones(4)}
    with pytest.raises(UserError, match="two weights would share a name"):
        package.export(made, tmp_path / "p", "pytorch-folder")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    for to in package.FORMATS:
        with pytest.raises(UserError, match="mine exists already"):
            package.export(make(), tmp_path / "mine", to)
    with pytest.raises(UserError, match="cannot be exported to 'onnx'; choose npz, safetensors"):
        package.export(make(), tmp_path / "new", "onnx")


def _trainable():
    """A package of the ConvNet that the example knows, with labels and rates that matter."""
    rng, shape = np.random.default_rng(0), (16, 16, 1)
    network = models.create("convnet", shape=shape, classes=3, width=8)
    start = jax.tree.map(np.asarray, network.init(jax.random.key(0)))
    distilled = Distilled(
        rng.normal(size=(3, 4, *shape)).astype(np.float32),
        rng.normal(size=(3, 4, 3)).astype(np.float32),
        np.log(rng.uniform(0.01, 0.1, 6)).astype(np.float32),
    )
    return network, package.Package(distilled, make().manifest, start)


def test_the_example_is_short():
    code = (ROOT / "docs/train_in_pytorch.py").read_text().partition('"""\n\n')[2]
    lines = [line for line in code.splitlines() if line and not line.startswith("import")]
    assert len([line for line in lines if not line.startswith("from")]) <= 20
    assert not re.search("jax|gxdistill", code)


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", [{"name": "sgd"}, {"name": "momentum", "decay": 0.6}])
def test_pytorch_alone_trains_to_the_same_weights(tmp_path, optimiser):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch: pip install -e '.[torch]'")
    network, made = _trainable()
    made = change(made, "distillation", inner=optimiser)
    package.export(made, tmp_path / "p", "pytorch-folder")
    command = [sys.executable, "-W", "ignore", ROOT / "docs/train_in_pytorch.py"]
    subprocess.run([*command, tmp_path / "p", tmp_path / "weights.npz"], check=True)
    moves = inner.create(**optimiser)
    trained = replay.replay(network, made.start, made.distilled, rule="softmax", inner=moves)
    leaves = jax.tree_util.tree_leaves_with_path(trained)
    with np.load(tmp_path / "weights.npz") as found:
        assert len(found) == len(leaves)
        for path, leaf in leaves:
            layer, kind = (key.key for key in path[-2:])
            name = f"{layer}.{'bias' if kind == 'bias' else 'weight'}"
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim]
            np.testing.assert_allclose(found[name], leaf.transpose(axes), atol=1e-5)
