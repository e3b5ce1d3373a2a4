"""Shadow cohorts: some of a job's patients, on whom its recipe runs as if they were all."""

import dataclasses
import hashlib
from functools import cached_property

import numpy as np

from gxdistill.data import source
from gxdistill.data.batches import resident
from gxdistill.jobs.cohorts import Cohorts, by_area
from gxdistill.pytrees import Cohort, PatchTable


@dataclasses.dataclass(frozen=True)
class ShadowCohorts(Cohorts):
    """A job's data side with other training patients; test patients stay as they are.

    All shadows share the pool's images and patches, and only chances differ, so that programs that
    were compiled for one fit all.

    Attributes:
      whole: the data side of the job itself.
      pool: patients who may be learned from, with their images.
      table: their patches.
      members: who is learned from, by sorted ids of the pool, `[P]` bool.
      alone: leaves the images of all others out, for a recipe that counts and draws patients
        itself; else others are there and never drawn.
    """

    _: dataclasses.KW_ONLY
    whole: Cohorts
    pool: Cohort
    table: PatchTable
    members: np.ndarray
    alone: bool = False

    @property
    def drawn(self) -> np.ndarray | None:
        """The members."""
        return None if self.alone else self.members

    @cached_property
    def source(self) -> source.Source:
        """That of the job itself: how images were read."""
        return self.whole.source

    @cached_property
    def train(self) -> Cohort:
        """The pool, of which `drawn` says who is learned from; or the members alone."""
        if not self.alone:
            return self.pool
        names = np.unique(self.pool.patients)[self.members]
        return self.pool.select(np.isin(self.pool.patients, names))

    @cached_property
    def test(self) -> Cohort:
        """The test patients of the job itself."""
        return self.whole.test

    @cached_property
    def tables(self) -> dict[str, PatchTable]:
        """The patches of the training patients, and of the test patients."""
        train = by_area(self.config, self.train) if self.alone else self.table
        return {"train": train, "test": self.whole.tables["test"]}

    @cached_property
    def normalisation(self) -> resident.Normalisation:
        """That of the job itself, which its package tells every recipient."""
        return self.whole.normalisation

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the job's own cohort and of who is learned from."""
        names = np.unique(self.pool.patients)[self.members]
        text = "\n".join([self.whole.digest, *names.tolist()])
        return hashlib.sha256(text.encode()).hexdigest()
