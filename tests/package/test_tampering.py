"""Packages that were changed on their way: refused, in one line, or without effect."""

import json
import re

import numpy as np
import pytest

from gxdistill import package, storage
from gxdistill.errors import UserError
from gxdistill.package import content
from tests.packages import content_bits, make, members, repack


def _refusal(path):
    with pytest.raises(UserError) as caught:
        package.load(path)
    with pytest.raises(UserError, match=re.escape(str(caught.value))):
        package.verify(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _edit(path, change):
    """Changes the manifest, as one who knows how to make the package whole again."""

    def edit(files):
        manifest = json.loads(files["manifest.json"])
        change(manifest)
        files["manifest.json"] = json.dumps(manifest).encode()

    repack(path, edit)


def _write_anew(path, harm):
    """Writes a package whose digests agree, but not with what a package must be."""
    arrays = {**vars(make().distilled), "start": make().start}
    manifest = package.to_json(make().manifest)
    harm(arrays, manifest)
    with storage.scratch_folder(path) as folder:
        manifest["arrays"] = storage.save_arrays(folder / "arrays", arrays)
        files = storage.read_files(folder)
    files |= {"manifest.json": storage.json_text(manifest).encode(), "README.md": b""}
    files["SHA256SUMS"] = content.sums(files)
    path.write_bytes(storage.pack(files))


def _field(name, value):
    """Sets a field, by its path in the manifest, to a value; `...` takes it away."""
    *parents, last = name.split("/") if "/" in name else name.split(".")

    def change(manifest):
        for parent in parents:
            manifest = manifest[parent]
        manifest[last] = value
        if value is ...:
            del manifest[last]

    return change


def _deep(levels):
    value = {}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("name", 3, "field name is 3; it must be a text"),
        ("name", "a\x1b[2Jb", "; it must be a text of at most 10000 characters, none of them for"),
        ("name", "a\nb", "none of them for control"),
        ("name", "a\u202eb", "none of them for control"),
        ("name", "a" * 10_001, "it must be a text of at most 10000"),
        ("privacy", ..., "misses the field privacy"),
        ("sender", "x", "has the unknown field sender"),
        ("a\nb", "x", "has the unknown field a\\nb"),
        ("patch.overlap", 2, "has the unknown field patch.overlap"),
        ("cohort", 3, "field cohort is 3; it must be null or a table of images, patients,"),
        ("cohort.sites", -1, "it must be null or a table of images, patients,"),
        ("cohort.splits.train.labels", {"x": "y"}, "it must be null or a table of images"),
        ("distillation.epochs", ..., "misses the field distillation.epochs"),
        ("distillation.epochs", 2.0, "field distillation.epochs is 2.0; it must be a whole number"),
        ("distillation.epochs", True, "field distillation.epochs is True; it must be a whole"),
        ("distillation.epochs", 10**400, "it must be a whole number from 1 to 2147483647"),
        ("distillation.label_rule", "hard", "it must be 'raw' or 'softmax'"),
        (
            "distillation.started_from",
            ["real"],
            "it must be 'noise', 'statistics', 'mixture' or 'real'",
        ),
        ("distillation.settings", _deep(300), "nests too deeply"),
        ("distillation.settings", {"x": 10**400}, "field distillation.settings is {'x': 1000"),
        ("network", "convnet", "field network is 'convnet'; it must be a table"),
        ("network.options", None, "field network.options is None; it must be a table"),
        ("network.options", {"\x00": 1}, "it must be a table"),
        ("init.rule", "secret", "it must be 'known', 'seeded' or 'random'"),
        ("init.rule", "seeded", "must not hold the arrays start"),
        ("distillation.inner", {"name": "lion"}, "it must be a table: name 'sgd'; or 'momentum'"),
        (
            "distillation.inner",
            {"name": "momentum"},
            "it must be a table: name 'sgd'; or 'momentum'",
        ),
        ("precision", "int8", "it must be 'float32', 'bfloat16', 'uint8' or 'uint4'"),
        ("precision", "uint8", "lacks the arrays offset"),
        ("precision", "bfloat16", "images are float32 [2, 4, 8, 8, 1] where"),
        ("proof", {"tolerance": 1}, "it must be null or a table of weights, logits and tolerance"),
        ("init.seed", "0", "field init.seed is '0'; it must be a whole number from 0"),
        ("patch.stride", 0, "field patch.stride is 0; it must be a whole number from 1"),
        (
            "patch.size",
            10**9,
            "field patch.size is 1000000000; it must be a whole number from 1 to",
        ),
        ("patch.border", 1, "field patch.border is 1; it must be true or false"),
        ("normalisation.mean", 0.5, "it must be a list, each a number"),
        ("normalisation.mean", ["0.5"], "it must be a list, each a number"),
        ("normalisation.mean", [0.5, 0.5], "which does not fit 1 channels"),
        ("normalisation.std", [0], "it must be a list, each a number above 0"),
        ("class_names", ["a", "b"], "labels are float32 [2, 4, 3]"),
        ("class_names", ["a", "b", "b"], "it must be a list of 2 to 1000 texts, no two alike"),
        ("class_names", [1, 2, 3], "it must be a list of 2 to 1000 texts"),
        (
            "decision",
            {"rule": "soft"},
            "it must be null or a table of rule, weights, tau, share_positive and networks",
        ),
        (
            "decision.tau",
            "x",
            "it must be null or a table of rule, weights, tau, share_positive and networks",
        ),
        (
            "decision.rule",
            "x",
            "it must be null or a table of rule, weights, tau, share_positive and networks",
        ),
        *(
            (
                f"decision.{field}",
                value,
                "it must be null or a table of rule, weights, tau, share_positive and networks",
            )
            for field, value in (
                ("rule", "zones"),
                ("weights", [0.5]),
                ("weights", [0.5] * 13),
                ("weights", None),
                ("weights", ["x"]),
            )
        ),
        ("results", [], "field results is []; it must be a table"),
        ("arrays", [], "field arrays is []; it must be a table"),
        ("distillation.steps", 3, "images are float32 [2, 4, 8, 8, 1] where"),
        ("distillation.images_per_step", 5, "images are float32 [2, 4, 8, 8, 1] where"),
        ("patch.size", 16, "images are float32 [2, 4, 8, 8, 1] where"),
        ("patch.channels", 3, "images are float32 [2, 4, 8, 8, 1] where"),
        ("distillation.epochs", 4, "log_lr are float32 [6] where"),
        ("init.rule", "random", "must not hold the arrays start"),
        ("arrays.labels", ..., "file state/labels/.zarray belongs to no declared array"),
        ("arrays.images.shape", [10**12], "past the 1073741824 bytes allowed"),
        ("arrays.images.shape", [2, 4, 8, 8, 2], "leaf images has shape [2, 4, 8, 8, 1] where"),
        ("arrays.images.shape", [1.5], "it must be a table of arrays, each with shape, dtype"),
        ("arrays.images.dtype", "int32", "leaf images has dtype '<f4' where '<i4'"),
        ("arrays.images.dtype", "object", "it must be a table of arrays, each with shape, dtype"),
        ("arrays.images.sha256", "0" * 64, "leaf images was changed or damaged"),
        ("arrays.images", None, "it must be a table of arrays, each with shape, dtype"),
        ("arrays/images.x", {}, "it must be a table of arrays, each with shape, dtype"),
    ],
)
def test_an_edited_manifest_is_refused(copy, name, value, reason):
    _edit(copy, _field(name, value))
    assert reason in _refusal(copy)


def test_names_of_arrays_that_lead_elsewhere_are_refused(copy):
    entry = {"shape": [], "dtype": "bool", "sha256": "0" * 64}
    for name in ("../x", "/x", "a\nb", "images.x", "", "%2E%2E/x"):
        before = copy.read_bytes()
        _edit(copy, lambda manifest, name=name: manifest["arrays"].update({name: entry}))
        assert "is declared without a sound name" in _refusal(copy)
        copy.write_bytes(before)


@pytest.mark.parametrize("version", [8, 0, -1, "1", None, True, 2.0, 10**30, ...])
def test_an_unknown_schema_version_is_refused_by_name(copy, version):
    _edit(copy, _field("schema_version", version))
    name = "None" if version is ... else repr(version)
    assert f"has schema version {name}; this program reads 1 to 7." in _refusal(copy)


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


def test_extreme_rates_are_loaded_and_described(tmp_path):
    _write_anew(tmp_path / "p", lambda arrays, _: arrays["log_lr"].fill(3e38))
    assert "max inf" in package.describe(package.load(tmp_path / "p"), tmp_path / "p")


def test_swapped_cut_and_missing_arrays_are_refused(saved, copy, tmp_path):
    package.save(tmp_path / "other", make(1))
    other = members(tmp_path / "other")
    for name in ("images/0.0.0.0.0", "labels/0.0.0", "start.params.Dense_0.kernel/0.0"):
        leaf, file = name.split("/")[0], f"arrays/state/{name}"
        for change, reason in (
            (lambda files, file=file: files.pop(file), f"leaf {leaf} is missing"),
            (
                lambda files, file=file: files.update({file: other[file]}),
                f"leaf {leaf} was changed or damaged",
            ),
            (
                lambda files, file=file: files.update({file: files[file][:-4]}),
                f"leaf {leaf} is of",
            ),
        ):
            copy.write_bytes(saved.read_bytes())
            repack(copy, change)
            assert reason in _refusal(copy)
    copy.write_bytes(saved.read_bytes())
    package.verify(copy)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda files: files.pop("README.md"), "there is no README.md in it"),
        (lambda files: files.pop("manifest.json"), "there is no manifest.json in it"),
        (lambda files: files.update({"run.py": b"x"}), "holds run.py, which is no part"),
        (lambda files: files.update({"previews/a.svg": b"x"}), "holds previews/a.svg, which"),
        (lambda files: files.update({"arrays/x.pkl": b"x"}), "file x.pkl belongs to no declared"),
        (lambda files: files.update({"signature.ed25519": b"x" * 65}), "and 64 are the most"),
        (
            lambda files: files.update({"README.md": bytes((1 << 20) + 1)}),
            "README.md is of 1048577 bytes, and 1048576 are the most",
        ),
        (lambda files: files.update({"manifest.json": b"[]"}), "holds no JSON object"),
        (lambda files: files.update({"manifest.json": b"\xff"}), "is not valid JSON"),
        (lambda files: files.update({"manifest.json": b"[" * 10**5}), "is not valid JSON"),
        (lambda files: files.update({"manifest.json": b'{"a": NaN}'}), "is not valid JSON"),
        (
            lambda files: files.update(
                {"manifest.json": files["manifest.json"].replace(b"{", b'{"name": "other",', 1)}
            ),
            "the key 'name' stands twice",
        ),
        (
            lambda files: files.update({"inner.gxd": storage.pack(files)}),
            "holds inner.gxd, which is no part of a package",
        ),
    ],
)
def test_files_that_no_package_may_hold_are_refused(copy, harm, reason):
    repack(copy, harm)
    assert reason in _refusal(copy)


def test_what_is_no_package_is_refused(tmp_path, saved):
    (tmp_path / "file").touch()
    assert "is no whole package: it is no zip file" in _refusal(tmp_path / "file")
    assert "No such file" in _refusal(tmp_path / "nothing")
    assert "`gxdistill migrate" in _refusal(tmp_path)
    (tmp_path / "nested").write_bytes(storage.pack({"tiny.gxd": saved.read_bytes()}))
    assert "there is no manifest.json in it" in _refusal(tmp_path / "nested")


def test_a_lying_card_changes_nothing_that_is_loaded(copy):
    expected = content_bits(package.load(copy))
    repack(copy, lambda files: files.update({"README.md": b"<script>"}))
    assert content_bits(package.load(copy)) == expected
