"""How good a package is: patches, whole images, baselines, the ceiling, pictures for the report."""

import contextlib
import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gxdistill import package, storage
from gxdistill.distill import views
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, likeness, metrics, patches, reliability, thresholds
from gxdistill.evaluation.patches import PatchGrid
from gxdistill.jobs.job import Job
from gxdistill.pytrees import Cohort, Distilled, Metadata, Network, Params
from gxdistill.receive.networks import Trained, replay_package
from gxdistill.tasks.distillation import baseline_networks, sites
from gxdistill.tasks.distillation.real_training import ceiling

_SHOWN = 4  # Whole test images of the report.
_CHANCE = 0.5  # AUC of any score that knows nothing; HM of such a decision at its best.


class _Decided(NamedTuple):
    """Test images as R networks score them, `[R, n]`, and each network's own tau, `[R]`."""

    scores: np.ndarray
    taus: np.ndarray


def decides_images(cohort: Cohort) -> bool:
    """Tells whether whole images are decided: where their labels are negative and positive."""
    return len(cohort.label_names) == 2


def _training_sample(job: Job) -> Cohort:
    """Draws the training images that thresholds are chosen on."""
    order = np.random.default_rng(job.config.seed).permutation(len(job.cohorts.train.labels))
    return job.cohorts.train.select(np.sort(order[: job.config.evaluate.threshold_images]))


def _thresholds_on(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Chooses a tau for each row of scores; NaN where a class has no decidable image."""
    taus = np.full(len(scores), np.nan)
    for i, row in enumerate(scores):
        with contextlib.suppress(metrics.UndefinedError):
            taus[i] = decision.choose_threshold(row, labels)
    return taus


def _scoring(
    job: Job, on_training: np.ndarray, sample: Cohort
) -> tuple[tuple[float, ...], patches.Score]:
    """Fits how images are scored from their patches, on training images.

    Args:
      job: whose rule.
      on_training: probabilities of their patches, `[R, n_images, n_patches, K]`.
      sample: the training images.

    Returns:
      The weights of the rule, and the score.
    """
    rule, corners = job.config.decision.rule, job.cohorts.patch_grid.corners(sample)
    weights = decision.fit_weights(rule, on_training, sample.labels, corners)
    return weights, partial(decision.score, rule, corners=corners, weights=weights)


def _patch_accuracy(job: Job, probabilities: np.ndarray) -> dict[str, Any]:
    corners = job.cohorts.patch_grid.corners(job.cohorts.test)
    return dict(patches.patch_accuracy(probabilities, job.cohorts.tables["test"], corners))


def _roc(scores: np.ndarray, cohort: Cohort) -> Metadata | None:
    """Averages the networks' ROC curves over the decided images, at equal false positives.

    Pooled scores would measure how alike the networks' scales are, too.
    """
    grid = np.linspace(0, 1, 201)
    curves = []
    for row in scores:
        decided = ~np.isnan(row)
        try:
            false_positive, true_positive, _ = metrics.roc_curve(
                row[decided], cohort.labels[decided]
            )
        except metrics.UndefinedError:
            return None
        curves.append(np.interp(grid, false_positive, true_positive))
    return {"false_positive": grid.tolist(), "true_positive": np.mean(curves, axis=0).tolist()}


def for_package(
    job: Job, params: Params
) -> tuple[package.Decision | None, package.Likeness | None, Metadata]:
    """Gives a new package its threshold and its figures: of all its networks together.

    The one tau, the share of images that it calls positive and what images are like are of training
    patients only.

    Returns:
      The manifest's `decision`, `likeness` and `results`; no decision and likeness where images are
      not decided, or a class has no decidable image, so that there is no threshold.
    """
    network, test, grid = job.problem.network, job.cohorts.test, job.cohorts.patch_grid
    probabilities = patches.predict(network, params, test, grid)
    results = _patch_accuracy(job, probabilities)
    if not decides_images(test):
        return None, None, results
    sample = _training_sample(job)
    training = patches.predict(network, params, sample, grid)
    weights, score = _scoring(job, training, sample)
    scores = patches.joint_scores(training, score)
    (tau,) = _thresholds_on(scores, sample.labels).tolist()
    if np.isnan(tau):
        return None, None, results
    results["images"] = patches.whole_images(patches.joint_scores(probabilities, score), test, tau)
    share = thresholds.share_positive(scores[0], tau)
    summary = likeness.summarise(likeness.describe_images(sample.images, training.mean(axis=0)))
    told = None if summary is None else package.Likeness(**summary)
    rule = job.config.decision.rule
    return package.Decision(rule, weights, tau, share, len(probabilities)), told, results


def on_distilled(job: Job, params: Params, data: Distilled) -> package.Decision | None:
    """Gives a package a threshold without a look at a patient: chosen on its own patches.

    Each distilled patch counts as an image whose label is the most probable one. What a threshold
    chosen on training patients is better by, it tells of them.

    Returns:
      None where images are not decided, or the patches are of one class.
    """
    cohort = job.cohorts.source.cohort
    if not decides_images(cohort):
        return None
    network, rule = job.problem.network, job.config.decision.rule
    images = data.images.reshape(-1, *job.problem.shape)
    apply = jax.jit(lambda params: jax.nn.softmax(network.apply(params, images)))
    probabilities = np.asarray(jax.lax.map(apply, params)).mean(axis=0)
    labels = np.asarray(data.labels).reshape(len(images), -1).argmax(axis=1)
    labels -= cohort.masks is not None  # Class 0 is then "irrelevant".
    scores = decision.score(rule, probabilities[:, None])
    kept = labels >= 0
    (tau,) = _thresholds_on(scores[None, kept], labels[kept]).tolist()
    networks = len(jax.tree.leaves(params)[0])
    return None if np.isnan(tau) else package.Decision(rule, (), tau, None, networks)


def evaluate_package(
    job: Job, path: Path, trained: Trained, others: Sequence[Trained] = ()
) -> Metadata:
    """Evaluates trained networks, beside baselines and the ceiling where the config asks for them.

    Writes `evaluation.json` and `heatmaps.npz` into the working folder.

    Args:
      job: with the cohort.
      path: folder of the package.
      trained: on the package; what the report is about.
      others: networks of other kinds, trained on it, too.

    Returns:
      What `evaluation.json` holds.

    Raises:
      UserError: the package does not fit the cohort or its patches.
    """
    content = package.load(path)
    manifest = content.manifest
    _check_fits(job, manifest)
    job.log("evaluating the distilled set")
    # Receivers have no other normalisation than the package's.
    grid = job.cohorts.patch_grid._replace(normalise=manifest.normalisation)
    figures, probabilities, decided = _judged(job, trained.network, trained.params, grid)
    if decided is not None and not np.isnan(decided.taus[0]):
        _save_heatmaps(job, probabilities[0], decided)
    if (how := manifest.decision) is not None:
        # What a receiver gets who has no labelled images to choose a threshold on.
        corners = grid.corners(job.cohorts.test)
        score = partial(decision.score, how.rule, corners=corners, weights=how.weights)
        scores = patches.joint_scores(probabilities, score)
        figures["at_package_tau"] = patches.whole_images(scores, job.cohorts.test, how.tau)
    contenders = {"distilled": {**figures, "networks": dict(trained.record)}}
    is_package_network = trained.record["network"] == package.to_json(manifest.network)
    otherwise = _otherwise(job, trained) if is_package_network else {}
    for name, (change, training) in otherwise.items():
        job.log(f"evaluating the distilled set: {name}")
        params = replay_package(content, trained.network, {**trained.record, **change}, **training)
        contenders[name] = _judged(job, trained.network, params, grid)[0]
    contenders |= {
        f"on_{other.record['network']['name']}": _on(job, other, grid) for other in others
    }
    if job.config.evaluate.baselines != "none":
        job.log("training the ceiling on all real patches")
        best = ceiling(job)
        real = {"all_patches": best}
        if job.config.evaluate.baselines == "all":
            real = dict(baseline_networks.trained(job, content.distilled, best)) | real
        network, real_grid = job.problem.network, job.cohorts.patch_grid
        contenders |= {
            name: _judged(job, network, params, real_grid)[0] for name, params in real.items()
        }
    result = {
        "name": manifest.name,
        "package_bytes": package.size_bytes(path),
        "cohort_bytes": int(job.cohorts.source.cohort.images.nbytes),
        "contenders": contenders,
        "shares": _shares(contenders, job.cohorts.classes),
    }
    storage.write_json(job.workdir / "evaluation.json", result)
    return result


def _on(job: Job, trained: Trained, grid: PatchGrid) -> dict[str, Any]:
    job.log(f"evaluating the distilled set on {trained.record['network']['name']}")
    figures, _, _ = _judged(job, trained.network, trained.params, grid)
    return {**figures, "networks": dict(trained.record)}


def _otherwise(job: Job, trained: Trained) -> dict[str, tuple[Metadata, dict[str, Any]]]:
    """Lists what shows how much is lost where a package is not trained on as it says.

    Returns:
      By contender, what differs in the start, as `Trained.record` holds it, and in the training.
    """
    variants: dict[str, tuple[Metadata, dict[str, Any]]] = {}
    if trained.record["init"] == "known":
        fresh = {"init": "fresh", "count": job.config.evaluate.networks, "seed": job.config.seed}
        variants["fresh_networks"] = fresh, {}
    if job.config.evaluate.baselines == "all":
        variants["hard_labels"] = {}, {"view": views.hard_labels, "rule": "raw"}
        variants["shuffled"] = {}, {"view": views.shuffled}
    return variants


def _check_fits(job: Job, manifest: package.Manifest) -> None:
    here = job.cohorts.geometry
    for field in dataclasses.fields(here):
        made_with, value = getattr(manifest.patch, field.name), getattr(here, field.name)
        if made_with != value:
            raise UserError(
                f"The package was made with patch.{field.name} = {made_with!r}, and here it is "
                f"{value!r}. Evaluate it with the config that it was made with."
            )
    way = job.cohorts.source.recipe.normalise
    if manifest.image_normalisation != way:
        raise UserError(
            f"The package was made with data.normalise = {manifest.image_normalisation!r}, and "
            f"here it is {way!r}. Evaluate it with the config that it was made with."
        )
    names = job.cohorts.source.cohort.class_names
    if manifest.class_names != names:
        raise UserError(
            f"The package knows the classes {', '.join(manifest.class_names)}, the cohort "
            f"{', '.join(names)}. Evaluate it on a cohort of its kind."
        )


def _judged(
    job: Job, network: Network, params: Params, grid: PatchGrid
) -> tuple[dict[str, Any], np.ndarray, _Decided | None]:
    """Measures networks on the test patients; the same way for all contenders.

    Args:
      job: whose cohort and patches.
      network: what the weights belong to.
      params: weights of R networks, each leaf with a leading axis R.
      grid: how patches become the networks' input.

    Returns:
      The figures, as JSON can hold them; the probabilities `[R, n_images, n_patches, K]`; and
      scores and thresholds, where whole images are decided.
    """
    probabilities = patches.predict(network, params, job.cohorts.test, grid)
    figures = _patch_accuracy(job, probabilities)
    if not decides_images(job.cohorts.test):
        return figures, probabilities, None
    sample = _training_sample(job)
    on_training = patches.predict(network, params, sample, grid)
    _, score = _scoring(job, on_training, sample)
    taus = _thresholds_on(patches.image_scores(on_training, score), sample.labels)
    scores = patches.image_scores(probabilities, score)
    figures["images"] = patches.whole_images(scores, job.cohorts.test, taus)
    figures["roc"] = _roc(scores, job.cohorts.test)
    joint = patches.joint_scores(probabilities, score)[0]
    figures["reliability"] = reliability.summarise(joint, job.cohorts.test.labels)
    figures |= sites.apart(job, scores, taus)
    if job.cohorts.external is not None:
        scored = patches.joint_scores(on_training, score), sample.labels
        there = patches.predict(network, params, job.cohorts.external, grid)
        figures["external"] = sites.external(job, there, taus, score, scored)
    return figures, probabilities, _Decided(scores, taus)


def _shares(contenders: Metadata, classes: int) -> Metadata:
    """The share of the ceiling that the distilled set reaches, by figure.

    None where the ceiling itself is no better than chance: a share of that says nothing.
    """
    if "all_patches" not in contenders:
        return {}
    ours, ceiling = contenders["distilled"], contenders["all_patches"]
    name = "balanced_patch_accuracy"
    shares = {name: _share(ours[name], ceiling[name], 1 / classes)}
    for figure in ("hm", "auc"):
        both = [part.get("images", {}).get(figure) for part in (ours, ceiling)]
        if all(both):
            shares[figure] = _share(both[0], both[1], _CHANCE)
    return shares


def _share(ours: Metadata, ceiling: Metadata, chance: float) -> float | None:
    return ours["mean"] / ceiling["mean"] if ceiling["mean"] > chance else None


def _save_heatmaps(job: Job, probabilities: np.ndarray, decided: _Decided) -> None:
    """Keeps what the report draws, of the first network: test images, half of them positive."""
    rng, labels = np.random.default_rng(job.config.seed), job.cohorts.test.labels
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(labels == label))[: _SHOWN // 2] for label in (0, 1)]
    )
    scores, tau = decided.scores[0, chosen], decided.taus[0]
    part = job.cohorts.test.select(chosen)
    storage.write_arrays(
        job.workdir / "heatmaps.npz",
        images=np.asarray(part.images)[..., 0],
        probabilities=probabilities[chosen],
        corners=job.cohorts.patch_grid.corners(job.cohorts.test),
        size=np.array(job.cohorts.patch_grid.size),
        labels=part.labels,
        names=part.names,
        scores=scores,
        decisions=decision.decide(scores, tau),
        tau=np.array(tau),
    )


def as_text(result: Metadata) -> str:
    """Lays the figures of an evaluation out as a table for people."""
    lines = [f"{'':<16}{'patch accuracy':>16}{'Sen':>8}{'Spe':>8}{'HM':>8}{'AUC':>8}"]
    for name, figures in result["contenders"].items():
        cells = [_cell(figures["balanced_patch_accuracy"], 16)]
        images = figures.get("images", {})
        cells += [_cell(images.get(figure), 8) for figure in ("sen", "spe", "hm", "auc")]
        lines.append(f"{name:<16}{''.join(cells)}")
    for name, share in result["shares"].items():
        told = "- (the ceiling is at chance)" if share is None else f"{share:.3f}"
        lines.append(f"share of the ceiling, {name}: {told}")
    lines += _lines_on_sites(result["contenders"])
    if bins := result["contenders"]["distilled"].get("reliability"):
        lines.append(
            f"distilled, scores of the networks together as probabilities: Brier score "
            f"{bins['brier']:.3f}, expected calibration error {bins['ece']:.3f}"
        )
    at_package_tau = result["contenders"]["distilled"].get("at_package_tau")
    if at_package_tau and at_package_tau["hm"]:
        lines.append(
            f"distilled, HM of the networks together, at the package's tau: "
            f"{_cell(at_package_tau['hm'], 0)}"
        )
    ratio = result["cohort_bytes"] / result["package_bytes"]
    lines.append(f"package: {result['package_bytes']} bytes, 1/{ratio:.0f} of the images")
    return "\n".join(lines)


def _lines_on_sites(contenders: Metadata) -> list[str]:
    lines = []
    for name, figures in contenders.items():
        sites_apart = figures.get("sites", {}) if name == "distilled" else {}
        for site, part in sites_apart.items():
            lines.append(f"{name}, site {site}: HM {_cell(part['hm'])}, AUC {_cell(part['auc'])}")
        if there := sites.elsewhere(figures):
            lines.append(
                f"{name}, site {figures['external']['site']}, of which nothing was learned: "
                f"AUC {_cell(there['auc'])}, HM {_cell(there['hm'])}, "
                f"at a threshold set on its images without labels {_cell(there['hm_unlabelled'])}"
            )
    return lines


def _cell(figure: Metadata | None, width: int = 0) -> str:
    return f"{'-' if figure is None else format(figure['mean'], '.3f'):>{width}}"
