"""A package in words: for the terminal, and as the data card that lies in its file."""

import reprlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gxdistill.package.content import MANIFEST, SIGNATURE, Package, open_members
from gxdistill.package.manifest import SCHEMA_VERSION
from gxdistill.package.weights_file import EssentialWeights
from gxdistill.pytrees import Metadata

Row = tuple[str, str]

WARNING = "For research only: this is not a medical device."

_CARD = """# {name}

A gxdistill package, schema version {version}: {images} synthetic images with soft labels and
learning rates. A network that is trained on them, in their order and at their rates, comes near one
that was trained on the private images they were distilled from.

{warning}
{sections}

## How to load

With gxdistill:

```bash
gxdistill verify FILE.gxd
gxdistill inspect FILE.gxd
gxdistill train --package=FILE.gxd --workdir=FOLDER
```

Without it, the file is a zip: each array is a file of its own, little-endian, in row-major order.

```python
import json, zipfile, numpy as np

with zipfile.ZipFile("FILE.gxd") as file:
    arrays = json.loads(file.read("manifest.json"))["arrays"]
    shape = arrays["images"]["shape"]  # steps, images a step{sides}
    pixels = file.read("arrays/state/images/" + ".".join("0" * len(shape)))
images = np.frombuffer(pixels, "{dtype}").reshape(shape)
```
{meaning}
Unpacked, `arrays` is an Orbax checkpoint, and `sha256sum --check SHA256SUMS` tells whether all is
whole. `previews` shows a few of the images in 16 shades of grey.
"""


_SIDES = ", height, width, channels"
_HALVES = """
They are the upper halves of float32: `(images.astype("<u4") << 16).view("<f4")`.
"""
_CODES = """
They are codes: pixel = offset + scale * code, where the arrays `scale` and `offset` (float32)
have a number for each step and image.
"""
_PAIRS = """
A byte holds two neighbouring values, the first in its lower half.
"""
_PIXELS = {
    "float32": {"dtype": "<f4", "sides": _SIDES, "meaning": ""},
    "bfloat16": {"dtype": "<u2", "sides": _SIDES, "meaning": _HALVES},
    "uint8": {"dtype": "u1", "sides": _SIDES, "meaning": _CODES},
    "uint4": {"dtype": "u1", "sides": ", bytes", "meaning": _PAIRS + _CODES},
}


def _number(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if type(value) in (int, float) else reprlib.repr(value)


def _figures(results: Metadata, at: str = "") -> Iterator[str]:
    """Words each figure: a number, or a table of `mean` or `value`, `std`, `low` and `high`."""
    for name, value in results.items():
        if not isinstance(value, dict):
            yield f"{at}{name} {_number(value)}"
        elif not value.keys() & {"mean", "value"}:
            yield from _figures(value, f"{at}{name}.")
        else:
            text = _number(value.get("mean", value.get("value")))
            if value.get("std") is not None:
                text += f" +- {_number(value['std'])}"
            if value.get("low") is not None:
                text += f" ({_number(value['low'])} to {_number(value.get('high'))})"
            yield f"{at}{name} {text}"


def _named(name: str, options: Metadata) -> str:
    return ", ".join([name, *(f"{option} {value}" for option, value in options.items())])


def _cohort(cohort: Metadata | None) -> Iterator[Row]:
    if cohort is None:
        yield "cohort", "not stated"
        return
    counts = ", ".join(f"{cohort[name]} {name}" for name in ("images", "patients", "sites"))
    yield "cohort", f"{counts}; {cohort['quarantined']} images quarantined"
    for name, split in cohort["splits"].items():
        labels = ", ".join(f"{count} {label}" for label, count in split["labels"].items())
        yield name, f"{split['images']} images of {split['patients']} patients: {labels}"


def _method(package: Package) -> Iterator[Row]:
    """Words what is trained, on what, and how."""
    manifest, data = package.manifest, package.distilled
    network, loop = manifest["network"], manifest["distillation"]
    steps, per_step, height, width, channels = data.images.shape
    yield "network", _named(network["name"], network["options"])
    starts = {
        "known": "the known ones of seed {seed}, included",
        "seeded": "the known ones of seed {seed}, drawn anew from it",
        "random": "random ones, of any seed",
    }
    yield "start weights", starts[manifest["init"]["rule"]].format(**manifest["init"])
    constants = {name: value for name, value in loop["inner"].items() if name != "name"}
    inner = _named(loop["inner"]["name"], constants)
    yield "replay", f"{steps} steps x {loop['epochs']} epochs of {inner} on {loop['loss']}"
    sizes = f"{height} x {width} x {channels}, {per_step} a step, {manifest['precision']}"
    yield "images", f"{steps * per_step} of {sizes}"
    begun = origin(loop["started_from"])
    begun = begun.upper() if loop["started_from"] == "real" else begun
    learned = f"learned in {loop['outer_steps']} outer steps" if loop["outer_steps"] else "as drawn"
    yield "started from", f"{begun}, {learned}"
    rule = {"raw": "learned as they are", "softmax": "softmax of learned logits"}
    yield "labels", f"{data.labels.shape[-1]} an image, {rule[loop['label_rule']]}"
    with np.errstate(over="ignore"):  # a stranger's package may hold any rate
        rates = np.exp(np.asarray(data.log_lr, np.float64))
        low, middle, high = (float(f(rates)) for f in (np.min, np.median, np.max))
    yield "rates", f"min {low:.4g}, median {middle:.4g}, max {high:.4g}"
    mean, std = (map(_number, manifest["normalisation"][name]) for name in ("mean", "std"))
    yield "normalisation", f"mean {', '.join(mean)}; std {', '.join(std)} of pixel / 255"


def origin(started_from: str) -> str:
    """Words what distilled images started from: the manifest's field."""
    return {
        "noise": "noise",
        "mixture": "a mixture of Gaussians fitted to real images",
        "real": "real images of patients",
    }[started_from]


def decision(decided: Metadata | None) -> str:
    """Words how whole images are decided: the manifest's field."""
    if decided is None:
        return "none"
    count = decided["networks"]
    mean = f", of the mean of {count} networks' probabilities" if count > 1 else ""
    return f"{decided['rule']}, tau {_number(decided['tau'])}{mean}"


def _task(manifest: Metadata) -> Iterator[Row]:
    """Words what is cut out, told apart and decided."""
    patch, decided = manifest["patch"], manifest["decision"]
    border = ", the far edges too" if patch["border"] else ""
    shrunken = f", shrunken {patch['downscale']} times" if patch["downscale"] > 1 else ""
    yield "patches", f"{patch['size']} px at stride {patch['stride']}{border}"
    yield "cut from", f"images of {patch['image_height']} x {patch['image_width']} px{shrunken}"
    outside, inside = patch["irrelevant_below"], patch["inside_above"]
    yield "area rule", f"organ share <= {outside} irrelevant, >= {inside} inside, rest dropped"
    yield "classes", ", ".join(manifest["class_names"])
    yield "decision", decision(decided)


def _results(manifest: Metadata) -> Iterator[Row]:
    for i, figure in enumerate(_figures(manifest["results"])):
        yield "" if i else "results", figure


def _framed(what: Row, manifest: Metadata, method: Iterator[Row], last: list[Row]) -> str:
    """Words a file: what it is, what its manifest says of any, and its own method and end."""
    rows: list[Row] = [
        what,
        ("purpose", manifest["purpose"]),
        *_cohort(manifest["cohort"]),
        *method,
        *_task(manifest),
        *_results(manifest),
        ("privacy", manifest["privacy"]),
        ("licence", manifest["licence"]),
        *last,
    ]
    wrap = textwrap.TextWrapper(width=96, subsequent_indent=" " * 16)
    return "\n".join(wrap.fill(f"{name:<16}{text}") for name, text in rows)


def describe_weights(found: EssentialWeights, path: Path) -> str:
    """Words essential weights for people, as `describe` a package.

    Args:
      found: from `load_weights`.
      path: its file.
    """
    manifest, total, own = found.manifest, path.stat().st_size, len(found.codes)
    network = manifest["network"]
    method: list[Row] = [
        ("network", _named(network["name"], network["options"])),
        ("weights", f"their start of seed {manifest['init']['seed']}, moved by coded values"),
    ]
    last = [
        ("size", f"{total} bytes: codes {own}, all else {total - own}"),
        ("SHA-256", found.sha256),
    ]
    what = "file", f"{manifest['name']}: essential weights, one trained network"
    return _framed(what, manifest, iter(method), last)


def describe(package: Package, path: Path) -> str:
    """Words a package for people, a line or more for each of its properties.

    Args:
      package: from `load`.
      path: its file.
    """
    manifest, members = package.manifest, open_members(path)
    own = len(members[MANIFEST])
    arrays = sum(len(content) for name, content in members.items() if name.startswith("arrays/"))
    total = path.stat().st_size
    rest = f"{total} bytes: arrays {arrays}, manifest {own}, all else {total - arrays - own}"
    what = "package", f"{manifest['name']} (schema version {manifest['schema_version']})"
    last = [
        ("size", rest),
        ("signature", "there is one; `verify --key` checks it" if SIGNATURE in members else "none"),
        ("SHA-256", package.sha256 or ""),
    ]
    return _framed(what, manifest, _method(package), last)


def _plain(text: str) -> str:
    # What the sender wrote is text, not Markdown or HTML.
    return "".join(f"\\{char}" if char in r"\`*_[]<>#|" else char for char in text)


def card(package: Package) -> str:
    """Writes the data card of a package, in Markdown."""
    manifest = package.manifest
    sections: dict[str, list[Row]] = {
        "Purpose": [("", manifest["purpose"])],
        "Cohort": [*_cohort(manifest["cohort"])],
        "Method": [*_method(package), *_task(manifest)],
        "Results": [("", text) for _, text in _results(manifest)],
        "Privacy": [("", manifest["privacy"])],
        "Licence": [("", manifest["licence"])],
    }
    lines = []
    for heading, rows in sections.items():
        lines += ["", f"## {heading}", ""]
        lines += [
            f"- {name}: {_plain(text)}" if name else f"- {_plain(text)}" for name, text in rows
        ]
    steps, per_step = package.distilled.images.shape[:2]
    kind = manifest["precision"]
    return _CARD.format(
        **_PIXELS[kind],
        name=_plain(manifest["name"]),
        version=SCHEMA_VERSION,
        images=steps * per_step,
        warning=WARNING,
        sections="\n".join(lines),
    )
