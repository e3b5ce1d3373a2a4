"""Packages for programs that know nothing of this one: NumPy, PyTorch, tfds, picture viewers.

Labels are written as they are trained on, after the package's rule, and rates as such, not as
logarithms: whoever reads them needs no manifest.
"""

import contextlib
import csv
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.distill.init import targets
from gxdistill.errors import UserError
from gxdistill.package.content import CARD, MANIFEST, Package
from gxdistill.package.description import card
from gxdistill.package.fields import to_json
from gxdistill.package.start_weights import leaves

_FLOATS = ("float64", "float32", "float16", "bfloat16")


class _Content(NamedTuple):
    """What is exported: arrays by the names that other programs see, and the package."""

    arrays: dict[str, np.ndarray]
    start: dict[str, np.ndarray]
    package: Package


def _content(package: Package) -> _Content:
    data, rule = package.distilled, package.manifest.distillation.label_rule
    arrays = {
        "images": np.asarray(data.images),
        "labels": np.asarray(targets(data.labels, rule)),
        "learning_rates": np.exp(np.asarray(data.log_lr)),
    }
    named = {} if package.start is None else leaves(package.start)
    start = {name: np.asarray(leaf) for name, leaf in named.items()}
    return _Content(arrays, start, package)


def _npz(content: _Content, path: Path) -> None:
    manifest, arrays = content.package.manifest, content.arrays
    start = {f"start.{name}": leaf.astype(np.float32) for name, leaf in content.start.items()}
    about = {name: np.array(of) for name, of in manifest.normalisation._asdict().items()}
    about["class_names"] = np.array(manifest.class_names)
    storage.write_arrays(path, **arrays, **start, **about)


def _safetensors(content: _Content, path: Path) -> None:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError(
            "The library safetensors is not installed. Install it by `pip install safetensors`, or "
            "export to npz, which needs none."
        ) from error
    named = content.arrays | {f"start.{name}": leaf for name, leaf in content.start.items()}
    for name, array in named.items():
        if array.dtype.name not in _FLOATS:
            raise UserError(f"{name} is of {array.dtype}; only floats are exported so.")
    # The library reads memory in order, whatever the strides say.
    whole = {name: np.asarray(array, order="C") for name, array in named.items()}
    about = {"format": "pt", "manifest": storage.json_text(to_json(content.package.manifest))}
    storage.write_bytes(path, safetensors.numpy.save(whole, metadata=about))


def _pixels(content: _Content) -> np.ndarray:
    """Returns the images as 8-bit pixels; what lies beyond black and white is clipped."""
    scale = content.package.manifest.normalisation
    pixels = content.arrays["images"] * np.array(scale.std) + np.array(scale.mean)
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _png(content: _Content, path: Path) -> None:
    from PIL import Image

    pixels, labels = _pixels(content), content.arrays["labels"]
    names = content.package.manifest.class_names
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file", "step", "image", *map(storage.cell, names)])
    with storage.fresh_folder(path) as folder:
        for step, image in np.ndindex(pixels.shape[:2]):
            file = f"step{step:03d}_image{image:03d}.png"
            array = pixels[step, image]
            Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(folder / file)
            writer.writerow([file, step, image, *labels[step, image].tolist()])
        (folder / "labels.csv").write_text(table.getvalue(), "utf-8")
        (folder / CARD).write_text(card(content.package), "utf-8")


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
        for place, named in ((folder, arrays), (folder / "start", start)):
            for name, array in named.items():
                # PyTorch knows NumPy's float32; bfloat16 is not of NumPy.
                whole = np.ascontiguousarray(array, np.float32)
                np.save(storage.child(place, f"{name}.npy"), whole)
        (folder / MANIFEST).write_text(
            storage.json_text(to_json(content.package.manifest)), "utf-8"
        )
        (folder / CARD).write_text(card(content.package), "utf-8")


def _tfds_builder(tfds: Any, content: _Content) -> type:
    """Makes the class that tells tensorflow-datasets what there is."""
    images, labels, rates = (content.arrays[n] for n in ("images", "labels", "learning_rates"))
    steps, per_step = images.shape[:2]
    features = {
        "image": tfds.features.Tensor(shape=images.shape[2:], dtype=np.float32),
        "label": tfds.features.Tensor(shape=labels.shape[2:], dtype=np.float32),
        "learning_rates": tfds.features.Tensor(shape=(len(rates) // steps,), dtype=np.float32),
        "step": np.int64,
    }

    # Not registered: a process that exports a second package would be refused the name.
    class Distilled(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")
        code_path = None  # where tfds would look for checksums of downloads

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=card(content.package),
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,  # the order belongs to the data
            )

        def _split_generators(self, _: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for i in range(steps * per_step):
                step, place = divmod(i, per_step)
                example = {"image": images[step, place], "label": labels[step, place], "step": step}
                yield i, example | {"learning_rates": rates[step::steps]}

    return Distilled


def _tfds(content: _Content, path: Path) -> None:
    # Whoever trains on packages reads no prepared cohorts: their reader is not loaded with this.
    from gxdistill.data.prepared import builder as prepared

    tfds = prepared.tfds()
    one_file = tfds.download.DownloadConfig(num_shards=1)
    with storage.fresh_folder(path) as folder, contextlib.redirect_stdout(io.StringIO()):
        tfds.disable_progress_bar()
        work = folder / "work"
        builder = _tfds_builder(tfds, content)(data_dir=str(work), file_format="array_record")
        builder.download_and_prepare(download_config=one_file, file_format="array_record")
        for file in Path(builder.data_dir).iterdir():
            file.rename(folder / file.name)
        shutil.rmtree(work)


_WRITERS: dict[str, Callable[[_Content, Path], None]] = {
    "npz": _npz,
    "safetensors": _safetensors,
    "png": _png,
    "pytorch-folder": _pytorch_folder,
    "tfds": _tfds,
}
FORMATS = tuple(_WRITERS)


def export(package: Package, path: Path, to: str) -> None:
    """Writes a package in a form of others; the same package gives the same arrays.

    - `npz`: a NumPy file of `images` `[S, B, H, W, C]` in the network's normalised units, `labels`
      `[S, B, K]` as they are trained on, `learning_rates` `[T]`, `start.*`, `mean`, `std`,
      `class_names`.
    - `safetensors`: the same arrays, and the manifest as metadata, whose entries the library puts
      in any order: the file's bytes may differ from one time to the next.
    - `png`: a folder of 8-bit pictures, clipped at black and white, with `labels.csv`: to look at.
    - `pytorch-folder`: a folder of `.npy` files, `images` as `[S, B, C, H, W]`, and `start/` with
      the names and the layouts of PyTorch.
    - `tfds`: a folder for `tensorflow_datasets.builder_from_directory`, in the order of training;
      each image with its label, step, and the learning rate of its step in each epoch.

    Args:
      package: from `load`.
      path: the file or folder to write.
      to: one of `FORMATS`.

    Raises:
      UserError: the form is unknown, a library that it needs is not there, something is at the
        place, or it cannot be written.
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
