"""Shadow cohorts: some of a job's patients, on whom its recipe runs as if they were all."""

import dataclasses
import hashlib
from functools import cached_property

import numpy as np

from gxdistill.data import source
from gxdistill.data.batches import resident
from gxdistill.jobs.cohorts import Cohorts
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
    """

    _: dataclasses.KW_ONLY
    whole: Cohorts
    pool: Cohort
    table: PatchTable
    members: np.ndarray

    @property
    def drawn(self) -> np.ndarray:
        """The members."""
        return self.members

    @cached_property
    def source(self) -> source.Source:
        """That of the job itself: how images were read."""
        return self.whole.source

    @cached_property
    def train(self) -> Cohort:
        """The pool; `drawn` says who of it is learned from."""
        return self.pool

    @cached_property
    def test(self) -> Cohort:
        """The test patients of the job itself."""
        return self.whole.test

    @cached_property
    def tables(self) -> dict[str, PatchTable]:
        """The patches of the pool, and of the test patients."""
        return {"train": self.table, "test": self.whole.tables["test"]}

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
