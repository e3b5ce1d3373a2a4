"""A package in words: for the terminal, and as the data card that lies in its file."""

import reprlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gxdistill.package.content import MANIFEST, SIGNATURE, Package, open_members
from gxdistill.package.fields import About, CohortCounts, Decision
from gxdistill.package.guarantees import guarantee
from gxdistill.package.manifest import SCHEMA_VERSION
from gxdistill.package.weights_file import EssentialWeights
from gxdistill.pytrees import Metadata

Row = tuple[str, str]

_IMAGE_NORMALISATIONS = {
    "cohort": "once over the cohort: another machine's grey values may mislead",
    "image": "each image by its own mean and deviation",
    "image_histogram": "each image by the ranks of its own grey values",
    "organ": "each image by mean and deviation of its organ, which needs a mask",
    "organ_histogram": "each image by the ranks of its organ's grey values, which needs a mask",
}
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
    """Describes each figure: a number, or a table of `mean` or `value`, `std`, `low` and `high`."""
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _with_options(name: str, options: Metadata) -> str:
    return ", ".join([name, *(f"{option} {value}" for option, value in options.items())])


def _cohort(cohort: CohortCounts | None) -> Iterator[Row]:
    if cohort is None:
        yield "cohort", "not stated"
        return
    counts = f"{cohort.images} images, {cohort.patients} patients, {cohort.sites} sites"
    yield "cohort", f"{counts}; {cohort.quarantined} images quarantined"
    for name, split in (("test", cohort.splits.test), ("train", cohort.splits.train)):
        labels = ", ".join(f"{count} {label}" for label, count in split.labels.items())
        yield name, f"{split.images} images of {split.patients} patients: {labels}"


def _method(package: Package) -> Iterator[Row]:
    """Describes what is trained, on what, and how."""
    manifest, data, loop = package.manifest, package.distilled, package.manifest.distillation
    steps, per_step, height, width, channels = data.images.shape
    yield "network", _with_options(manifest.network.name, manifest.network.options)
    starts = {
        "known": "the known ones of seed {seed}, included",
        "seeded": "the known ones of seed {seed}, drawn anew from it",
        "random": "random ones, of any seed",
    }
    yield "start weights", starts[manifest.init.rule].format(seed=manifest.init.seed)
    constants = {name: value for name, value in loop.inner.items() if name != "name"}
    inner = _with_options(loop.inner["name"], constants)
    changed = f", images changed by {', '.join(loop.augmentations)}" if loop.augmentations else ""
    rounds = f"{_count(steps, 'step')} x {_count(loop.epochs, 'epoch')}"
    yield "replay", f"{rounds} of {inner} on {loop.loss}{changed}"
    sizes = f"{height} x {width} x {channels}, {per_step} a step, {manifest.precision}"
    yield "images", f"{steps * per_step} of {sizes}"
    source = origin(loop.started_from)
    source = source.upper() if loop.started_from == "real" else source
    learned = f"learned in {loop.outer_steps} outer steps" if loop.outer_steps else "as drawn"
    yield "started from", f"{source}, {learned}"
    rule = {"raw": "learned as they are", "softmax": "softmax of learned logits"}
    labelled_by = rule[loop.label_rule] if loop.outer_steps else "given, not learned"
    yield "labels", f"{data.labels.shape[-1]} an image, {labelled_by}"
    with np.errstate(over="ignore"):  # a stranger's package may hold any rate
        rates = np.exp(np.asarray(data.log_lr, np.float64))
        low, middle, high = (float(f(rates)) for f in (np.min, np.median, np.max))
    yield "rates", f"min {low:.4g}, median {middle:.4g}, max {high:.4g}"
    mean, std = (map(_number, values) for values in manifest.normalisation)
    yield "normalised", _IMAGE_NORMALISATIONS[manifest.image_normalisation]
    yield "standardised", f"mean {', '.join(mean)}; std {', '.join(std)} of pixel / 255"


def origin(started_from: str) -> str:
    """Describes what distilled images started from: the manifest's field."""
    return {
        "noise": "noise",
        "statistics": "statistics of real images, released once with noise",
        "mixture": "a mixture of Gaussians fitted to real images",
        "real": "real images of patients",
    }[started_from]


def decision(decided: Decision | None) -> str:
    """Describes how whole images are decided: the manifest's field."""
    if decided is None:
        return "none"
    count = decided.networks
    mean = f", of the mean of {count} networks' probabilities" if count > 1 else ""
    share = decided.share_positive
    told = "" if share is None else f"; {share:.0%} of the training images reach it"
    by = f", by {len(decided.weights)} weights" if decided.weights else ""
    return f"{decided.rule}{by}, tau {_number(decided.tau)}{mean}{told}"


def _task(about: About) -> Iterator[Row]:
    """Describes what is cut out, told apart and decided."""
    patch = about.patch
    border = ", the far edges too" if patch.border else ""
    shrunken = f", shrunken {patch.downscale} times" if patch.downscale > 1 else ""
    yield "patches", f"{patch.size} px at stride {patch.stride}{border}"
    yield "cut from", f"images of {patch.image_height} x {patch.image_width} px{shrunken}"
    outside, inside = patch.irrelevant_below, patch.inside_above
    yield "area rule", f"organ share <= {outside} irrelevant, >= {inside} inside, rest dropped"
    yield "classes", ", ".join(about.class_names)
    yield "decision", decision(about.decision)
    if about.likeness is not None:
        count = about.likeness.images
        yield "likeness", f"moments of {count} training images, to compare others with"


def _results(about: About) -> Iterator[Row]:
    for i, figure in enumerate(_figures(about.results)):
        yield "" if i else "results", figure


def _releases(about: About) -> Iterator[Row]:
    """Describes what was released of the patients, as the ledger has it."""
    for event in () if about.ledger is None else about.ledger.events:
        sampled = event.sampling_probability
        chance = f", of samples with probability {sampled:.3g}" if sampled < 1 else ""
        yield (
            "released",
            f"{event.what}, {event.count} times: {event.mechanism.replace('_', ' ')} noise of "
            f"{event.noise_multiplier:.4g} x sensitivity {event.sensitivity:.4g}{chance}",
        )


def _sheet(what: Row, about: About, method: Iterator[Row], last: list[Row]) -> str:
    """Describes a file: what it is, what it says of itself, its method, and the last rows."""
    rows: list[Row] = [
        what,
        ("purpose", about.purpose),
        *_cohort(about.cohort),
        *method,
        *_task(about),
        *_results(about),
        ("guarantee", guarantee(about.ledger)),
        *_releases(about),
        ("privacy", about.privacy),
        ("licence", about.licence),
        *last,
    ]
    wrap = textwrap.TextWrapper(width=96, subsequent_indent=" " * 16)
    return "\n".join(wrap.fill(f"{name:<16}{text}") for name, text in rows)


def describe_weights(weights: EssentialWeights, path: Path) -> str:
    """Describes essential weights for people, as `describe` does a package.

    Args:
      weights: from `load_weights`.
      path: their file.
    """
    manifest, total, codes = weights.manifest, path.stat().st_size, len(weights.codes)
    method: list[Row] = [
        ("network", _with_options(manifest.network.name, manifest.network.options)),
        ("weights", f"their start of seed {manifest.init.seed}, moved by coded values"),
    ]
    last = [
        ("size", f"{total} bytes: codes {codes}, all else {total - codes}"),
        ("SHA-256", weights.sha256),
    ]
    what = "file", f"{manifest.name}: essential weights, one trained network"
    return _sheet(what, manifest, iter(method), last)


def describe(package: Package, path: Path) -> str:
    """Describes a package for people, a line or more for each of its properties.

    Args:
      package: from `load`.
      path: its file.
    """
    manifest, members = package.manifest, open_members(path)
    text = len(members[MANIFEST])
    arrays = sum(len(content) for name, content in members.items() if name.startswith("arrays/"))
    total = path.stat().st_size
    rest = f"{total} bytes: arrays {arrays}, manifest {text}, all else {total - arrays - text}"
    what = "package", f"{manifest.name} (schema version {manifest.schema_version})"
    last = [
        ("size", rest),
        ("signature", "there is one; `verify --key` checks it" if SIGNATURE in members else "none"),
        ("SHA-256", package.sha256 or ""),
    ]
    return _sheet(what, manifest, _method(package), last)


def _plain(text: str) -> str:
    # What the sender wrote is text, not Markdown or HTML.
    return "".join(f"\\{char}" if char in r"\`*_[]<>#|" else char for char in text)


def card(package: Package) -> str:
    """Writes the data card of a package, in Markdown."""
    manifest = package.manifest
    sections: dict[str, list[Row]] = {
        "Purpose": [("", manifest.purpose)],
        "Cohort": [*_cohort(manifest.cohort)],
        "Method": [*_method(package), *_task(manifest)],
        "Results": [("", text) for _, text in _results(manifest)],
        "Privacy": [
            ("guarantee", guarantee(manifest.ledger)),
            *_releases(manifest),
            ("", manifest.privacy),
        ],
        "Licence": [("", manifest.licence)],
    }
    lines = []
    for heading, rows in sections.items():
        lines += ["", f"## {heading}", ""]
        lines += [
            f"- {name}: {_plain(text)}" if name else f"- {_plain(text)}" for name, text in rows
        ]
    steps, per_step = package.distilled.images.shape[:2]
    return _CARD.format(
        **_PIXELS[manifest.precision],
        name=_plain(manifest.name),
        version=SCHEMA_VERSION,
        images=steps * per_step,
        warning=WARNING,
        sections="\n".join(lines),
    )
