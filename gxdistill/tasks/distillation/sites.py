"""Sites measured apart: each of the test patients', and one that nothing was learned from."""

import numpy as np

from gxdistill.evaluation import decision, patches, thresholds
from gxdistill.evaluation.patches import PatchGrid
from gxdistill.jobs.job import Job
from gxdistill.pytrees import Metadata, Network, Params


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
    network: Network,
    params: Params,
    grid: PatchGrid,
    taus: np.ndarray,
    scored: tuple[np.ndarray, np.ndarray],
) -> Metadata:
    """Measures networks on all patients of the site that nothing was learned from.

    Args:
      job: with a site that is kept out.
      network: what the weights belong to.
      params: weights of R networks, each leaf with a leading axis R.
      grid: how patches become the networks' input.
      taus: `[R]`, each network's own, of the training patients.
      scored: scores `[1, n]` of training images by the networks together, and their labels.

    Returns:
      `site`; `images`, at the networks' own thresholds, which a sender would send along; `joint`,
      of the networks together at the threshold that a receiver sets on the images without labels,
      such that as large a share of them is positive as of the training images.
    """
    cohort = job.cohorts.external
    assert cohort is not None
    rule = job.config.decision.rule
    probabilities = patches.predict(network, params, cohort, grid)
    figures = {
        "site": job.config.data.external,
        "images": patches.whole_images(patches.image_scores(probabilities, rule), cohort, taus),
    }
    (row,), labels = scored
    joint = patches.joint_scores(probabilities, rule)
    if np.isnan(joint).all() or len(set(labels[~np.isnan(row)].tolist())) < 2:
        return figures
    share = thresholds.share_positive(row, decision.choose_threshold(row, labels))
    tau = thresholds.by_share(joint[0], share).tau
    return {**figures, "joint": patches.whole_images(joint, cohort, tau)}
