"""The portable package: what leaves the hospital. Data, never code.

A folder with `arrays/`, an Orbax checkpoint, and `manifest.json`, which says all that the receiving
side must know and holds the SHA-256 of every array and of itself. No time and no place is written:
the same run gives the same bytes.
"""

import dataclasses
import reprlib
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.pytrees import Distilled, Metadata, Params

SCHEMA_VERSION = 1

_MANIFEST = "manifest.json"
_WAY_OUT = "Get a fresh copy, or make the package anew."


class _Kind(NamedTuple):
    name: str
    fits: Callable[[Any], bool]


def _choice(*names: str) -> _Kind:
    return _Kind(" or ".join(map(repr, names)), lambda v: v in names)


def _list_of(kind: _Kind) -> _Kind:
    return _Kind(f"a list, each {kind.name}", lambda v: type(v) is list and all(map(kind.fits, v)))


_TEXT = _Kind("a text", lambda v: type(v) is str)
_FLAG = _Kind("true or false", lambda v: type(v) is bool)
_WHOLE = _Kind("a whole number", lambda v: type(v) is int)
_COUNT = _Kind("a whole number from 1", lambda v: type(v) is int and v > 0)
_NUMBER = _Kind("a number", lambda v: type(v) in (int, float))
_TABLE = _Kind("a table", lambda v: type(v) is dict)
_DECISION = {"rule": _TEXT, "tau": _NUMBER, "networks": _COUNT}

# Every field must be there, and no other.
_FIELDS = {
    "schema_version": _WHOLE,
    "name": _TEXT,
    "network": {"name": _TEXT, "options": _TABLE},
    "init": {
        "rule": _choice("known", "random"),
        "seed": _Kind("a whole number or null", lambda v: v is None or _WHOLE.fits(v)),
    },
    "distillation": {
        "steps": _COUNT,
        "epochs": _COUNT,
        "images_per_step": _COUNT,
        "label_rule": _choice("raw", "softmax"),
        "loss": _TEXT,
        "started_from": _choice("noise", "real"),
        "outer_steps": _WHOLE,
        "settings": _TABLE,
    },
    "patch": {
        "size": _COUNT,
        "stride": _COUNT,
        "border": _FLAG,
        "irrelevant_below": _NUMBER,
        "inside_above": _NUMBER,
        "image_height": _COUNT,
        "image_width": _COUNT,
        "channels": _COUNT,
        "downscale": _COUNT,
    },
    "normalisation": {"mean": _list_of(_NUMBER), "std": _list_of(_NUMBER)},
    "class_names": _list_of(_TEXT),
    "decision": _Kind(
        "null or a table of rule, tau and networks",
        lambda v: (
            v is None
            or (
                (_TABLE.fits(v) and v.keys() == _DECISION.keys())
                and all(kind.fits(v[name]) for name, kind in _DECISION.items())
            )
        ),
    ),
    "results": _TABLE,
    "privacy": _TEXT,
    "arrays": _TABLE,
    "sha256": _TEXT,
}


@dataclasses.dataclass(frozen=True)
class Package:
    """A compressed data set with all that is needed to train on it.

    Attributes:
      distilled: images, labels and learning rates.
      manifest: the fields above; `save` writes `schema_version`, `arrays` and `sha256` itself.
        Of `patch`, all lengths are in pixels of the shrunken images.
      start: initial weights of a known init, a nested dict of arrays; None for a random init.
    """

    distilled: Distilled
    manifest: Metadata
    start: Params | None = None


def _check_fields(kinds: dict[str, Any], value: dict[str, Any], at: str, path: Path) -> None:
    for name in sorted(kinds.keys() ^ value.keys()):
        what = "misses the field" if name in kinds else "has the unknown field"
        raise UserError(f"{path}: the manifest {what} {at}{name}. {_WAY_OUT}")
    for name, kind in kinds.items():
        expected = _TABLE if isinstance(kind, dict) else kind
        if not expected.fits(value[name]):
            raise UserError(
                f"{path}: the manifest's field {at}{name} is {reprlib.repr(value[name])}; it must "
                f"be {expected.name}. {_WAY_OUT}"
            )
        if isinstance(kind, dict):
            _check_fields(kind, value[name], f"{at}{name}.", path)


def _check_manifest(manifest: dict[str, Any], path: Path) -> None:
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version!r}; this program reads {SCHEMA_VERSION}. Install "
            f"the release of gxdistill that wrote it."
        )
    storage.check_seal(manifest, path / _MANIFEST)
    _check_fields(_FIELDS, manifest, "", path)


def _check_arrays(manifest: Metadata, arrays: dict[str, Any], path: Path) -> None:
    """Refuses arrays that disagree with the manifest or hold NaN or infinity."""
    loop, patch = manifest["distillation"], manifest["patch"]
    batches = (loop["steps"], loop["images_per_step"])
    channels = patch["channels"]
    expected = {
        "images": (*batches, patch["size"], patch["size"], channels),
        "labels": (*batches, len(manifest["class_names"])),
        "log_lr": (loop["steps"] * loop["epochs"],),
    }
    start = {"start"} if manifest["init"]["rule"] == "known" else set()
    for name in sorted((expected.keys() | start) ^ arrays.keys()):
        what = "must not hold" if name in arrays else "lacks"
        raise UserError(f"{path} {what} the arrays {name}. {_WAY_OUT}")
    for name, wanted in expected.items():
        shape, dtype = np.shape(arrays[name]), getattr(arrays[name], "dtype", None)
        if (shape, dtype) != (wanted, np.float32):
            raise UserError(
                f"{path}: {name} are {dtype} {list(shape)} where the manifest's fields ask for "
                f"float32 {list(wanted)}. {_WAY_OUT}"
            )
    for name, values in manifest["normalisation"].items():
        if len(values) != channels or (name == "std" and min(values) <= 0):
            raise UserError(
                f"{path}: the manifest's field normalisation.{name} is {reprlib.repr(values)}, "
                f"which does not fit {channels} channels. {_WAY_OUT}"
            )
    for keys, array in jax.tree_util.tree_leaves_with_path(arrays):
        if not np.isfinite(array).all():
            name = jax.tree_util.keystr(keys, simple=True, separator=".")
            raise UserError(
                f"{path}: {name} hold NaN or infinity: training diverged. Lower the learning rate "
                f"of the distillation."
            )


def save(path: Path, package: Package) -> None:
    """Writes a package, in place of the one at `path` if there is one, at one stroke.

    Args:
      path: its folder.
      package: what to write; the same package gives the same bytes.

    Raises:
      UserError: the disk is full, the place not writable, arrays hold NaN or infinity, or disagree
        with the manifest. A former package is then unchanged.
    """
    arrays = {
        field.name: getattr(package.distilled, field.name)
        for field in dataclasses.fields(package.distilled)
    }
    if package.start is not None:
        arrays["start"] = package.start
    arrays = jax.tree.map(np.asarray, arrays)
    record = {**package.manifest, "schema_version": SCHEMA_VERSION, "arrays": {}}
    _check_manifest(storage.seal(record), path)
    _check_arrays(record, arrays, path)
    with storage.fresh_folder(path) as folder:
        record["arrays"] = storage.save_arrays(folder / "arrays", arrays)
        (folder / _MANIFEST).write_text(storage.json_text(storage.seal(record)))


def _read_manifest(path: Path) -> tuple[Path, dict[str, Any]]:
    folder = storage.find_folder(path)
    if not (folder / _MANIFEST).is_file():
        raise UserError(
            f"{path} is no package: there is no {_MANIFEST} in it. Name the folder that was made "
            f"by `gxdistill distill`."
        )
    manifest = storage.read_json(folder / _MANIFEST)
    _check_manifest(manifest, path)
    return folder, manifest


def load(path: Path) -> Package:
    """Reads a package and verifies all of it.

    Args:
      path: its folder.

    Returns:
      The package; its manifest has `schema_version`, `arrays` and `sha256` too.

    Raises:
      UserError: it is no package, of an unknown schema version, damaged or changed, or its arrays
        disagree with its manifest or hold NaN or infinity.
    """
    folder, manifest = _read_manifest(path)
    arrays = storage.load_arrays(folder / "arrays", manifest["arrays"])
    _check_arrays(manifest, arrays, path)
    start = arrays.pop("start", None)
    return Package(Distilled(**jax.tree.map(jnp.asarray, arrays)), manifest, start)


def verify(path: Path) -> None:
    """Verifies a package as `load` does.

    Raises:
      UserError: as `load`.
    """
    load(path)


def digest(path: Path) -> str:
    """Returns the SHA-256 of a package's manifest, which covers its arrays too.

    Raises:
      UserError: it is no package, or its manifest was changed.
    """
    return _read_manifest(path)[1]["sha256"]


def size_bytes(path: Path) -> int:
    """Returns the size of a package: the bytes of all its files."""
    files = storage.find_folder(path).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


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


def _method(package: Package) -> Iterator[tuple[str, str]]:
    """Words what is trained, on what, and how."""
    manifest, data = package.manifest, package.distilled
    network, loop = manifest["network"], manifest["distillation"]
    steps, per_step, height, width, channels = data.images.shape
    options = [f"{name} {value}" for name, value in network["options"].items()]
    yield "network", ", ".join([network["name"], *options])
    known = f"the known ones of seed {manifest['init']['seed']}, included"
    yield "start weights", "random ones, of any seed" if package.start is None else known
    yield "replay", f"{steps} steps x {loop['epochs']} epochs of SGD on {loop['loss']}"
    yield "images", f"{steps * per_step} of {height} x {width} x {channels}, {per_step} a step"
    origin = {"noise": "noise", "real": "REAL IMAGES OF PATIENTS"}[loop["started_from"]]
    yield "started from", f"{origin}, learned in {loop['outer_steps']} outer steps"
    rule = {"raw": "learned as they are", "softmax": "softmax of learned logits"}
    yield "labels", f"{data.labels.shape[-1]} an image, {rule[loop['label_rule']]}"
    rates = np.exp(np.asarray(data.log_lr, np.float64))
    low, middle, high = (_number(float(rate)) for rate in np.quantile(rates, (0, 0.5, 1)))
    yield "rates", f"min {low}, median {middle}, max {high}"
    mean, std = (map(_number, manifest["normalisation"][name]) for name in ("mean", "std"))
    yield "normalisation", f"mean {', '.join(mean)}; std {', '.join(std)} of pixel / 255"


def _decision(decided: Metadata) -> str:
    count = decided["networks"]
    mean = f", of the mean of {count} networks' probabilities" if count > 1 else ""
    return f"{decided['rule']}, tau {_number(decided['tau'])}{mean}"


def _task(manifest: Metadata) -> Iterator[tuple[str, str]]:
    """Words what is cut out, told apart and decided, and how well."""
    patch, decided = manifest["patch"], manifest["decision"]
    border = ", the far edges too" if patch["border"] else ""
    shrunken = f", shrunken {patch['downscale']} times" if patch["downscale"] > 1 else ""
    yield "patches", f"{patch['size']} px at stride {patch['stride']}{border}"
    yield "cut from", f"images of {patch['image_height']} x {patch['image_width']} px{shrunken}"
    outside, inside = patch["irrelevant_below"], patch["inside_above"]
    yield "area rule", f"organ share <= {outside} irrelevant, >= {inside} inside, rest dropped"
    yield "classes", ", ".join(manifest["class_names"])
    yield "decision", _decision(decided) if decided else "none"
    for i, figure in enumerate(_figures(manifest["results"])):
        yield "" if i else "results", figure
    yield "privacy", manifest["privacy"]


def _rows(package: Package, path: Path) -> Iterator[tuple[str, str]]:
    manifest = package.manifest
    yield "package", f"{manifest['name']} (schema version {manifest['schema_version']})"
    yield from _method(package)
    yield from _task(manifest)
    total = size_bytes(path)
    own = (storage.find_folder(path) / _MANIFEST).stat().st_size
    yield "size", f"{total} bytes: arrays {total - own}, manifest {own}"
    yield "SHA-256", manifest["sha256"]


def describe(package: Package, path: Path) -> str:
    """Words a package for people, a line or more for each of its properties.

    Args:
      package: from `load`.
      path: its folder.
    """
    wrap = textwrap.TextWrapper(width=96, subsequent_indent=" " * 16)
    return "\n".join(wrap.fill(f"{name:<16}{text}") for name, text in _rows(package, path))
