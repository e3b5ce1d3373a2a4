"""Sites measured apart: each of the test patients', and one that nothing was learned from."""

from collections.abc import Mapping

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, patches, thresholds
from gxdistill.jobs.job import Job
from gxdistill.pytrees import Metadata

_SHOWN = ("distilled", "all_patches")


def apart(job: Job, scores: np.ndarray, taus: np.ndarray) -> Metadata:
    """Measures decisions on the test patients of each site by itself.

    Args:
      job: whose test patients.
      scores: of their images, `[R, n]`.
      taus: `[R]`, each network's own.

    Returns:
      `sites`, by name what `patches.whole_images` says; nothing where there is one site alone.
    """
    test = job.cohorts.test
    names = sorted(set(test.sites.tolist()))
    if len(names) < 2:
        return {}
    parts = {name: test.sites == name for name in names}
    return {
        "sites": {
            name: patches.whole_images(scores[:, rows], test.select(rows), taus)
            for name, rows in parts.items()
        }
    }


def external(
    job: Job,
    probabilities: np.ndarray,
    taus: np.ndarray,
    score: patches.Score,
    scored: tuple[np.ndarray, np.ndarray],
) -> Metadata:
    """Measures networks on all patients of the site that nothing was learned from.

    Args:
      job: with a site that is kept out.
      probabilities: of the patches of its images, `[R, n_images, n_patches, K]`.
      taus: `[R]`, each network's own, of the training patients.
      score: how images are scored from their patches.
      scored: scores `[1, n]` of training images by the networks together, and their labels.

    Returns:
      `site`; `images`, at the networks' own thresholds, which a sender would send along; `joint`,
      of the networks together at the threshold that a receiver sets on the images without labels,
      such that as large a share of them is positive as of the training images.
    """
    cohort = job.cohorts.external
    assert cohort is not None
    figures = {
        "site": job.config.data.external,
        "images": patches.whole_images(patches.image_scores(probabilities, score), cohort, taus),
    }
    (row,), labels = scored
    joint = patches.joint_scores(probabilities, score)
    if np.isnan(joint).all() or len(set(labels[~np.isnan(row)].tolist())) < 2:
        return figures
    share = thresholds.share_positive(row, decision.choose_threshold(row, labels))
    tau = thresholds.by_share(joint[0], share).tau
    return {**figures, "joint": patches.whole_images(joint, cohort, tau)}


def elsewhere(contender: Metadata) -> Metadata:
    """Picks out what was measured at the site that nothing was learned from.

    Args:
      contender: of an evaluation.

    Returns:
      The figures `auc`, `hm`, and `hm_unlabelled`: the last at a threshold that was set on the
      site's images without labels, None where there is none. Nothing where no site was kept out.
    """
    if "external" not in contender:
        return {}
    there = contender["external"]
    images, joint = there["images"], there.get("joint", {})
    return {"auc": images.get("auc"), "hm": images.get("hm"), "hm_unlabelled": joint.get("hm")}


def names_of(job: Job) -> list[str]:
    """Lists the sites of a cohort, each of which can be kept out.

    Raises:
      UserError: there are not two at least, images are of none, or one is kept out already.
    """
    if site := job.config.data.external:
        raise UserError(f"data.external is {site!r}; here each site is kept out in turn. Unset it.")
    names = sorted(set(job.cohorts.source.cohort.sites.tolist()))
    if len(names) < 2 or "" in names:
        known = ", ".join(map(repr, names))
        raise UserError(
            f"The sites of the cohort are {known or 'not stated'}; to keep each out in turn takes "
            f"two at least, and a site for each image. Name them in a column `site`."
        )
    return names


def summarise(job: Job, evaluations: Mapping[str, Metadata]) -> Metadata:
    """Keeps what was measured at sites, each of which nothing was learned from, in `sites.json`.

    Args:
      job: in whose working folder.
      evaluations: by the site that was kept out.

    Returns:
      By site, for the package and for the ceiling, the figures of `elsewhere`.
    """
    told = {
        site: {
            name: figures
            for name in _SHOWN
            if (figures := elsewhere(evaluation["contenders"].get(name, {})))
        }
        for site, evaluation in evaluations.items()
    }
    storage.write_json(job.workdir / "sites.json", told)
    return told


def as_text(told: Metadata) -> str:
    """Lays out what `summarise` says: a line for each site and contender."""
    names = ["kept out", *told, *(name for contenders in told.values() for name in contenders)]
    width = max(map(len, names)) + 2
    lines = [
        f"{'kept out':<{width}}{'':<{width}}{'AUC':>8}{'HM':>8}{'HM, threshold unlabelled':>26}"
    ]
    for site, contenders in told.items():
        for name, figures in contenders.items():
            cells = (
                f"{'-' if figures[key] is None else format(figures[key]['mean'], '.3f'):>{wide}}"
                for key, wide in (("auc", 8), ("hm", 8), ("hm_unlabelled", 26))
            )
            lines.append(f"{site:<{width}}{name:<{width}}{''.join(cells)}")
    return "\n".join(lines)
