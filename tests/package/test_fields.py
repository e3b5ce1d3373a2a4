"""The types of the manifest, held against its schema: neither may know what the other does not."""

import dataclasses
import types
import typing
from collections.abc import Mapping

import pytest

from gxdistill import package, storage
from gxdistill.package import weights_file
from tests.packages import LEDGER, make_manifest

OF_JSON = {"string": str, "integer": int, "number": float, "boolean": bool}


def _whole():
    """A manifest in which nothing is missing, as JSON."""
    entry = {"shape": [2, 3], "dtype": "float32", "sha256": "0" * 64}
    return {
        **package.to_json(make_manifest()),
        "reading": {
            "window": "file",
            "spacing": 0.2,
            "fit": "pad",
            "text": "mask",
            "bits": [8, 12],
        },
        "proof": {"weights": "0" * 64, "logits": [[0.5, -1, 2.0]] * 8, "tolerance": 1e-5},
        "ledger": LEDGER,
        "arrays": {"images": entry, "start.x": entry},
    }


def _resolved(rule):
    name = rule.get("$ref", "").removeprefix("#/$defs/")
    return {**package.schema()["$defs"][name], **rule} if name else rule


def _check(kind, rule, at):
    """Compares the type of a field with the rule of the schema for it."""
    rule = _resolved(rule)
    names = rule.get("type", [])
    names = {names} if isinstance(names, str) else set(names)
    branches = [_resolved(branch) for branch in rule.get("anyOf", ())]
    is_optional = isinstance(kind, types.UnionType)
    is_nullable = "null" in names or any(branch.get("type") == "null" for branch in branches)
    assert is_optional == is_nullable, at
    if is_optional:
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
        branches = [branch for branch in branches if branch.get("type") != "null"]
        names -= {"null"}
    if branches and dataclasses.is_dataclass(kind):  # Tables of one form.
        for branch in branches:
            _check(kind, branch, at)
    elif len(branches) == 1:
        _check(kind, branches[0], at)
    elif branches:  # One of several tables, as of an inner optimiser.
        assert all(branch["type"] == "object" for branch in branches), at
        assert typing.get_origin(kind) is Mapping, at
    elif names == {"array"}:
        assert typing.get_origin(kind) is tuple, at
        item, rest = typing.get_args(kind)
        assert rest is ..., at
        _check(item, rule["items"], f"{at}.items")
    elif names == {"object"} and "properties" in rule:
        _check_table(kind, rule, at)
    elif names == {"object"}:
        assert typing.get_origin(kind) is Mapping, at
    else:
        (name,) = names
        assert kind is OF_JSON[name], at


def _check_table(kind, rule, at):
    fields = typing.get_type_hints(kind)
    assert fields.keys() == rule["properties"].keys() == set(rule["required"]), at
    for name, part in rule["properties"].items():
        _check(fields[name], part, f"{at}.{name}")


def test_the_fields_are_those_of_the_schema_with_their_types():
    _check_table(package.Manifest, package.schema(), "manifest")


def test_essential_weights_say_what_a_package_says_but_how_it_was_distilled():
    apart = {"schema_version", "distillation", "precision", "arrays"}
    assert set(weights_file.FIELDS) == package.schema()["properties"].keys() - apart
    assert set(weights_file.FIELDS) == typing.get_type_hints(package.About).keys()


@pytest.mark.parametrize(
    "missing", [(), ("cohort", "reading", "decision", "likeness", "proof", "ledger")]
)
def test_a_manifest_comes_back_as_it_was(missing):
    table = _whole() | dict.fromkeys(missing)
    manifest = package.from_json(package.Manifest, table)
    assert package.to_json(manifest) == table
    assert storage.json_text(package.to_json(manifest)) == storage.json_text(table)
    assert package.from_json(package.Manifest, package.to_json(manifest)) == manifest
    for name in missing:
        assert getattr(manifest, name) is None


def test_the_parts_of_a_manifest_are_objects():
    manifest = package.from_json(package.Manifest, _whole())
    assert manifest.cohort.splits.train.labels == {"negative": 40, "positive": 30}
    assert manifest.reading.bits == (8, 12)
    assert manifest.proof.logits == ((0.5, -1, 2.0),) * 8
    assert manifest.normalisation.std == (0.25,)
    assert manifest.patch.shape == (8, 8, 1)
    assert manifest.images_shape == (2, 4, 8, 8, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.name = "another"


@pytest.mark.parametrize(
    ("rule", "is_known", "is_packaged"),
    [("known", True, True), ("seeded", True, False), ("random", False, False)],
)
def test_an_init_tells_where_its_weights_come_from(rule, is_known, is_packaged):
    init = package.Init(rule, None if rule == "random" else 7)
    assert (init.is_known, init.is_packaged) == (is_known, is_packaged)
