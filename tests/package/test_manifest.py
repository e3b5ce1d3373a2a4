"""The schema of the manifest, held against another implementation of JSON Schema."""

import copy
import dataclasses
import inspect
import json
import random
import shutil
from pathlib import Path

import jsonschema
import pytest

from gxdistill import package, storage
from gxdistill.data.files import reading
from gxdistill.distill.init import LABEL_RULES
from gxdistill.distill.inner import OPTIMIZERS
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, zones
from gxdistill.package import manifest as manifests
from gxdistill.package import precision
from tests.packages import LEDGER, bits, change, content_bits, make, make_manifest, repack

WHERE = Path("there/x.gxd")
ORACLE = jsonschema.Draft202012Validator(package.schema())


def _whole():
    entry = {"shape": [2, 3], "dtype": "float32", "sha256": "0" * 64}
    return {
        **package.to_json(make_manifest()),
        "reading": {"window": "file", "spacing": 0.2, "fit": "pad", "text": "mask", "bits": [8]},
        "ledger": LEDGER,
        "arrays": {"images": entry, "start.x": entry},
    }


def _refuses(manifest):
    try:
        manifests.check(manifest, WHERE)
    except UserError as error:
        return str(error).startswith(f"{WHERE}: ") and "\n" not in str(error)
    return False


def test_the_schema_is_one_and_allows_what_is_written():
    jsonschema.Draft202012Validator.check_schema(package.schema())
    for manifest in (_whole(), {**_whole(), "cohort": None, "reading": None}):
        ORACLE.validate(manifest)
        manifests.check(manifest, WHERE)


def test_every_keyword_of_the_schema_is_understood():
    annotations = {"$schema", "$defs", "$ref", "title", "description"}
    known = {*manifests._KEYWORDS, "type", "additionalProperties"} | annotations

    def rules(rule):
        yield rule
        for part in [*rule.get("anyOf", ()), *rule.get("properties", {}).values()]:
            yield from rules(part)
        for word in ("items", "not", "propertyNames", "additionalProperties"):
            if isinstance(rule.get(word), dict):
                yield from rules(rule[word])

    schema = package.schema()
    for top in (schema, *schema["$defs"].values()):
        for rule in rules(top):
            assert rule.keys() <= known


def test_the_schema_knows_the_rules_that_the_method_knows():
    defined, fields = package.schema()["$defs"], package.schema()["properties"]
    tables = defined["decision"]["properties"], defined["decision_by_zones"]["properties"]
    assert [rule for table in tables for rule in table["rule"]["enum"]] == list(decision.RULES)
    lengths = [table["weights"]["maxItems"] for table in tables]
    assert lengths == [0, zones.WEIGHTS]
    assert tables[1]["weights"]["minItems"] == zones.WEIGHTS
    made = fields["distillation"]["properties"]["label_rule"]
    assert {*made["enum"]} <= {*LABEL_RULES}


def test_the_schema_knows_the_optimisers_with_their_constants():
    defined = package.schema()["$defs"]
    for name, make_inner in OPTIMIZERS.items():
        assert defined[name]["properties"]["name"]["enum"] == [name]
        constants = inspect.signature(make_inner).parameters
        assert defined[name]["required"] == ["name", *constants]
    assert package.schema()["properties"]["precision"]["enum"] == list(precision.PRECISIONS)


def test_the_schema_knows_the_ways_of_reading():
    ways = package.schema()["$defs"]["reading"]["properties"]
    for name, known in (
        ("window", reading.WINDOWS),
        ("fit", reading.FITS),
        ("text", reading.TEXTS),
    ):
        assert ways[name]["enum"] == list(known)


def _places(value, at=()):
    """The place of every value within a manifest."""
    if at:
        yield at
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(part, (*at, name))


VALUES = (
    *(None, True, False, 0, 1, -1, 3, 0.5, -0.5, 1e300, 1e301, 10**400, 2**31, 2**32, 65537),
    *("", "a", "soft", "raw", "noise", "known", "float32", "0" * 64, "0" * 65, "a" * 10_001),
    *("a\nb", "a\u0085b", "\u2066", "é"),
    *([], [1], [0.5, 0.5], ["a", "a"], ["a", "b"], [None], [[1]], {}, {"a": 1}, {"a\n": 1}),
    {"images": 1},
)


@pytest.mark.parametrize("count", [400, pytest.param(4000, marks=pytest.mark.slow)])
def test_another_implementation_gives_the_same_verdicts(count):
    rng, refused = random.Random(0), 0
    places = list(_places(_whole()))
    cases = [(place, value) for place in places for value in VALUES]
    for place, value in rng.choices(cases, k=count):
        manifest = copy.deepcopy(_whole())
        *parents, last = place
        branch = manifest
        for parent in parents:
            branch = branch[parent]
        if rng.random() < 0.1 and isinstance(branch, dict):
            del branch[last]
        elif rng.random() < 0.1 and isinstance(branch, dict):
            branch[str(rng.random())] = copy.deepcopy(value)
        else:
            branch[last] = copy.deepcopy(value)
        verdict = _refuses(manifest)
        assert verdict == (not ORACLE.is_valid(manifest)), (place, value)
        refused += verdict
    assert 0.3 * count < refused < 0.95 * count


def _version_1(path):
    """A package as the release with schema version 1 wrote it: a folder."""
    made = make()
    added = ("purpose", "licence", "cohort", "image_normalisation", "likeness", "ledger")
    table = package.to_json(made.manifest)
    manifest = {k: v for k, v in table.items() if k not in added} | {"schema_version": 1}
    manifest["decision"] = {"rule": "soft", "tau": 0.4375}
    arrays = {**vars(made.distilled), "start": made.start}
    with storage.fresh_folder(path) as folder:
        manifest["arrays"] = storage.save_arrays(folder / "arrays", arrays)
        storage.write_json(folder / "manifest.json", storage.seal(manifest))
    return path


def test_a_package_of_version_1_is_written_anew(tmp_path):
    package.convert(_version_1(tmp_path / "package"), tmp_path / "p.gxd")
    loaded = package.load(tmp_path / "p.gxd")
    assert bits(loaded.distilled) == bits(make().distilled)
    assert bits(loaded.start) == bits(make().start)
    changed = {
        "purpose": "Not stated.",
        "licence": "Not stated: ask the sender.",
        "cohort": None,
        "decision": package.Decision("soft", (), 0.4375, None, 1),
        "likeness": None,
        "arrays": loaded.manifest.arrays,
    }
    assert loaded.manifest == dataclasses.replace(make().manifest, **changed)
    assert (tmp_path / "package").is_dir()


def test_a_package_of_version_6_decides_without_weights(copy):
    def earlier(files):
        manifest = json.loads(files["manifest.json"]) | {"schema_version": 6}
        del manifest["decision"]["weights"]
        files["manifest.json"] = json.dumps(manifest).encode()

    before = package.load(copy)
    repack(copy, earlier)
    assert content_bits(package.load(copy)) == content_bits(before)
    assert package.load(copy).manifest.decision.weights == ()


def test_a_replay_of_a_package_of_version_5_changes_no_image(copy):
    def earlier(files):
        manifest = json.loads(files["manifest.json"]) | {"schema_version": 5}
        del manifest["decision"]["weights"]
        del manifest["distillation"]["augmentations"]
        files["manifest.json"] = json.dumps(manifest).encode()

    before = package.load(copy)
    repack(copy, earlier)
    assert package.load(copy).manifest.distillation.augmentations == ()
    assert content_bits(package.load(copy)) == content_bits(before)


def test_a_package_of_version_4_guarantees_nothing(copy):
    def earlier(files):
        manifest = json.loads(files["manifest.json"]) | {"schema_version": 4}
        del manifest["decision"]["weights"]
        del manifest["ledger"]
        files["manifest.json"] = json.dumps(manifest).encode()

    before = package.load(copy)
    repack(copy, earlier)
    assert content_bits(package.load(copy)) == content_bits(before)
    assert package.load(copy).manifest.ledger is None


def _undescribed(package):
    """The package without what says how the sender's images looked, which version 4 began."""
    return change(change(package, "decision", share_positive=None), likeness=None)


def test_a_package_of_version_2_is_read(copy):
    def earlier(files):
        manifest = json.loads(files["manifest.json"]) | {"schema_version": 2}
        del manifest["decision"]["weights"]
        del manifest["precision"], manifest["proof"], manifest["reading"]
        del manifest["image_normalisation"], manifest["likeness"], manifest["ledger"]
        del manifest["decision"]["share_positive"]
        del manifest["distillation"]["inner"]
        files["manifest.json"] = json.dumps(manifest).encode()

    before = package.load(copy)
    repack(copy, earlier)
    loaded = package.load(copy)
    assert content_bits(loaded) == content_bits(_undescribed(before))
    assert loaded.manifest.distillation.inner == {"name": "sgd"}


def test_a_package_of_version_3_is_read(copy):
    def earlier(files):
        manifest = json.loads(files["manifest.json"]) | {"schema_version": 3}
        del manifest["decision"]["weights"]
        del manifest["image_normalisation"], manifest["likeness"], manifest["ledger"]
        del manifest["decision"]["share_positive"]
        files["manifest.json"] = json.dumps(manifest).encode()

    before = package.load(copy)
    repack(copy, earlier)
    loaded = package.load(copy)
    assert content_bits(loaded) == content_bits(_undescribed(before))
    assert loaded.manifest.image_normalisation == "cohort"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "is no package of schema version 1"),
        (
            lambda folder: (folder / "manifest.json").write_text(
                (folder / "manifest.json").read_text().replace("tiny0", "tiny1")
            ),
            "manifest.json was changed after it was written",
        ),
        (
            lambda folder: (folder / "arrays/state/labels/0.0.0").write_bytes(bytes(96)),
            "leaf labels was changed or damaged",
        ),
        (
            lambda folder: storage.write_json(
                folder / "manifest.json",
                storage.seal({**json.loads((folder / "manifest.json").read_text()), "decision": 3}),
            ),
            "field decision is 3",
        ),
    ],
)
def test_a_damaged_package_of_version_1_is_refused(tmp_path, harm, reason):
    folder = _version_1(tmp_path / "package")
    harm(folder)
    with pytest.raises(UserError, match=reason):
        package.convert(folder, tmp_path / "p.gxd")
    assert not (tmp_path / "p.gxd").exists()


@pytest.mark.parametrize("char", "\u00ad\u061c\u180e\u200b\u200d\u200f\u2060\u2064\ufeff\ufff9")
def test_two_names_that_look_alike_for_a_sign_without_width_are_refused(char):
    names = ["irrelevant", "positive", f"posi{char}tive"]
    with pytest.raises(UserError, match="field class_names is"):
        manifests.check({**_whole(), "class_names": names}, WHERE)
