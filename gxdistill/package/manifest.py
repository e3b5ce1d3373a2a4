"""The manifest: what it may say, and how one of an earlier version becomes one of today.

`manifest.schema.json` is the one table of its fields; `fields` has them as types. The few keywords
of JSON Schema that the table uses are understood here, so that reading a package needs no library
for it; whole numbers must be written as such, 2 and not 2.0.
"""

import functools
import json
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata

SCHEMA_VERSION = 7
WAY_OUT = "Get a fresh copy, or make the package anew."

_TYPES = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}


@functools.cache
def schema() -> dict[str, Any]:
    """Returns the JSON Schema of the manifest."""
    return json.loads(Path(__file__).with_name("manifest.schema.json").read_text("utf-8"))


def _resolved(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    name = rule.get("$ref", "").removeprefix("#/$defs/")
    return {**schema()["$defs"][name], **rule} if name else rule


def _is_of(kinds: str | list[str], value: Any) -> bool:
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return any(type(value) in _TYPES[kind] for kind in kinds)


def _others_fit(rule: Any, value: dict, known: Mapping[str, Any]) -> bool:
    others = [content for name, content in value.items() if name not in known]
    return not others if rule is False else all(_fits(rule, content) for content in others)


# Each takes what the schema says and a value; those of numbers let null pass, as JSON Schema does.
_KEYWORDS: dict[str, Callable[[Any, Any], bool]] = {
    "anyOf": lambda rules, value: any(_fits(rule, value) for rule in rules),
    "enum": lambda choices, value: value in choices,
    "exclusiveMinimum": lambda least, value: value is None or value > least,
    "items": lambda rule, value: all(_fits(rule, item) for item in value),
    "maxItems": lambda most, value: len(value) <= most,
    "maxLength": lambda most, value: len(value) <= most,
    "maxProperties": lambda most, value: len(value) <= most,
    "maximum": lambda most, value: value is None or value <= most,
    "minItems": lambda least, value: len(value) >= least,
    "minimum": lambda least, value: value is None or value >= least,
    "not": lambda rule, value: not _fits(rule, value),
    "pattern": lambda pattern, value: re.search(pattern, value) is not None,
    "properties": lambda rules, value: all(
        _fits(rule, value[name]) for name, rule in rules.items() if name in value
    ),
    "propertyNames": lambda rule, value: all(_fits(rule, name) for name in value),
    "required": lambda names, value: set(names) <= value.keys(),
    "uniqueItems": lambda _, value: all(item not in value[:i] for i, item in enumerate(value)),
}


def _fits(rule: Mapping[str, Any], value: Any) -> bool:
    rule = _resolved(rule)
    if "type" in rule and not _is_of(rule["type"], value):
        return False
    sound = all(_KEYWORDS[word](of, value) for word, of in rule.items() if word in _KEYWORDS)
    others = rule.get("additionalProperties")
    return sound and (others is None or _others_fit(others, value, rule.get("properties", {})))


def _faults(rule: Mapping[str, Any], value: Any, at: str) -> Iterator[str]:
    """Describes what is wrong with a value; `at` is its dotted name."""
    rule = _resolved(rule)
    if "properties" not in rule or "description" in rule or type(value) is not dict:
        if not _fits(rule, value):
            wanted = rule.get("description", "a table")
            yield f"'s field {at} is {reprlib.repr(value)}; it must be {wanted}"
        return
    at = f"{at}." if at else ""
    for name in sorted(rule["properties"].keys() ^ value.keys()):
        what = "misses the field" if name in rule["properties"] else "has the unknown field"
        yield f" {what} {at}{reprlib.repr(name)[1:-1]}"
    for name, part in rule["properties"].items():
        yield from _faults(part, value[name], f"{at}{name}")


def check(manifest: Mapping[str, Any], where: Path) -> None:
    """Refuses a manifest that the schema does not allow.

    Raises:
      UserError: naming the field; `where` names the package.
    """
    _check(schema(), manifest, where)


def check_part(manifest: Mapping[str, Any], fields: Sequence[str], where: Path) -> None:
    """Refuses a table that is not just those fields of a manifest, as `check` does."""
    check_with(manifest, fields, {}, where)


def check_with(
    manifest: Mapping[str, Any], fields: Sequence[str], others: Mapping[str, Any], where: Path
) -> None:
    """Refuses a table that is not just those fields of a manifest and some of its own.

    Args:
      manifest: the table.
      fields: names of fields as the schema has them.
      others: a rule of JSON Schema for each other field.
      where: it comes from; for messages.

    Raises:
      UserError: naming the field.
    """
    properties = {name: schema()["properties"][name] for name in fields}
    _check({"properties": {**properties, **others}}, manifest, where)


def _check(rule: Mapping[str, Any], manifest: Mapping[str, Any], where: Path) -> None:
    try:
        for fault in _faults(rule, manifest, ""):
            raise UserError(f"{where}: the manifest{fault}. {WAY_OUT}")
    except RecursionError as error:
        raise UserError(f"{where}: the manifest nests too deeply. {WAY_OUT}") from error


def undescribed(table: Metadata) -> Metadata:
    """Gives what a manifest or header that does not describe its images is taken to say of them."""
    decided = table.get("decision")
    return {
        "image_normalisation": "cohort",
        "likeness": None,
        "decision": {"share_positive": None, **decided} if isinstance(decided, dict) else decided,
    }


def _from_1(manifest: Metadata) -> Metadata:
    """Version 1 was a folder that knew no purpose, licence or cohort, and sealed its manifest."""
    decided = manifest.get("decision")
    return {
        **{name: value for name, value in manifest.items() if name != "sha256"},
        "schema_version": 2,
        "purpose": "Not stated.",
        "licence": "Not stated: ask the sender.",
        "cohort": None,
        "decision": {"networks": 1, **decided} if isinstance(decided, dict) else decided,
    }


def _from_2(manifest: Metadata) -> Metadata:
    """Version 2 knew no inner optimiser but SGD, rounded images, proof or way of reading."""
    loop = manifest.get("distillation")
    return {
        **manifest,
        "schema_version": 3,
        "distillation": {"inner": {"name": "sgd"}, **loop} if isinstance(loop, dict) else loop,
        "precision": "float32",
        "proof": None,
        "reading": None,
    }


def _from_3(manifest: Metadata) -> Metadata:
    """Version 3 normalised images by the cohort alone, and did not describe them to receivers."""
    return {**manifest, "schema_version": 4, **undescribed(manifest)}


def _from_4(manifest: Metadata) -> Metadata:
    """Version 4 knew no ledger: nothing was guaranteed."""
    return {**manifest, "schema_version": 5, "ledger": None}


def _from_5(manifest: Metadata) -> Metadata:
    """Version 5 changed no image of a replay."""
    loop = manifest.get("distillation")
    return {
        **manifest,
        "schema_version": 6,
        "distillation": {"augmentations": [], **loop} if isinstance(loop, dict) else loop,
    }


def _from_6(manifest: Metadata) -> Metadata:
    """Version 6 knew no rule that has weights."""
    return {**manifest, "schema_version": 7, "decision": unweighted(manifest.get("decision"))}


def unweighted(decided: Any) -> Any:
    """Gives a decision of a manifest or header that knew no weights none."""
    return {"weights": [], **decided} if isinstance(decided, dict) else decided


# Each to the next version.
_MIGRATIONS = {1: _from_1, 2: _from_2, 3: _from_3, 4: _from_4, 5: _from_5, 6: _from_6}


def migrate(manifest: Metadata, where: Path) -> Metadata:
    """Turns a manifest of an earlier version into one of today, unchecked.

    Raises:
      UserError: of a version that this program does not know, by its name.
    """
    version = manifest.get("schema_version")
    if type(version) is not int or not (version == SCHEMA_VERSION or version in _MIGRATIONS):
        raise UserError(
            f"{where} has schema version {reprlib.repr(version)}; this program reads "
            f"{min(_MIGRATIONS)} to {SCHEMA_VERSION}. Install the release of gxdistill that wrote "
            f"it."
        )
    if version == SCHEMA_VERSION:
        return manifest
    return migrate(_MIGRATIONS[version](manifest), where)
