"""Audits a package: shadows, attacks, figures and a page for those who answer for the patients."""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import package, storage
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.package import precision
from gxdistill.privacy.attacks import reconstruction
from gxdistill.pytrees import Distilled, Metadata
from gxdistill.receive.budget import DEFAULT, Budget
from gxdistill.receive.networks import Trained, replay_package, train_networks
from gxdistill.report import audit_page
from gxdistill.report.sections.audit import Pair, Side
from gxdistill.tasks.audit import judging, measuring, shadowing
from gxdistill.tasks.audit.judging import Proven, Who
from gxdistill.tasks.audit.measuring import Measured
from gxdistill.tasks.audit.shadowing import Pool, Recipe

NETWORKS = 3  # Fresh ones that a run is judged by, where initial weights are not known.
FEWEST_SHADOWS = 4  # Of fewer, no variance could be told.
MOST_PATIENTS = 500  # Of members, and of others, that are attacked.
_PAIRS = 6  # Nearest pairs that are drawn.

NOT_TESTED = (
    "Releases beside the images: the threshold, class counts, normalisation, the results in the "
    "manifest and the choice of the recipe are as the package's own in all shadows.",
    "Recipients who know more than is assumed here, or attack in ways that are not known today.",
    "What several packages of the same patients tell together.",
    "Groups of patients, and patients who are related.",
    "Whether the cohort's own labels and patient ids are right: images of one patient under two "
    "ids would be taken for a member and another.",
)


class Options(NamedTuple):
    """How thorough an audit is.

    Attributes:
      shadows: K, number of shadow cohorts.
      canaries: of each kind.
      pictures: whether the page shows the nearest pairs, with real patches.
      budget: the most that training on the package may take, by an estimate.
    """

    shadows: int = 8
    canaries: int = 2
    pictures: bool = True
    budget: Budget = DEFAULT


DEFAULTS = Options()


def proven(manifest: package.Manifest) -> Proven | None:
    """Reads what a package's ledger proves; None where it has none."""
    ledger = manifest.ledger
    if ledger is None:
        return None
    spent = math.inf if ledger.epsilon is None else ledger.epsilon
    return Proven(spent, ledger.delta, ledger.unit)


def audit(job: Job, path: Path, recipe: Recipe, options: Options = DEFAULTS) -> Metadata:
    """Attacks a package with shadows of a job's own patients.

    Writes `audit.json` and `audit.html`; the shadows stay in the folder "audit" beside them, and
    serve any package of the same recipe.

    Args:
      job: that made the package, with its cohort.
      path: file of the package.
      recipe: how the package was made.
      options: how thorough the audit is.

    Returns:
      What `audit.json` holds.

    Raises:
      UserError: the package is of another recipe or cohort, or a run diverged; or an attack proves
        a larger epsilon than the ledger, and then the files are written, too.
    """
    if options.shadows < FEWEST_SHADOWS:
        raise UserError(
            f"--shadows={options.shadows} are too few to tell a variance. Ask for "
            f"{FEWEST_SHADOWS} or more."
        )
    content = package.load(path)
    recipe.check_made(content.manifest)
    _check_cohort(job, content.manifest)
    pool = shadowing.make_pool(job, each=options.canaries)
    members = shadowing.draw_members(pool, options.shadows, job.config.seed)
    runs = shadowing.run_shadows(job, pool, members, recipe)
    result, pairs = attack(job, path, pool, members, runs, options)
    storage.write_json(job.workdir / "audit.json", result)
    page = job.workdir / "audit.html"
    storage.write_text(page, audit_page.page(result, pairs))
    job.log(f"audit: {page}")
    if fault := judging.refuted(result):
        raise UserError(fault)
    return result


def _check_cohort(job: Job, manifest: package.Manifest) -> None:
    """Refuses another cohort, as far as its counts tell; a private package tells none."""
    there = manifest.cohort
    if there is None and manifest.ledger is not None:
        return
    if there is None:
        raise UserError("The package does not say how many patients it was made of. Make it anew.")
    cohort = job.cohorts.source.cohort
    for split, counts in (("train", there.splits.train), ("test", there.splits.test)):
        here = cohort.splits == split
        ours = int(here.sum()), len(np.unique(cohort.patients[here]))
        if ours != (counts.images, counts.patients):
            raise UserError(
                f"The package was made with {counts.images} {split} images of {counts.patients} "
                f"patients, and here are {ours[0]} of {ours[1]}. Audit it with the cohort that it "
                f"was made of."
            )


def attack(
    job: Job,
    path: Path,
    pool: Pool,
    members: np.ndarray,
    runs: list[Distilled],
    options: Options = DEFAULTS,
) -> tuple[Metadata, list[Pair]]:
    """Attacks a package with shadows that are there; writes nothing.

    Args:
      job: whose cohort and log.
      path: file of the package.
      pool: the patients.
      members: who is in which shadow, `[K, P]` bool.
      runs: what the shadows made.
      options: as of `audit`.

    Returns:
      What `audit.json` holds, and the nearest pairs for the page.
    """
    content = package.load(path)
    known = content.manifest.init.is_known
    count = None if known else NETWORKS
    trained = train_networks(
        path, count=count, may_diverge=True, budget=options.budget, log=job.log
    )
    runs = [_as_packaged(run, content.manifest.precision) for run in runs]
    networks = _networks(content, trained, runs)
    patients = _chosen(pool, job.config.seed)
    measured = measuring.measure(
        pool,
        patients,
        trained.network,
        networks,
        [content.distilled, *runs],
        size=job.config.patch.size,
        normalise=job.cohorts.normalisation,
        log=job.log,
    )
    _check_finite(measured)
    first = np.unique(pool.cohort.patients, return_index=True)[1]
    who = Who(
        pool.members[patients],
        pool.canary[patients],
        pool.cohort.labels[first][patients],
        members[:, patients],
    )
    judged = judging.judge(measured, who, proven(content.manifest))
    result = {
        "name": content.manifest.name,
        "package": package.digest(path),
        "privacy": content.manifest.privacy,
        "guarantee": package.guarantee(content.manifest.ledger),
        "started_from": content.manifest.distillation.started_from,
        "shadows": len(runs),
        "means": _means(content, trained, len(runs)),
        **judged,
        "not_tested": [*NOT_TESTED, *_further(job, content, pool, patients, judged)],
    }
    pairs = _pairs(pool, measured, content, patients, who) if options.pictures else []
    return result, pairs


def _check_finite(measured: Measured) -> None:
    """Refuses runs whose networks diverged: their likelihoods would say nothing.

    Raises:
      UserError: naming the run.
    """
    sound = np.isfinite(measured.likelihood).all(axis=1)
    if not sound.all():
        run = int(np.argmin(sound))
        what = f"shadow {run}" if run else "the package"
        raise UserError(
            f"The networks that were trained on {what} diverged: the recipe is not stable, and an "
            f"audit of it would say nothing. Lower distill.start_lr, and distil anew in another "
            f"--workdir."
        )


def _as_packaged(run: Distilled, kind: str) -> Distilled:
    """Rounds the images of a shadow as a package's were."""
    images, _ = precision.rounded(np.asarray(run.images), kind)
    return dataclasses.replace(run, images=jnp.asarray(images))


def _networks(content: package.Package, trained: Trained, runs: list[Distilled]) -> Any:
    """Trains networks on all runs as on the package; leading axes 1 + K and R."""
    each = [trained.params]
    for run in runs:
        shadow = dataclasses.replace(content, distilled=run)
        each.append(replay_package(shadow, trained.network, trained.record))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _chosen(pool: Pool, seed: int) -> np.ndarray:
    """Chooses who is attacked: of members and others some hundreds at most, and all canaries."""
    rng, has_patches = np.random.default_rng((seed, 4)), np.zeros(len(pool.members), bool)
    has_patches[np.unique(pool.table.patient)] = True
    sides = [
        rng.permutation(np.flatnonzero(side & has_patches))[:MOST_PATIENTS]
        for side in (pool.members, pool.real & ~pool.members)
    ]
    return np.sort(np.concatenate([*sides, np.flatnonzero(~pool.real & has_patches)]))


def _means(content: package.Package, trained: Trained, shadows: int) -> list[str]:
    """Says what the recipient is assumed to have and to know."""
    count = trained.record["count"]
    networks = "one network is" if count == 1 else f"{count} networks are"
    known = "the initial weights" if content.manifest.init.is_known else "no initial weights"
    return [
        f"The whole package: images, soft labels, learning rates and manifest, and {known} of the "
        f"sender; {networks} trained on it.",
        "This program, the recipe with all its settings, and the seed.",
        "Images of the patient in question, and the label of each of their patches.",
        f"As many images of other patients of the same hospital as it takes for {shadows} shadow "
        "cohorts as large as the sender's own, drawn from training and test patients alike.",
        "No access to the hospital, nor to what the training left there.",
    ]


def _further(
    job: Job, content: package.Package, pool: Pool, patients: np.ndarray, judged: Metadata
) -> list[str]:
    """Says what else this audit left out."""
    lines = []
    left = int(pool.real.sum() - pool.real[patients].sum())
    if left:
        lines.append(f"{left} patients, who have no patches or were left out to save time.")
    if content.manifest.precision != job.config.distill.precision:
        lines.append(
            "Fine-tuning while the package was compressed: shadows are only rounded as it is."
        )
    if judged["tests"]["singling_out"]["canaries"] is None:
        lines.append("Canaries: patients who stand out, and whom a recipe would betray first.")
    verdicts = judged["verdicts"].values()
    return lines + [verdict["words"] for verdict in verdicts if verdict["leaks"] is None]


def _pairs(
    pool: Pool, measured: Measured, content: package.Package, patients: np.ndarray, who: Who
) -> list[Pair]:
    """Cuts out the distilled images that are nearest to a member, compared with others."""
    chosen = judging.balanced(who, 0)
    distances, members = measured.distances["pixels"][:, chosen], who.members[chosen]
    ratios = reconstruction.nearer_to_members(distances, members)
    images = np.asarray(content.distilled.images)
    images = images.reshape(-1, *images.shape[2:])[measured.shown]
    names, size = np.unique(pool.cohort.patients), images.shape[1]
    pairs = []
    for image in np.argsort(ratios, kind="stable")[:_PAIRS]:
        sides = []
        for side in (members, ~members):
            there = np.flatnonzero(side)
            nearest = there[distances[image, there].argmin()]
            row = measured.nearest[image, chosen[nearest]]
            pixels = measuring.cut(pool.cohort, pool.table, np.array([row]), size)[0]
            name = str(names[patients[chosen[nearest]]])
            sides.append(Side(pixels, name, float(distances[image, nearest])))
        pairs.append(Pair(images[image], *sides))
    return pairs
