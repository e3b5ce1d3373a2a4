"""Reads a prepared set: what is known of its images at once, their pixels when they are needed."""

import concurrent.futures
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.data.files import folders
from gxdistill.data.prepared import builder
from gxdistill.data.prepared.stack import Stack
from gxdistill.data.splits import SPLITS
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort, Metadata

_CORE = "tensorflow_datasets.core.features"
_FEATURES = {
    f"{_CORE}.features_dict.FeaturesDict",
    f"{_CORE}.tensor_feature.Tensor",
    f"{_CORE}.class_label_feature.ClassLabel",
    f"{_CORE}.text_feature.Text",
}


class Prepared(NamedTuple):
    """A set as it was written.

    Attributes:
      cohort: its images in the order of its records, training first, as lazy stacks.
      metadata: what the set says of itself.
      levels: by split, how often each level occurs, `[1, 256]`.
      hashes: `[N, 4]` uint64, what the images look like (`leaks.image_hash`).
    """

    cohort: Cohort
    metadata: Metadata
    levels: dict[str, np.ndarray]
    hashes: np.ndarray


def read_prepared(folder: Path) -> Prepared:
    """Opens a set that `gxdistill prepare` wrote and checks that its files are as they were.

    Args:
      folder: of one version, or one that holds versions, of which the latest is taken.

    Raises:
      UserError: there is no such set, it was changed, or tensorflow-datasets is not installed.
    """
    api = builder.tfds()
    place = find_version(folder)
    if place is None:
        raise UserError(f"{folder} holds no prepared set. Make one by `gxdistill prepare`.")
    about = read_metadata(place)
    if about.get("schema") != builder.SCHEMA:
        raise UserError(f"{place} is of another schema than {builder.SCHEMA}. Prepare it anew.")
    _check_files(place, about["files"])
    _check_features(place)
    dataset = api.builder_from_directory(str(place))
    _check_splits(dataset, place, about["files"])
    columns = {name: about["columns"][name] for name in ("label", "patient", "site", "hash")}
    joined = {name: [v for s in SPLITS for v in of.get(s, [])] for name, of in columns.items()}
    counts = {split: len(columns["label"].get(split, [])) for split in SPLITS}
    names = [f"{split}/{i:05d}" for split in SPLITS for i in range(counts[split])]
    image, mask = _reader(dataset, "image", "mask"), _reader(dataset, "mask", "image")
    rows, shape = np.arange(len(names)), tuple(about["image_size"])
    hashes = np.frombuffer(bytes.fromhex("".join(joined["hash"])), np.uint64).reshape(-1, 4)
    images: Any = Stack(image, rows, shape=(*shape, 1), dtype=np.uint8)
    masks: Any = Stack(mask, rows, shape=shape, dtype=np.bool_) if about["masks"] else None
    cohort = Cohort(
        images=images,
        masks=masks,
        labels=np.array(joined["label"], np.int32),
        patients=np.array(joined["patient"]),
        sites=np.array(joined["site"]),
        splits=np.repeat(SPLITS, [counts[split] for split in SPLITS]),
        names=np.array(names),
        class_names=tuple(about["class_names"]),
    )
    levels = {split: np.array([of]) for split, of in about["levels"].items()}
    return Prepared(cohort, about, levels, hashes)


def find_version(folder: Path) -> Path | None:
    """Finds the latest version of a set of ours below a folder, or the one that it is itself.

    Hidden folders and the sets of other builders are passed over.
    """
    if (folder / "dataset_info.json").is_file():
        return folder
    files = folders.list_files(folder)[0] if folder.is_dir() else []
    places = [path.parent for path in files if path.name == "dataset_info.json"]
    ours = [place for place in places if (place / "metadata.json").is_file()]
    return max(ours, key=_version, default=None)


def read_metadata(place: Path) -> Metadata:
    """Reads what a set says of itself, unchanged since it was written.

    Raises:
      UserError: there is none, or it was changed.
    """
    path = place / "metadata.json"
    record = storage.read_json(path)
    storage.check_seal(record, path)
    return record


def _version(place: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in place.name.split("."))


def _check_files(place: Path, digests: Metadata) -> None:
    def check(name: str) -> str | None:
        path = storage.child(place, name)
        return None if path.is_file() and builder.file_digest(path) == digests[name] else name

    with concurrent.futures.ThreadPoolExecutor() as pool:
        bad = [name for name in pool.map(check, digests) if name]
    if bad:
        raise UserError(
            f"{place} is damaged: {bad[0]} is missing or has another SHA-256"
            f"{f', and {len(bad) - 1} more' if len(bad) > 1 else ''}. Prepare it anew."
        )


def _check_features(place: Path) -> None:
    """Refuses features of other classes than ours: tensorflow-datasets imports what is named."""

    def classes(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, part in value.items():
                # Of a protocol buffer's fields either spelling is read.
                if key.replace("_", "").lower() in ("pythonclassname", "type"):
                    yield str(part)
                else:
                    yield from classes(part)
        elif isinstance(value, list):
            for part in value:
                yield from classes(part)

    features = storage.read_json(place / "features.json")
    # A text in its place would be read as JSON once more.
    if not isinstance(features.get("content", {}), dict):
        raise UserError(f"{place}: its features are no table. Prepare it anew.")
    for name in classes(features):
        if name not in _FEATURES:
            raise UserError(
                f"{place}: its features are of the class {storage.shown(name)}, which no set of "
                f"ours has, and which is not imported. Prepare it anew."
            )


def _check_splits(prepared: Any, place: Path, digests: Metadata) -> None:
    """Refuses splits that a template leads to other files than those that were checked."""
    known = {storage.child(place, name) for name in digests}
    for split in prepared.info.splits.values():
        if not {Path(path) for path in split.filepaths} <= known:
            raise UserError(
                f"{place}: its split {storage.shown(split.name)} is of other files than its own. "
                f"Prepare it anew."
            )


def _reader(prepared: Any, kind: str, other: str) -> Callable[[int], np.ndarray]:
    """Makes the function that reads the image or the mask of a row, and leaves the other packed."""
    splits = "+".join(split for split in SPLITS if split in prepared.info.splits)
    skip = (
        {other: builder.tfds().decode.SkipDecoding()} if other in prepared.info.features else None
    )
    records = prepared.as_data_source(splits, decoders=skip)
    return lambda row: records[row][kind]
