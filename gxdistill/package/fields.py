"""The fields of a manifest as types, beside `manifest.schema.json`, which says what they may hold.

A table of the schema is a class here, and its properties are the class's fields, by the same names.
Tables that others fill as they like, as the options of a network, stay tables.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from gxdistill.data.batches.resident import Normalisation
from gxdistill.package.manifest import SCHEMA_VERSION
from gxdistill.pytrees import Metadata

Part = TypeVar("Part")  # The class of a manifest, or of a part of one.


@dataclasses.dataclass(frozen=True)
class SplitCounts:
    """Numbers of one split of the sender's cohort.

    Attributes:
      images: number of images.
      patients: number of patients.
      labels: number of images by the name of their label.
    """

    images: int
    patients: int
    labels: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Splits:
    """The two splits of a cohort, which share no patient.

    Attributes:
      train: what was learned from.
      test: what the results are measured on.
    """

    train: SplitCounts
    test: SplitCounts


@dataclasses.dataclass(frozen=True)
class CohortCounts:
    """What leaves the hospital of its cohort: numbers, and no names of files or sites.

    Attributes:
      images: number of images in use.
      patients: number of patients.
      sites: number of sites.
      quarantined: number of images that could not be used, and are not among `images`.
      splits: the same by split.
    """

    images: int
    patients: int
    sites: int
    quarantined: int
    splits: Splits


@dataclasses.dataclass(frozen=True)
class NetworkChoice:
    """A network by its name.

    Attributes:
      name: of gxdistill's zoo, or a name that only sender and receiver know.
      options: arguments of its constructor, by name.
    """

    name: str
    options: Metadata


@dataclasses.dataclass(frozen=True)
class Init:
    """Which initial weights the distilled data were learned for.

    Attributes:
      rule: "known": the weights that lie in the package, drawn from `seed`; "seeded": those that
        the receiver draws from `seed` anew; "random": any fresh ones.
      seed: from 0 to 2^32 - 1; None of random ones.
    """

    rule: str
    seed: int | None

    @property
    def is_known(self) -> bool:
        """Whether all receivers start from the same weights, and thus train the same network."""
        return self.rule != "random"

    @property
    def is_packaged(self) -> bool:
        """Whether the initial weights are among the arrays of the package."""
        return self.rule == "known"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How the distilled data were learned, and how a replay trains on them.

    Attributes:
      steps: S, batches of distilled images.
      epochs: E, how many times a replay goes through them.
      images_per_step: B, images of a batch.
      label_rule: how labels are read: "raw" as they are, or "softmax" as logits.
      loss: of a replay, "cross_entropy".
      inner: the optimiser of a replay: its `name`, and its constants by theirs.
      augmentations: names of changes, see `distill.augment`: a replay changes each image of each
        step by a draw of its own.
      started_from: what the images were before the first outer step: "noise", drawn to match
        private "statistics", of a "mixture" of Gaussians fitted to real images, or "real" images.
      outer_steps: updates of the distilled data; 0 where they are packaged as they started.
      settings: of the method, as its config had them.
    """

    steps: int
    epochs: int
    images_per_step: int
    label_rule: str
    loss: str
    inner: Metadata
    augmentations: tuple[str, ...]
    started_from: str
    outer_steps: int
    settings: Metadata


@dataclasses.dataclass(frozen=True)
class PatchGeometry:
    """Which squares of an image the network sees; all lengths in pixels of the shrunken image.

    Attributes:
      size: side of a patch.
      stride: distance between neighbouring corners.
      border: whether the far edges are covered too.
      irrelevant_below: largest share of organ in an irrelevant patch, from 0 to 1.
      inside_above: smallest share of organ in a patch that has its image's label, from 0 to 1.
      image_height: of the shrunken image.
      image_width: likewise.
      channels: C, values of a pixel.
      downscale: side of the blocks of original pixels that one pixel averages.
    """

    size: int
    stride: int
    border: bool
    irrelevant_below: float
    inside_above: float
    image_height: int
    image_width: int
    channels: int
    downscale: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one patch, `[H, W, C]`."""
        return self.size, self.size, self.channels


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files became images, before they were shrunken.

    Attributes:
      window: how more than 8 bits became 8: "file", as a DICOM file says, or "percentiles".
      spacing: of pixels, in millimetres, to which images were resampled; None left them.
      fit: "same": all images have one size; "pad": smaller ones lie in the middle of black.
      text: what was done with burned-in text: "mask", "refuse" or "keep".
      bits: the depths of the stored pixels, in bits.
    """

    window: str
    spacing: float | None
    fit: str
    text: str
    bits: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Decision:
    """How a whole image is decided.

    Attributes:
      rule: how the probabilities of its patches become a score, see `evaluation.decision`:
        "counts", "soft" or "zones".
      weights: by which "zones" scores, see `evaluation.zones`; other rules have none.
      tau: the threshold: an image is positive whose score is not below it.
      share_positive: of the sender's decidable training images, how many tau calls positive; None
        where that is not stated.
      networks: over how many fresh networks the probabilities are averaged first.
    """

    rule: str
    weights: tuple[float, ...]
    tau: float
    share_positive: float | None
    networks: int


@dataclasses.dataclass(frozen=True)
class Likeness:
    """What the sender's training images were like, see `evaluation.likeness`.

    Attributes:
      images: number of images.
      features: mean and standard deviation over the images, by feature.
    """

    images: int
    features: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Proof:
    """What the trained network must be, see `package.proof`.

    Attributes:
      weights: SHA-256 of the trained weights, in hexadecimal digits.
      logits: of the trained network on the probe images, `[8, K]`.
      tolerance: by how much logits on another machine may differ from these.
    """

    weights: str
    logits: tuple[tuple[float, ...], ...]
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Releases:
    """Noisy releases of one kind, an event of a ledger; see `privacy.events`.

    Attributes:
      what: was released, in words.
      mechanism: "gaussian", "laplace", or "sampled_gaussian" of a Poisson sample of the units.
      sensitivity: by how much one unit changes what was released.
      noise_multiplier: standard deviation of the noise (for "laplace" its scale) over sensitivity.
      sampling_probability: of a unit to be in the sample; 1 where all are.
      count: number of such releases.
      unit: whose presence they hide: "patient", "image" or "site".
      stream: names the key of the samples; empty where none were drawn.
    """

    what: str
    mechanism: str
    sensitivity: float
    noise_multiplier: float
    sampling_probability: float
    count: int
    unit: str
    stream: str


@dataclasses.dataclass(frozen=True)
class LedgerRecord:
    """The sender's ledger of private releases as a package holds it; see `privacy.ledger`.

    Attributes:
      unit: whose presence is hidden: "patient", "image" or "site".
      adjacency: which data sets are neighbours, "add_or_remove".
      delta: at which epsilon is told.
      budget: largest epsilon that the sender allowed; None for none.
      epsilon: that the events come to, as the sender says; None where it is above 100.
      conversion: how they were composed.
      events: what was released.
      uncovered: what was released and is not covered, by name.
    """

    unit: str
    adjacency: str
    delta: float
    budget: float | None
    epsilon: float | None
    conversion: str
    events: tuple[Releases, ...]
    uncovered: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What a file for receivers says of itself, whatever it holds.

    Attributes:
      name: of the set, for people, as `purpose`, `licence` and `privacy` are.
      purpose: what it is meant for.
      licence: under which it is given away.
      privacy: what is promised to the patients, and what is not.
      cohort: what it was made of; None where that is not stated.
      network: what it was made for.
      init: the weights that the network starts from.
      patch: what of an image the network sees.
      reading: how files became images; None where there were none.
      image_normalisation: by what the grey values of each image are normalised before, one of
        `intensities.WAYS`.
      normalisation: how pixels become the network's input.
      class_names: of the K classes of patches, in the order of the labels.
      decision: how a whole image is decided; None where images are not decided.
      likeness: what the images were like that tau was chosen on; None where that is not stated.
      results: figures of the sender's test patients: numbers, or tables of `mean`, `std`, `n`,
        `low`, `high`.
      proof: what the trained network must be; None where nothing is promised.
      ledger: what was released of the patients, and what it cost; None where nothing is guaranteed.
    """

    name: str
    purpose: str
    licence: str
    privacy: str
    cohort: CohortCounts | None
    network: NetworkChoice
    init: Init
    patch: PatchGeometry
    reading: Reading | None
    image_normalisation: str
    normalisation: Normalisation
    class_names: tuple[str, ...]
    decision: Decision | None
    likeness: Likeness | None
    results: Metadata
    proof: Proof | None
    ledger: LedgerRecord | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsManifest(About):
    """The header of a file of essential weights; `init` is always seeded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest(About):
    """The manifest of a package.

    Attributes:
      distillation: how the images were learned and are trained on.
      precision: how they lie in the file, one of `package.PRECISIONS`.
      schema_version: of the format; `save` writes packages of today's only.
      arrays: shape, dtype and SHA-256 of each array in the file, by its name; none before it is
        saved.
    """

    distillation: Distillation
    precision: str
    schema_version: int = SCHEMA_VERSION
    arrays: Mapping[str, Metadata] = dataclasses.field(default_factory=dict)

    @property
    def images_shape(self) -> tuple[int, int, int, int, int]:
        """The shape of the distilled images, `[S, B, H, W, C]`."""
        return self.distillation.steps, self.distillation.images_per_step, *self.patch.shape


def _read(kind: Any, value: Any) -> Any:
    """Returns a value of JSON as a field of type `kind` holds it."""
    if isinstance(kind, types.UnionType):  # X | None
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
        return None if value is None else _read(kind, value)
    if typing.get_origin(kind) is tuple:
        return tuple(_read(typing.get_args(kind)[0], item) for item in value)
    if dataclasses.is_dataclass(kind) or kind is Normalisation:
        return from_json(kind, value)  # type: ignore[arg-type]
    return value


def from_json(kind: type[Part], table: Metadata) -> Part:
    """Makes an object of a table that the schema allows, see `manifest.check`.

    Args:
      kind: `Manifest`, `WeightsManifest`, or the class of a part of them.
      table: its fields by name, as JSON has them.
    """
    kinds = typing.get_type_hints(kind)
    return kind(**{name: _read(kinds[name], value) for name, value in table.items()})


def _written(value: Any) -> Any:
    """Returns what a field holds as JSON can hold it."""
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, Normalisation):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: _written(part) for name, part in value.items()}
    return [_written(part) for part in value] if isinstance(value, list | tuple) else value


def to_json(part: object) -> Metadata:
    """Returns a manifest, or a part of one, as JSON can hold it: the inverse of `from_json`."""
    fields = dataclasses.fields(part)  # type: ignore[arg-type]
    return {field.name: _written(getattr(part, field.name)) for field in fields}
