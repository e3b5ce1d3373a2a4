"""Writes a cohort as a tensorflow-datasets set in ArrayRecord: in parallel, resumed when stopped.

A set is made of parts, a file of a few images of one split, each written at one stroke by one of
several processes. Only when all are there do they become the set.
"""

import concurrent.futures
import hashlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gxdistill import storage
from gxdistill.data.files import images
from gxdistill.data.files.reading import Facts
from gxdistill.data.prepared.parts import Form, Part, Row, read_part
from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata

NAME = "gxdistill_cohort"
SCHEMA = 1  # Of what a set says of itself.

# One record a group, as tensorflow-datasets has it; at this level, files of radiographs are 1%
# larger than at its own and packed in a third of the time.
_PACKING = "group_size:1,zstd:1"
_RECORDS, _ACCOUNT = "records.array_record", "account.json"


def tfds() -> Any:
    """Imports tensorflow-datasets.

    Raises:
      UserError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            "The library tensorflow-datasets is not installed. Install it by "
            "`pip install tensorflow-datasets array-record grain`."
        ) from error
    return tensorflow_datasets


def examples(part: Part) -> Iterator[tuple[int, dict[str, Any]]]:
    """Makes key and record of each entry of a part that could be read, for Beam; keys sort."""
    for row, record in read_part(part):
        if record is not None:
            yield row.line, record


def builder(
    form: Form,
    folder: Path,
    version: str = "1.0.0",
    parts: Mapping[str, Sequence[Part]] | None = None,
) -> Any:
    """Makes the tensorflow-datasets builder of sets of a form.

    Args:
      form: of the records.
      folder: the `data_dir` of tensorflow-datasets.
      version: of the set.
      parts: of each split, where `download_and_prepare` is to write them, by Beam.

    Raises:
      UserError: tensorflow-datasets is not installed.
    """
    api = tfds()
    raw = api.features.Encoding.BYTES  # A file packs its records.
    features = {
        "image": api.features.Tensor(shape=(*form.shape, 1), dtype=np.uint8, encoding=raw),
        "label": api.features.ClassLabel(names=list(form.label_names)),
        "patient": api.features.Text(),
        "site": api.features.Text(),
    }
    if form.masks:
        features["mask"] = api.features.Tensor(shape=form.shape, dtype=np.bool_, encoding=raw)

    base = api.core.GeneratorBasedBuilder

    # The form is of the data: there is no one class of the name to register.
    class GxdistillCohort(base, skip_registration=True):  # type: ignore[call-arg, misc, valid-type]
        VERSION = api.core.Version(version)
        code_path = None  # where tfds would look for checksums of downloads

        def _info(self) -> Any:
            return api.core.DatasetInfo(
                builder=self,
                description="Radiographs, organ masks, labels, pseudonyms of patients, site codes.",
                features=api.features.FeaturesDict(features),
                metadata=api.core.MetadataDict(),
                disable_shuffling=True,
            )

        def _split_generators(self, _: Any) -> dict[str, Any]:
            return {split: self._generate_examples(of) for split, of in (parts or {}).items()}

        def _generate_examples(self, of: Sequence[Part]) -> Any:
            import apache_beam as beam

            return beam.Create(of) | beam.FlatMap(examples)

    return GxdistillCohort(data_dir=str(folder), file_format="array_record")


class Account(NamedTuple):
    """What is known of a part that is written.

    Attributes:
      rows: of its entries, in order.
      sizes: of its records, in bytes.
      levels: how often each level occurs in its images, `[256]`.
    """

    rows: tuple[Row, ...]
    sizes: tuple[int, ...]
    levels: tuple[int, ...]


def write_part(part: Part, folder: Path) -> None:
    """Writes a part and its account into a folder of its own below `folder`, at one stroke.

    Does nothing where it is there already.

    Raises:
      UserError: the disk is full or the place not writable.
    """
    if (folder / part.inputs).exists():
        return
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer

    features = builder(part.form, folder).info.features
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    rows: list[Row] = []
    sizes: list[int] = []
    levels = np.zeros(256, np.int64)

    def serialised() -> Iterator[bytes]:
        for row, record in read_part(part):
            rows.append(row)
            if record is not None:
                example = serializer.get_tf_example(features.encode_example(record))
                content = example.SerializeToString(deterministic=True)
                sizes.append(len(content))
                levels[:] += Image.fromarray(record["image"][..., 0]).histogram()
                yield content

    with storage.fresh_folder(folder / part.inputs) as fresh, images.quiet():
        writer = array_record_module.ArrayRecordWriter(str(fresh / _RECORDS), _PACKING)
        for content in serialised():
            writer.write(content)
        writer.close()
        account = {"rows": rows, "sizes": sizes, "levels": levels}
        (fresh / _ACCOUNT).write_text(storage.json_text(account), "utf-8")


def read_account(part: Part, folder: Path) -> Account:
    """Reads the account of a part that `write_part` wrote."""
    account = storage.read_json(folder / part.inputs / _ACCOUNT)
    rows = (Row(*row)._replace(facts=row[4] and Facts(*row[4])) for row in account["rows"])
    return Account(tuple(rows), tuple(account["sizes"]), tuple(account["levels"]))


def write_parts(
    parts: Sequence[Part],
    folder: Path,
    *,
    processes: int,
    progress: Callable[[int, int], None],
) -> list[Account]:
    """Writes the parts that are not yet there, several at a time.

    Args:
      parts: of the set.
      folder: for parts alone.
      processes: that read and write.
      progress: called with the number of images done and of all.

    Returns:
      The account of each part.
    """
    tfds()
    if folder.is_dir():
        storage.tidy(folder)
    total, done = sum(len(part.entries) for part in parts), 0
    if processes == 1:
        for part in parts:
            write_part(part, folder)
            done += len(part.entries)
            progress(done, total)
        return [read_account(part, folder) for part in parts]
    # Not forked: this process has threads, JAX's among them.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, context, _die_with_parent) as pool:
        waiting = {pool.submit(write_part, part, folder): part for part in parts}
        try:
            for future in concurrent.futures.as_completed(waiting):
                future.result()
                done += len(waiting[future].entries)
                progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [read_account(part, folder) for part in parts]


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def assemble(parts: Sequence[Part], folder: Path, place: Path, metadata: Metadata) -> None:
    """Makes a set of its parts, at one stroke.

    Args:
      parts: all written, those of a split in order.
      folder: of the parts.
      place: of the set, "NAME/VERSION" as tensorflow-datasets has it.
      metadata: what the set says of itself beside the SHA-256 of its files.

    Raises:
      UserError: the disk is full or the place not writable.
    """
    api = tfds()
    with storage.fresh_folder(place) as fresh:
        splits, digests = [], {}
        for split in dict.fromkeys(part.split for part in parts):
            in_split = [(part, read_account(part, folder)) for part in parts if part.split == split]
            in_split = [(part, account) for part, account in in_split if account.sizes]
            template = api.core.ShardedFileTemplate(
                dataset_name=NAME, data_dir=fresh, split=split, filetype_suffix="array_record"
            )
            for i, (part, _) in enumerate(in_split):
                path = Path(template.sharded_filepath(shard_index=i, num_shards=len(in_split)))
                os.link(folder / part.inputs / _RECORDS, path)
                digests[path.name] = file_digest(path)
            sizes = [account.sizes for _, account in in_split]
            splits.append(
                api.core.SplitInfo(
                    name=split,
                    shard_lengths=[len(some) for some in sizes],
                    num_bytes=sum(map(sum, sizes)),
                    filename_template=template,
                )
            )
        dataset = builder(parts[0].form, place.parents[1], place.name)
        dataset.info.set_splits(api.core.SplitDict(splits))
        dataset.info.metadata.update(storage.seal({**metadata, "files": digests}))
        dataset.info.write_to_directory(fresh)


def file_digest(path: Path) -> str:
    """Computes the SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
