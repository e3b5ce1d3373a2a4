"""Packages for programs that know nothing of this one: NumPy, PyTorch, picture viewers.

Labels are written as they are trained on, after the package's rule, and rates as such, not as
logarithms: whoever reads them needs no manifest.
"""

import csv
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from gxdistill import storage
from gxdistill.distill.init import targets
from gxdistill.errors import UserError
from gxdistill.package.content import CARD, MANIFEST, Package
from gxdistill.package.words import card

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class _Content(NamedTuple):
    """What is exported: arrays by the names that other programs see, and the package."""

    arrays: dict[str, np.ndarray]
    start: dict[str, np.ndarray]
    package: Package


def _content(package: Package) -> _Content:
    data, rule = package.distilled, package.manifest["distillation"]["label_rule"]
    arrays = {
        "images": np.asarray(data.images),
        "labels": np.asarray(targets(data.labels, rule)),
        "learning_rates": np.exp(np.asarray(data.log_lr)),
    }
    leaves = jax.tree_util.tree_leaves_with_path(package.start or {})
    start = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in leaves
    }
    return _Content(arrays, start, package)


def _npz(content: _Content, path: Path) -> None:
    manifest, arrays = content.package.manifest, content.arrays
    start = {f"start.{name}": leaf.astype(np.float32) for name, leaf in content.start.items()}
    about = {name: np.array(values) for name, values in manifest["normalisation"].items()}
    about["class_names"] = np.array(manifest["class_names"])
    storage.write_arrays(path, **arrays, **start, **about)


def _safetensors(content: _Content, path: Path) -> None:
    # https://github.com/huggingface/safetensors: length, JSON, then the arrays without gaps.
    named = content.arrays | {f"start.{name}": leaf for name, leaf in content.start.items()}
    about = {"format": "pt", "manifest": storage.json_text(content.package.manifest)}
    header: dict[str, object] = {"__metadata__": about}
    end, parts = 0, []
    # The widest first, so that each array lies at a multiple of its width.
    for name, array in sorted(named.items(), key=lambda item: (-item[1].itemsize, item[0])):
        kind = _DTYPES.get(array.dtype.name)
        if kind is None:
            raise UserError(f"{name} is of {array.dtype}; only floats are exported so.")
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
        parts.append(array.tobytes())
    text = storage.json_text(header).encode()
    text += b" " * (-len(text) % 8)
    storage.write_bytes(path, struct.pack("<Q", len(text)) + text + b"".join(parts))


def _pixels(content: _Content) -> np.ndarray:
    """Returns the images as 8-bit pixels; what lies beyond black and white is clipped."""
    scale = content.package.manifest["normalisation"]
    pixels = content.arrays["images"] * np.array(scale["std"]) + np.array(scale["mean"])
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _png(content: _Content, path: Path) -> None:
    from PIL import Image

    pixels, labels = _pixels(content), content.arrays["labels"]
    names = content.package.manifest["class_names"]
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file", "step", "image", *names])
    with storage.fresh_folder(path) as folder:
        for step, image in np.ndindex(pixels.shape[:2]):
            file = f"step{step:03d}_image{image:03d}.png"
            array = pixels[step, image]
            Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(folder / file)
            writer.writerow([file, step, image, *labels[step, image].tolist()])
        (folder / "labels.csv").write_text(table.getvalue())
        (folder / CARD).write_text(card(content.package))


def _for_torch(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Names and lays a weight out as PyTorch does: `[out, in, height, width]`, `[out, in]`."""
    parent, _, last = name.rpartition(".")
    last = {"kernel": "weight", "scale": "weight"}.get(last, last)
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
        array = array.T
    return f"{parent}.{last}" if parent else last, array


def _pytorch_folder(content: _Content, path: Path) -> None:
    arrays = {**content.arrays, "images": content.arrays["images"].transpose(0, 1, 4, 2, 3)}
    start = dict(_for_torch(name, leaf) for name, leaf in content.start.items())
    if len(start) < len(content.start):
        raise UserError("In PyTorch's names two weights would share a name; export to npz instead.")
    with storage.fresh_folder(path) as folder:
        (folder / "start").mkdir()
        for name, array in (arrays | {f"start/{n}": a for n, a in start.items()}).items():
            # PyTorch knows NumPy's float32; bfloat16 is not of NumPy.
            np.save(folder / f"{name}.npy", np.ascontiguousarray(array, np.float32))
        (folder / MANIFEST).write_text(storage.json_text(content.package.manifest))
        (folder / CARD).write_text(card(content.package))


_WRITERS: dict[str, Callable[[_Content, Path], None]] = {
    "npz": _npz,
    "safetensors": _safetensors,
    "png": _png,
    "pytorch-folder": _pytorch_folder,
}
FORMATS = tuple(_WRITERS)


def export(package: Package, path: Path, to: str) -> None:
    """Writes a package in a form of others; the same package gives the same arrays.

    - `npz`: a NumPy file of `images` `[S, B, H, W, C]` in the network's normalised units, `labels`
      `[S, B, K]` as they are trained on, `learning_rates` `[T]`, `start.*`, `mean`, `std`,
      `class_names`.
    - `safetensors`: the same arrays, and the manifest as metadata.
    - `png`: a folder of 8-bit pictures, clipped at black and white, with `labels.csv`: to look at.
    - `pytorch-folder`: a folder of `.npy` files, `images` as `[S, B, C, H, W]`, and `start/` with
      the names and the layouts of PyTorch.

    Args:
      package: from `load`.
      path: the file or folder to write.
      to: one of `FORMATS`.

    Raises:
      UserError: the form is unknown, something is at the place, or it cannot be written.
    """
    if to not in _WRITERS:
        raise UserError(f"A package cannot be exported to {to!r}; choose {', '.join(FORMATS)}.")
    if path.exists():
        raise UserError(f"{path} exists already. Remove it, or choose another place.")
    content = _content(package)
    channels = content.arrays["images"].shape[-1]
    if to == "png" and channels not in (1, 3):
        raise UserError(f"Images of {channels} channels are no pictures; export to npz instead.")
    _WRITERS[to](content, path)
