"""The values that travel between the modules; no behaviour beyond their shapes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np

Params = Any  # A pytree of float arrays; what it holds is the network's own business.
Metadata = Mapping[str, Any]  # What JSON can hold.


class Network(NamedTuple):
    """A network as a pair of pure functions, so that any library of layers fits.

    Attributes:
      init: `key -> params`.
      apply: `(params, images [N, H, W, C] float32) -> logits [N, K] float32`, or `[N, H, W, K]` of
        a network that judges each pixel.
      apply_windows: `(params, image [H, W, C], corners [n, 2], size, at_once) -> logits [n, K]` of
        the patches at even corners, n a multiple of `at_once`: as `apply` on each, but what they
        share is computed once; None where that is too little, as when each is normalised by itself.
      apply_levels: `(params, images) -> logits of each supervised resolution`, the finest first, of
        a network that judges each pixel: `[N, ceil(H / 2^i), ceil(W / 2^i), K]`; None of others.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    apply_windows: Callable[[Params, jax.Array, jax.Array, int, int], jax.Array] | None = None
    apply_levels: Callable[[Params, jax.Array], tuple[jax.Array, ...]] | None = None


@flax.struct.dataclass
class Distilled:
    """The compressed data set; the leading axis S is one batch for each inner step of an epoch.

    Attributes:
      images: `[S, B, H, W, C]` float32, in the network's normalised units.
      labels: `[S, B, K]` float32; target probabilities, or their logits (`distill.init`).
      log_lr: `[T]` float32, T = S * epochs, natural log of the inner learning rates, so they
        stay > 0.
    """

    images: jax.Array
    labels: jax.Array
    log_lr: jax.Array


@flax.struct.dataclass
class Learned:
    """What is learned of distilled data until it is finished; an outer loop's state holds it.

    Attributes:
      images: any pytree of float arrays that images are made of, see `distill.synthesis`.
      labels: `[S, B, K]` float32, as in `Distilled`.
      log_lr: `[T]` float32, as in `Distilled`.
    """

    images: Params
    labels: jax.Array
    log_lr: jax.Array


@flax.struct.dataclass
class Batch:
    """Real patches for one step.

    Attributes:
      images: `[N, H, W, C]` float32, normalised.
      targets: what is asked of the network: `[N]` int32 class indices, or `[N, H, W]` int32, the
        class of each pixel.
      patients: `[N]` int32 patient indices: the unit of privacy.
    """

    images: jax.Array
    targets: jax.Array
    patients: jax.Array


class PatchTable(NamedTuple):
    """One row a patch: where it lies and what it shows. Pixels stay in the images.

    Attributes:
      image: `[M]` int32, index into `Cohort.images`.
      row: `[M]` int32, upper edge of the patch in pixels.
      col: `[M]` int32, left edge in pixels.
      label: `[M]` int32, class of the patch, index into `Cohort.class_names`.
      patient: `[M]` int32, index of the patient among the cohort's sorted unique patients.
    """

    image: np.ndarray
    row: np.ndarray
    col: np.ndarray
    label: np.ndarray
    patient: np.ndarray

    def select(self, rows: np.ndarray) -> "PatchTable":
        """Returns the table of the given rows: a boolean mask or indices, `[M]` or `[m]`."""
        return PatchTable(*(column[rows] for column in self))


@dataclasses.dataclass(frozen=True)
class Cohort:
    """Images that passed the checks, with what is known of them.

    Attributes:
      images: `[N, H, W, C]` uint8; of a prepared set a `data.stack.Stack`, read when it is used.
      masks: `[N, H, W]` bool, True inside the organ, or a stack; uint8, the class of each pixel,
        where images are to be segmented; None where the set has no masks.
      labels: `[N]` int32 image labels; 0 is negative, 1 positive where there are two.
      patients: `[N]` str ids.
      sites: `[N]` str.
      splits: `[N]` str, "train" or "test".
      names: `[N]` str, how an image is named to people: its path in the manifest.
      class_names: names of the K patch classes. With masks, class 0 is "irrelevant" and class
        1 + l is image label l; without masks, class l is image label l.
    """

    images: np.ndarray
    masks: np.ndarray | None
    labels: np.ndarray
    patients: np.ndarray
    sites: np.ndarray
    splits: np.ndarray
    names: np.ndarray
    class_names: tuple[str, ...]

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the image labels: the patch classes but "irrelevant"."""
        return self.class_names[self.masks is not None :]

    def select(self, rows: np.ndarray) -> "Cohort":
        """Returns the cohort of the given images: a boolean mask `[N]` or indices `[n]`."""
        return dataclasses.replace(
            self,
            images=self.images[rows],
            masks=None if self.masks is None else self.masks[rows],
            labels=self.labels[rows],
            patients=self.patients[rows],
            sites=self.sites[rows],
            splits=self.splits[rows],
            names=self.names[rows],
        )
