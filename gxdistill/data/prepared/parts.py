"""What a prepared set is made of: entries without names, in parts that one process reads at a time.

A record holds pixels, mask, label, a code of the site and a pseudonym of the patient, and nothing
else of the files and the manifest.
"""

import dataclasses
import functools
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.data import leaks
from gxdistill.data.files import reading
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import Entry
from gxdistill.data.files.reading import Facts, Recipe, Sample
from gxdistill.errors import UserError
from gxdistill.pytrees import Cohort

_FORMAT = 1  # Of the parts.
_PART_BYTES = 1 << 26
_PART_IMAGES = 4096
_SALT_BYTES = 32


@dataclasses.dataclass(frozen=True)
class Form:
    """What all records of a set have in common.

    Attributes:
      shape: of an image, `[H, W]`.
      masks: whether there are masks.
      label_names: names of the image labels.
    """

    shape: tuple[int, int]
    masks: bool
    label_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """A file of the set to be, and what it is made of.

    Attributes:
      form: of its records.
      split: "train" or "test".
      entries: whose images these are, by the pseudonym and the code that go into the set.
      read: `entry -> sample`; raises `BadEntryError` for one that is left out.
      inputs: digest of all that the file depends on.
    """

    form: Form
    split: str
    entries: tuple[Entry, ...]
    read: Callable[[Entry], Sample]
    inputs: str

    def without(self, lines: set[int]) -> "Part":
        """Leaves out the entries of some lines."""
        if lines.isdisjoint(entry.line for entry in self.entries):
            return self
        kept = tuple(entry for entry in self.entries if entry.line not in lines)
        inputs = hashlib.sha256(f"{self.inputs} {sorted(lines)}".encode()).hexdigest()
        return dataclasses.replace(self, entries=kept, inputs=inputs)


class Row(NamedTuple):
    """The account of one entry.

    Attributes:
      line: of the entry.
      reason: why it was left out; None where it is in the file.
      digest: SHA-256 of its file's pixels, as hex digits.
      hash: of `leaks.image_hash`, as hex digits.
      facts: how it was read.
    """

    line: int
    reason: str | None
    digest: str = ""
    hash: str = ""
    facts: Facts | None = None


class Pseudonyms(NamedTuple):
    """What patients and sites are called in a set; it stays with the hospital.

    Attributes:
      salt: the key of the patients' hashes.
      sites: code of each site, by name.
    """

    salt: bytes
    sites: Mapping[str, str]

    def hide(self, entry: Entry) -> Entry:
        """Names patient and site of an entry by pseudonym, HMAC-SHA256 to 64 bits, and code."""
        digest = hmac.new(self.salt, entry.patient.encode(), hashlib.sha256).hexdigest()
        return entry._replace(patient=digest[:16], site=self.sites[entry.site])


def pseudonyms(path: Path, sites: Sequence[str]) -> Pseudonyms:
    """Reads the pseudonyms of a working folder; draws the salt and adds sites that are new.

    Args:
      path: of a JSON file that only its owner may read.
      sites: that must have a code.

    Returns:
      The pseudonyms, the same for the same file whatever is added.

    Raises:
      UserError: the file cannot be read or written, or holds something else.
    """
    fresh: dict[str, Any] = {"salt": secrets.token_hex(_SALT_BYTES), "sites": {}}
    known = storage.read_json(path) if path.exists() else fresh
    try:
        salt, codes = bytes.fromhex(known["salt"]), dict(known["sites"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no pseudonyms. Put the former file back, or remove it."
        ) from error
    for site in sorted(set(sites) - set(codes)):
        codes[site] = f"site-{len(codes)}"
    storage.write_json(path, {"salt": salt.hex(), "sites": codes})
    path.chmod(0o600)
    return Pseudonyms(salt, codes)


def read_part(part: Part) -> Iterator[tuple[Row, dict[str, Any] | None]]:
    """Reads the entries of a part: the account of each, and its record where it could be read."""
    for entry in part.entries:
        try:
            sample = part.read(entry)
        except BadEntryError as error:
            yield Row(entry.line, str(error)), None
            continue
        image_hash = leaks.image_hash(sample.image).tobytes().hex()
        record = {
            "image": sample.image[..., None],
            "label": entry.label,
            "patient": entry.patient,
            "site": entry.site,
        }
        if part.form.masks:
            record["mask"] = sample.mask
        yield Row(entry.line, None, sample.digest.hex(), image_hash, sample.facts), record


def parts_of_files(
    entries: Sequence[Entry], recipe: Recipe, label_names: Sequence[str], names: Pseudonyms
) -> list[Part]:
    """Divides the entries of a manifest into parts.

    Args:
      entries: with their splits, all with a mask or none.
      recipe: how they are read, with the size.
      label_names: of the image classes.
      names: what their patients and sites are called.

    Returns:
      The parts; those of a split follow each other.
    """
    assert recipe.size is not None
    height, width = (side // recipe.downscale for side in recipe.size)
    masks = recipe.segment is not None or entries[0].mask is not None
    form = Form((height, width), masks, tuple(label_names))
    read = functools.partial(reading.read_entry, recipe=recipe)

    def inputs(some: Sequence[Entry]) -> str:
        stats = [(p.stat().st_size, p.stat().st_mtime_ns) for e in some for p in e[2:4] if p]
        known = (getattr(recipe.segment, name, None) for name in ("sha256", "__qualname__"))
        segment = next(filter(None, known), None)
        how = dataclasses.replace(recipe, segment=None)
        return _digest(repr((_FORMAT, form, how, segment, list(map(names.hide, some)), stats)))

    return [
        Part(form, split, tuple(map(names.hide, some)), read, inputs(some))
        for split, some in _divided(entries, form)
    ]


@dataclasses.dataclass(frozen=True)
class Held:
    """Reads from memory the images of entries of ascending lines."""

    images: np.ndarray
    masks: np.ndarray | None
    lines: np.ndarray

    def __call__(self, entry: Entry) -> Sample:
        """Returns the image and mask of an entry."""
        at = np.searchsorted(self.lines, entry.line)
        image = self.images[at, ..., 0]
        mask = None if self.masks is None else self.masks[at]
        digest = hashlib.sha256(image.tobytes()).digest()
        return Sample(image, mask, digest, Facts())


def entries_of_cohort(cohort: Cohort) -> tuple[Entry, ...]:
    """Lists the images of a cohort in memory, as if they stood in a manifest from line 0 on."""
    columns = (cohort.names, cohort.labels, cohort.patients, cohort.sites, cohort.splits)
    rows = enumerate(zip(*(column.tolist() for column in columns), strict=True))
    return tuple(
        Entry(line, name, Path(), None, label, patient, site, split)
        for line, (name, label, patient, site, split) in rows
    )


def parts_of_cohort(cohort: Cohort, names: Pseudonyms) -> list[Part]:
    """Divides a cohort in memory into parts, as `parts_of_files` does the files of a manifest."""
    height, width = cohort.images.shape[1:3]
    form = Form((height, width), cohort.masks is not None, cohort.label_names)
    parts = []
    for split, some in _divided(entries_of_cohort(cohort), form):
        hidden = tuple(map(names.hide, some))
        lines = np.array([entry.line for entry in some])
        part = cohort.select(lines)
        arrays = [array for array in (part.images, part.masks) if array is not None]
        pixels = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
        inputs = _digest(repr((_FORMAT, form, hidden, pixels)))
        parts.append(Part(form, split, hidden, Held(part.images, part.masks, lines), inputs))
    return parts


def _divided(entries: Sequence[Entry], form: Form) -> Iterator[tuple[str, Sequence[Entry]]]:
    most = max(1, min(_PART_IMAGES, _PART_BYTES // (form.shape[0] * form.shape[1])))
    for split in sorted({entry.split for entry in entries}, reverse=True):  # train, test
        in_split = [entry for entry in entries if entry.split == split]
        for begin in range(0, len(in_split), most):
            yield split, in_split[begin : begin + most]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
