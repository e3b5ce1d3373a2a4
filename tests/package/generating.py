"""Packages that the schema allows, or nearly: numbers at their bounds, hostile names."""

import hashlib
import json
import math

import numpy as np
from hypothesis import strategies as st

from gxdistill import package, storage
from gxdistill.package import content, precision
from tests.hostile import NAMES

_MAX_ELEMENTS = 1 << 16  # Of arrays that are made to fit a manifest.
_DTYPES = {"float32": "<f4", "bfloat16": "bfloat16", "uint8": "|u1"}
NETWORKS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(("convnet", "lenet", "resnet18", "tiny-net", *NAMES[:4])),
        "options": st.one_of(
            st.just({}),
            st.fixed_dictionaries(
                {},
                optional={
                    "width": st.sampled_from((1, 2, 300, 4096, 65536, 65537, 2**31, -1, "4")),
                    "depth": st.sampled_from((0, 1, 2, 16, 2**31, None)),
                    "norm": st.sampled_from(("none", "instance", "../x")),
                    "stages": st.sampled_from(([1], [1] * 40, [1] * 256, [257], [], [0], "ab", 3)),
                    "dtype": st.sampled_from(("bfloat16", "float64", "object")),
                },
            ),
            st.dictionaries(st.sampled_from(NAMES), st.integers(), max_size=2),
        ),
    }
)

_SMALL = {"name": "convnet", "options": {"width": 2, "depth": 1}}


def _resolved(rule):
    name = rule.get("$ref", "").removeprefix("#/$defs/")
    return {**package.schema()["$defs"][name], **rule} if name else rule


def _numbers(rule, kind):
    low, high = (
        rule.get("minimum", rule.get("exclusiveMinimum", -1e300)),
        rule.get("maximum", 1e300),
    )
    ends = {low, high, 1, 2, 3}
    if kind == "integer":
        return st.sampled_from(sorted({*map(int, ends), int(low) - 1, int(high) + 1, 16, 1000}))
    return st.sampled_from([*sorted(ends), 0.5, 1e-300, -0.0, math.nextafter(high, math.inf)])


def values(rule, depth=0):
    """Values of a part of the schema, at its bounds and one beyond."""
    rule = _resolved(rule)
    if "anyOf" in rule:
        # Of what may nest, the leaves.
        kinds = rule["anyOf"] if depth < 3 else rule["anyOf"][:3]
        return st.one_of(*(values(part, depth + 1) for part in kinds))
    if "enum" in rule:
        return st.sampled_from([*rule["enum"], "../x"])
    kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    return st.one_of(*(_of_kind(rule, kind, depth) for kind in kinds))


def _of_kind(rule, kind, depth):
    if kind in ("integer", "number"):
        return _numbers(rule, kind)
    if kind == "string":
        return st.sampled_from(NAMES)
    if kind == "array":
        least, most = rule.get("minItems", 0), rule.get("maxItems", 4)
        sizes = sorted({least, least + 1, min(most, least + 70)})
        item = values(rule["items"], depth + 1)
        return st.sampled_from(sizes).flatmap(lambda n: st.lists(item, min_size=n, max_size=n))
    if kind == "object":
        if "properties" in rule:
            parts = rule["properties"].items()
            return st.fixed_dictionaries({name: values(part, depth + 1) for name, part in parts})
        inner = values(rule["additionalProperties"], depth + 1)
        return st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    return {"boolean": st.booleans(), "null": st.none()}[kind]


def _places(rule, at=()):
    """The parts of the manifest that can be changed by themselves, with their rules."""
    rule = _resolved(rule)
    for part in rule.get("anyOf", [rule]):
        part = _resolved(part)
        for name, inner in part.get("properties", {}).items():
            yield (*at, name), inner
            yield from _places(inner, (*at, name))


def _changed(manifest, changes):
    for place, value in changes:
        table = manifest
        for name in place[:-1]:
            if not isinstance(table.get(name), dict):
                table[name] = {}
            table = table[name]
        table[place[-1]] = value
    return manifest


@st.composite
def packages(draw, sound):
    """Bytes of packages made of a sound one's members, whole but for what was changed."""
    members = dict(sound)
    manifest = json.loads(members["manifest.json"])
    places = [x for x in _places(package.schema()) if x[0][0] not in ("arrays", "schema_version")]
    chosen = draw(st.lists(st.sampled_from(places), max_size=3))
    _changed(manifest, [(place, draw(values(rule))) for place, rule in chosen])
    manifest["network"] = draw(st.one_of(st.just(_SMALL), NETWORKS))
    if draw(st.integers(0, 4)):
        manifest["init"] = draw(
            st.sampled_from(
                ({"rule": "random", "seed": None}, {"rule": "seeded", "seed": 2**32 - 1})
            )
        )
    if draw(st.integers(0, 9)):
        _fit(members, manifest)
    # Halves of characters are no UTF-8, but JSON can name them.
    members["manifest.json"] = json.dumps(manifest).encode()
    members[content.SUMS] = content.sums(members)
    return storage.pack(members)


def _fit(members, manifest):
    """Makes the arrays that a manifest asks for, if these are few numbers."""
    try:
        loop, side = manifest["distillation"], manifest["patch"]["size"]
        shape = loop["steps"], loop["images_per_step"], side, side, manifest["patch"]["channels"]
        forms = precision.forms(manifest["precision"], shape)
        forms["labels"] = (*shape[:2], len(manifest["class_names"])), "float32"
        forms["log_lr"] = (loop["steps"] * loop["epochs"],), "float32"
        few = all(0 < math.prod(shape) < _MAX_ELEMENTS for shape, _ in forms.values())
    except (TypeError, KeyError, ValueError, OverflowError):
        return
    if not few or manifest["precision"] not in package.PRECISIONS:
        return
    if manifest["init"]["rule"] != "known":
        for name in [name for name in manifest["arrays"] if name.startswith("start.")]:
            _remove(members, manifest, name)
    for name, (shape, dtype) in forms.items():
        _put(members, manifest, name, np.ones(shape, np.float32).astype(np.dtype(dtype)))


def _remove(members, manifest, name):
    manifest["arrays"].pop(name, None)
    for member in [m for m in members if m.startswith(f"arrays/state/{name}/")]:
        del members[member]


def _put(members, manifest, name, array):
    _remove(members, manifest, name)
    shape, dtype = list(array.shape), array.dtype.name
    head = f"{dtype} {shape}\n".encode()
    digest = hashlib.sha256(head + array.tobytes()).hexdigest()
    manifest["arrays"][name] = {"shape": shape, "dtype": dtype, "sha256": digest}
    header = {"zarr_format": 2, "order": "C", "dimension_separator": ".", "fill_value": None}
    header |= {"compressor": None, "filters": None, "dtype": _DTYPES[dtype]}
    header |= {"shape": shape, "chunks": shape}
    members[f"arrays/state/{name}/.zarray"] = json.dumps(header).encode()
    members[f"arrays/state/{name}/" + ".".join("0" * array.ndim)] = array.tobytes()
