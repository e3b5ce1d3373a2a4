"""What the earlier stages of a job left behind, read for the report."""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gxdistill import package, storage
from gxdistill.errors import UserError
from gxdistill.package import Manifest, Package
from gxdistill.pytrees import Metadata
from gxdistill.report.markup import count


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the page shows.

    Attributes:
      package: the distilled data and its manifest.
      package_bytes: its size on disk.
      cohort: `cohort.json`.
      history: lines of `history.jsonl`; none where the package was made elsewhere.
      evaluation: `evaluation.json`; None where there is none, or one of another package.
      heatmaps: `heatmaps.npz`, likewise.
      outdated: whether there is an evaluation, of another package.
    """

    package: Package
    package_bytes: int
    cohort: Metadata
    history: list[Metadata]
    evaluation: Metadata | None
    heatmaps: Mapping[str, np.ndarray] | None
    outdated: bool

    @property
    def manifest(self) -> Manifest:
        """The package's."""
        return self.package.manifest

    @property
    def contenders(self) -> Metadata:
        """Figures by contender; without an evaluation those that the package was given."""
        if self.evaluation is None:
            return {"distilled": self.manifest.results}
        return self.evaluation["contenders"]

    @property
    def shares(self) -> Metadata:
        """The share of the ceiling that the distilled set reaches, by figure."""
        return {} if self.evaluation is None else self.evaluation["shares"]

    @property
    def is_learned(self) -> bool:
        """Whether an outer loop learned the images; else they are what they started as."""
        return self.manifest.distillation.outer_steps > 0

    @property
    def patches(self) -> int:
        """Number of real training patches."""
        return sum(self.cohort["patches"]["train"].values())

    @property
    def unit(self) -> str:
        """What a distilled image stands for: a "patch", or an "image" where that is one patch."""
        whole = self.patches == self.cohort["splits"]["train"]["images"]
        return "image" if whole else "patch"

    def units(self, number: int) -> str:
        """Writes a number of `unit`."""
        return count(number, self.unit, {"image": "images", "patch": "patches"}[self.unit])

    @property
    def image_classes(self) -> tuple[str, ...]:
        """Names of the image classes: those of patches, without the irrelevant one."""
        return self.manifest.class_names[self.cohort["masks"] :]

    def image_bytes(self, images: int) -> int:
        """Computes the size of a number of images as 8-bit pixels."""
        height, width = self.cohort["image_size"]
        return images * height * width * self.manifest.patch.channels


def gather(workdir: Path, path: Path) -> Findings:
    """Reads a working folder and a package.

    Args:
      workdir: where the earlier stages wrote.
      path: file of the package.

    Raises:
      UserError: the cohort or the package is missing, or a file cannot be read.
    """
    if not path.exists():
        raise UserError(f"There is no package in {path}. Run `gxdistill distill` first.")
    if not (workdir / "cohort.json").exists():
        raise UserError(f"{workdir} holds no cohort.json. Run `gxdistill prepare` first.")
    content, cohort = package.load(path), storage.read_json(workdir / "cohort.json")
    if set(content.manifest.class_names) != set(cohort["patches"]["train"]):
        raise UserError(
            f"The package in {path} and the cohort in {workdir} have different classes. Name the "
            f"package that was made of this cohort."
        )
    evaluation = None
    if (workdir / "evaluation.json").exists():
        evaluation = storage.read_json(workdir / "evaluation.json")
    outdated = evaluation is not None and _package_of(evaluation) != package.digest(path)
    if outdated:
        evaluation = None
    return Findings(
        package=content,
        package_bytes=package.size_bytes(path),
        cohort=cohort,
        history=read_history(workdir / "history.jsonl"),
        evaluation=evaluation,
        heatmaps=None if evaluation is None else _arrays(workdir / "heatmaps.npz"),
        outdated=outdated,
    )


def _package_of(evaluation: Metadata) -> str:
    return evaluation["contenders"]["distilled"]["networks"]["package"]


def read_history(path: Path) -> list[Metadata]:
    """Reads the lines of a `history.jsonl`; none where there is no such file."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    # A killed run may leave half a line at the end.
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def _arrays(path: Path) -> dict[str, np.ndarray] | None:
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read: {error}. Run `gxdistill evaluate` again."
        ) from error
