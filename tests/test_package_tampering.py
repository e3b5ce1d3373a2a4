"""Packages that were changed on their way: refused, in one line, or without effect."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from gxdistill import package, storage
from gxdistill.errors import UserError
from tests.test_package import content_bits, file_bytes, make


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "package"
    package.save(path, make())
    return path


@pytest.fixture
def copy(saved, tmp_path):
    """A copy to be harmed."""
    return Path(shutil.copytree(saved, tmp_path / "package"))


def _refusal(path):
    with pytest.raises(UserError) as caught:
        package.load(path)
    with pytest.raises(UserError, match=re.escape(str(caught.value))):
        package.verify(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _rewrite(path, change, *, sealed=True):
    """Changes the manifest, as one who knows how to seal it anew."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(storage.seal(manifest) if sealed else manifest))


def _write_anew(path, harm):
    """Writes a package whose seal and digests agree, but not with what a package must be."""
    arrays = {**vars(make().distilled), "start": make().start}
    manifest = {**make().manifest, "schema_version": 1}
    harm(arrays, manifest)
    with storage.fresh_folder(path) as folder:
        manifest["arrays"] = storage.save_arrays(folder / "arrays", arrays)
        storage.write_json(folder / "manifest.json", storage.seal(manifest))


def _field(name, value):
    """Sets a field, by its dotted name, to a value; `...` takes it away."""
    *parents, last = name.split(".")

    def change(manifest):
        for parent in parents:
            manifest = manifest[parent]
        manifest[last] = value
        if value is ...:
            del manifest[last]

    return change


@pytest.mark.parametrize("flips", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_any_file_is_refused_or_without_effect(saved, copy, flips):
    expected, rng = content_bits(package.load(saved)), np.random.default_rng(0)
    for name, content in file_bytes(saved).items():
        for bit in rng.integers(0, 8 * len(content), flips) if content else []:
            raw = bytearray(content)
            raw[bit // 8] ^= 1 << bit % 8
            (copy / name).write_bytes(raw)
            try:
                same = content_bits(package.load(copy)) == expected
            except UserError as error:
                same = "\n" not in str(error)
            assert same, (name, bit)
        (copy / name).write_bytes(content)


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("name", 3, "field name is 3; it must be a text"),
        ("privacy", ..., "misses the field privacy"),
        ("sender", "x", "has the unknown field sender"),
        ("patch.overlap", 2, "has the unknown field patch.overlap"),
        ("distillation.epochs", ..., "misses the field distillation.epochs"),
        ("distillation.epochs", 2.0, "field distillation.epochs is 2.0; it must be a whole number"),
        ("distillation.epochs", True, "field distillation.epochs is True; it must be a whole"),
        ("distillation.label_rule", "hard", "it must be 'raw' or 'softmax'"),
        ("distillation.started_from", ["real"], "it must be 'noise' or 'real'"),
        ("network", "convnet", "field network is 'convnet'; it must be a table"),
        ("network.options", None, "field network.options is None; it must be a table"),
        ("init.rule", "secret", "it must be 'known' or 'random'"),
        ("init.seed", "0", "field init.seed is '0'; it must be a whole number or null"),
        ("patch.stride", 0, "field patch.stride is 0; it must be a whole number from 1"),
        ("patch.border", 1, "field patch.border is 1; it must be true or false"),
        ("normalisation.mean", 0.5, "it must be a list, each a number"),
        ("normalisation.mean", ["0.5"], "it must be a list, each a number"),
        ("normalisation.mean", [0.5, 0.5], "which does not fit 1 channels"),
        ("normalisation.std", [0], "which does not fit 1 channels"),
        ("class_names", ["a", "b"], "labels are float32 [2, 4, 3]"),
        ("class_names", [1, 2, 3], "it must be a list, each a text"),
        ("decision", {"rule": "soft"}, "it must be null or a table of rule, tau and networks"),
        (
            "decision",
            {"rule": "soft", "tau": "x"},
            "it must be null or a table of rule, tau and networks",
        ),
        ("results", [], "field results is []; it must be a table"),
        ("arrays", [], "field arrays is []; it must be a table"),
        ("distillation.steps", 3, "images are float32 [2, 4, 8, 8, 1] where"),
        ("distillation.images_per_step", 5, "images are float32 [2, 4, 8, 8, 1] where"),
        ("patch.size", 16, "images are float32 [2, 4, 8, 8, 1] where"),
        ("patch.channels", 3, "images are float32 [2, 4, 8, 8, 1] where"),
        ("distillation.epochs", 4, "log_lr are float32 [6] where"),
        ("init.rule", "random", "must not hold the arrays start"),
        ("arrays.labels", ..., "leaf labels belongs to no declared array"),
        ("arrays.images.shape", [10**12], "past the 1073741824 bytes allowed"),
        ("arrays.images.shape", [2, 4, 8, 8, 2], "leaf images has shape [2, 4, 8, 8, 1] where"),
        ("arrays.images.dtype", "int32", "leaf images has dtype '<f4' where '<i4'"),
        ("arrays.images.sha256", "0" * 64, "leaf images was changed or damaged"),
        ("arrays.images", None, "leaf 'images' is declared without a sound"),
    ],
)
def test_an_edited_manifest_is_refused(copy, name, value, reason, sealed):
    _rewrite(copy, _field(name, value), sealed=sealed)
    assert (reason if sealed else "manifest.json was changed after it was") in _refusal(copy)


@pytest.mark.parametrize("version", [2, 0, "1", None, ...])
def test_an_unknown_schema_version_is_refused_by_name(copy, version):
    _rewrite(copy, _field("schema_version", version), sealed=False)
    name = "None" if version is ... else repr(version)
    assert f"has schema version {name}; this program reads 1." in _refusal(copy)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda arrays, _: arrays["images"].__setitem__((0, 0, 0, 0, 0), np.nan), "images hold"),
        (lambda arrays, _: arrays["labels"].__setitem__((1, 2, 0), np.inf), "labels hold NaN"),
        (
            lambda arrays, _: arrays["start"]["params"]["Dense_0"]["bias"].fill(-np.inf),
            "start.params.Dense_0.bias hold NaN or infinity",
        ),
        (lambda arrays, _: arrays.pop("labels"), "lacks the arrays labels"),
        (lambda arrays, _: arrays.pop("start"), "lacks the arrays start"),
        (lambda arrays, _: arrays.update(more=np.ones(2)), "must not hold the arrays more"),
        (
            lambda arrays, _: arrays.update(images=arrays["images"].astype(float)),
            "images are float64 [2, 4, 8, 8, 1]",
        ),
        (lambda arrays, _: arrays.update(images={"x": arrays["images"]}), "images are None []"),
        (
            lambda arrays, _: arrays.update(labels=arrays["labels"][..., :2]),
            "labels are float32 [2, 4, 2]",
        ),
    ],
)
def test_arrays_that_no_package_may_hold_are_refused(tmp_path, harm, reason):
    _write_anew(tmp_path / "p", harm)
    assert reason in _refusal(tmp_path / "p")


def test_swapped_cut_and_missing_arrays_are_refused(copy, tmp_path):
    state = copy / "arrays" / "state"
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    package.save(other, make(1))
    for name in ("images", "labels", "start.params.Dense_0.kernel"):
        kept = shutil.move(state / name, tmp_path / name)
        assert f"leaf {name} is missing" in _refusal(copy)
        shutil.copytree(other / "arrays" / "state" / name, state / name)
        assert f"leaf {name} was changed or damaged" in _refusal(copy)
        shutil.rmtree(state / name)
        shutil.move(kept, state / name)
    package.verify(copy)
    with (state / "images" / "0.0.0.0.0").open("r+b") as file:
        file.truncate(1000)
    assert "leaf images is of 1000 bytes where 2048 are declared" in _refusal(copy)


def test_what_is_no_package_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "nothing"):
        assert "is no package: there is no manifest.json in it" in _refusal(path)
