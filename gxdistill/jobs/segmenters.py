"""A trained segmenter as the reader of a cohort takes it: it makes the masks that are missing."""

import dataclasses
from pathlib import Path

import numpy as np

from gxdistill.errors import UserError
from gxdistill.package import segmenter, segmenting


@dataclasses.dataclass(frozen=True)
class OrganMasks:
    """Makes the masks of an organ; called with images, `[H, W]` uint8 -> `[H, W]` bool.

    Attributes:
      trained: the segmenter, of grey images.
    """

    trained: segmenter.Segmenter

    @property
    def sha256(self) -> str | None:
        """Of the segmenter's file: what the masks depend on."""
        return self.trained.sha256

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Finds the organ."""
        return segmenting.organ_mask(self.trained, image)


def read(path: Path) -> OrganMasks:
    """Reads the package of a segmenter.

    Raises:
      UserError: the file is no sound segmenter, or one of images in colours.
    """
    trained = segmenter.load_segmenter(path)
    if trained.manifest.patch.channels != 1:
        raise UserError(
            f"data.segmenter is {path}, which segments images in colours. Name one of grey images."
        )
    return OrganMasks(trained)
