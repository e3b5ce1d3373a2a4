"""Shadow cohorts of a job, and what its recipe makes of them; resumed where it was interrupted."""

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np

from gxdistill.errors import UserError
from gxdistill.jobs.cohorts import by_area
from gxdistill.jobs.job import Job
from gxdistill.jobs.shadows import ShadowCohorts
from gxdistill.jobs.workdir import Workdir
from gxdistill.package import Manifest
from gxdistill.privacy.attacks import canaries
from gxdistill.pytrees import Cohort, Distilled, PatchTable
from gxdistill.runtime.console import Progress

_FOLDER = "audit"


class Recipe(Protocol):
    """How a package was made, to be repeated on shadow cohorts."""

    @property
    def is_private(self) -> bool:
        """Whether it draws and counts patients itself, for a guarantee."""

    def check_made(self, manifest: Manifest) -> None:
        """Refuses a package that was made in another way."""

    def __call__(self, job: Job, what: str) -> Distilled:
        """Makes distilled data of a job's patients."""


class Pool(NamedTuple):
    """The patients who may be in a shadow, by sorted id.

    Attributes:
      cohort: all their images, canaries' included.
      table: their patches.
      members: who was in the package's own training, `[P]` bool.
      canary: number of the canary that a patient is, or -1, `[P]`.
      strata: patients with the same label and site share a number, `[P]`.
    """

    cohort: Cohort
    table: PatchTable
    members: np.ndarray
    canary: np.ndarray
    strata: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """Who is no canary, `[P]` bool."""
        return self.canary < 0


def make_pool(job: Job, *, each: int) -> Pool:
    """Gathers training and test patients, and plants canaries among them.

    Args:
      job: whose patients.
      each: canaries of each kind.

    Raises:
      UserError: there are fewer patients than canaries, or images are read as needed, so that none
        can be planted.
    """
    both = job.cohorts.source.cohort
    cohort = both.select(np.isin(both.splits, ("train", "test")))
    names = np.unique(cohort.patients)
    canary = np.full(len(names), -1)
    if each:
        if job.cohorts.streams:
            raise UserError(
                "Images are read as they are needed, and no canaries can be planted among them. "
                "Set --canaries=0, or --config.data.feed=resident."
            )
        rng = np.random.default_rng((job.config.seed, 1))
        try:
            planted, numbers = canaries.plant(cohort, rng, each=each)
        except ValueError as error:
            raise UserError(f"--canaries={each}: {error}") from error
        cohort = canaries.concatenate([cohort, planted])
        by_name = dict(zip(np.unique(planted.patients).tolist(), numbers.tolist(), strict=True))
        names = np.unique(cohort.patients)
        canary = np.array([by_name.get(name, -1) for name in names.tolist()])
    first = np.unique(cohort.patients, return_index=True)[1]
    kinds = [f"{cohort.labels[i]} {cohort.sites[i]}" for i in first]
    strata = np.unique(kinds, return_inverse=True)[1]
    members = (cohort.splits[first] == "train") & (canary < 0)
    return Pool(cohort, by_area(job.config, cohort), members, canary, strata)


def draw_members(pool: Pool, count: int, seed: int) -> np.ndarray:
    """Draws who is in which shadow.

    Of each label and site as many real patients as the package's own training had, so that under
    no leak the package is one of them by chance; of canaries each by a fair coin.

    Args:
      pool: the patients.
      count: K, number of shadows.
      seed: of the draw.

    Returns:
      `[K, P]` bool.
    """
    rng = np.random.default_rng((seed, 2))
    members = np.zeros((count, len(pool.members)), bool)
    for row in members:
        for stratum in np.unique(pool.strata):
            there = np.flatnonzero(pool.real & (pool.strata == stratum))
            row[rng.permutation(there)[: pool.members[there].sum()]] = True
        coins = rng.random(pool.canary.max() + 1) < 0.5
        row[~pool.real] = coins[pool.canary[~pool.real]]
    return members


def run_shadows(job: Job, pool: Pool, members: np.ndarray, recipe: Recipe) -> list[Distilled]:
    """Runs a job's recipe on each shadow; those that are done are read.

    Args:
      job: whose recipe it is; its working folder keeps the shadows' in "audit".
      pool: the patients.
      members: who is in which shadow, `[K, P]` bool.
      recipe: makes distilled data.

    Raises:
      UserError: a shadow diverged, or the folder has shadows of other settings.
    """
    clock, sets = Progress(job.log, "shadow cohorts", every=0.0), []
    for k, row in enumerate(members):
        cohorts = ShadowCohorts(
            job.config,
            job.log,
            whole=job.cohorts,
            pool=pool.cohort,
            table=pool.table,
            members=row,
            alone=recipe.is_private,
        )
        folder = Workdir(job.workdir / _FOLDER / f"shadow{k:03d}")
        shadow = dataclasses.replace(job, workdir=folder, given=cohorts)
        sets.append(recipe(shadow, f"shadow {k + 1} of {len(members)}"))
        clock(k + 1, len(members))
    return sets
