import dataclasses
import itertools
import json
import shutil

import jax
import numpy as np
import pytest

from gxdistill import package
from gxdistill.distill import replay
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, patches, zones
from gxdistill.package.seeds import Use
from gxdistill.receive import networks
from gxdistill.tasks.distillation import assessing
from tests import small_jobs
from tests.packages import change


@pytest.fixture(scope="module")
def evaluation(run):
    return json.loads((run / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return small_jobs.make(tmp_path_factory.mktemp("job"))


def _classes(run, cohort):
    """Predicted classes of all patches, `[n_images, rows, cols]`, by the first trained network."""
    content = package.load(run / "package.gxd")
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    params = jax.tree.map(lambda leaf: leaf[0], trained.params)
    mean, std = (values[0] for values in content.manifest.normalisation)
    windows = np.lib.stride_tricks.sliding_window_view(cohort.images[..., 0], (16, 16), (1, 2))
    patches = windows[:, ::8, ::8]
    pixels = (patches.reshape(-1, 16, 16, 1) / 255 - mean) / std
    logits = jax.jit(trained.network.apply)(params, pixels.astype(np.float32))
    return np.asarray(logits).argmax(-1).reshape(patches.shape[:3])


def _shares_of_positive(classes):
    return np.array(
        [(predicted == 2).sum() / np.isin(predicted, (1, 2)).sum() for predicted in classes]
    )


def _sen_spe(scores, labels, tau):
    return (scores >= tau)[labels == 1].mean(), (scores < tau)[labels == 0].mean()


def test_the_figures_are_those_of_a_loop_over_patches_and_images(run, evaluation, job):
    figures = evaluation["contenders"]["distilled"]
    classes, table = _classes(run, job.cohorts.test), job.cohorts.tables["test"]
    predicted = classes[table.image, table.row // 8, table.col // 8]
    recalls = [(predicted[table.label == label] == label).mean() for label in range(3)]
    assert figures["balanced_patch_accuracy"]["mean"] == pytest.approx(np.mean(recalls))

    scores, labels = _shares_of_positive(classes), job.cohorts.test.labels
    images = figures["images"]
    sen, spe = _sen_spe(scores, labels, images["tau"])
    pairs = itertools.product(scores[labels == 1], scores[labels == 0])
    auc = np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs])
    assert images["sen"]["mean"] == pytest.approx(sen)
    assert images["spe"]["mean"] == pytest.approx(spe)
    assert images["hm"]["mean"] == pytest.approx(2 * sen * spe / (sen + spe) if sen + spe else 0)
    assert images["auc"]["mean"] == pytest.approx(auc)
    curve = figures["roc"]
    area = np.trapezoid(curve["true_positive"], curve["false_positive"])
    assert area == pytest.approx(auc, abs=1 / 200)


def test_the_threshold_is_the_best_of_the_training_patients(run, evaluation, job):
    scores, labels = _shares_of_positive(_classes(run, job.cohorts.train)), job.cohorts.train.labels

    def harmonic_mean(tau):
        sen, spe = _sen_spe(scores, labels, tau)
        return 2 * sen * spe / (sen + spe) if sen + spe else 0

    best = max(map(harmonic_mean, np.linspace(0, 1, 2001)))
    taus = evaluation["contenders"]["distilled"]["images"]["tau"]
    of_package = package.load(run / "package.gxd").manifest.decision.tau
    assert harmonic_mean(taus) == pytest.approx(best)
    assert harmonic_mean(of_package) == pytest.approx(best)


def test_the_package_carries_the_figures_of_its_one_network(run, evaluation):
    results = package.load(run / "package.gxd").manifest.results
    ours = evaluation["contenders"]["distilled"]
    assert results["balanced_patch_accuracy"] == ours["balanced_patch_accuracy"]
    assert results["images"] == ours["at_package_tau"]


def test_sizes_and_shares_are_ratios_of_what_is_there(run, evaluation):
    assert evaluation["package_bytes"] == (run / "package.gxd").stat().st_size
    assert evaluation["cohort_bytes"] == 16 * 128 * 128
    contenders = evaluation["contenders"]
    for figure in ("hm", "auc"):
        ours, ceiling = (
            contenders[name]["images"][figure]["mean"] for name in ("distilled", "all_patches")
        )
        share = evaluation["shares"].get(figure)
        assert share == (pytest.approx(ours / ceiling) if ceiling > 0.5 else None)
    text = assessing.as_text(evaluation).splitlines()
    for line, (name, figures) in zip(text[1:], contenders.items(), strict=False):
        accuracy = figures["balanced_patch_accuracy"]["mean"]
        assert line.split()[:2] == [name, f"{accuracy:.3f}"]
    assert text[-1].startswith(f"package: {evaluation['package_bytes']} bytes, 1/")


def test_heat_maps_are_of_test_images_of_both_labels(run, job):
    with np.load(run / "heatmaps.npz") as maps:
        maps = dict(maps)
    assert maps["labels"].tolist() == [0, 0, 1, 1]
    rows = [job.cohorts.test.names.tolist().index(name) for name in maps["names"]]
    np.testing.assert_array_equal(maps["images"], job.cohorts.test.images[rows, ..., 0])
    np.testing.assert_array_equal(maps["labels"], job.cohorts.test.labels[rows])
    np.testing.assert_allclose(maps["probabilities"].sum(-1), 1, atol=1e-5)
    classes = maps["probabilities"].argmax(-1)
    np.testing.assert_allclose(maps["scores"], _shares_of_positive(classes))
    np.testing.assert_array_equal(maps["decisions"], maps["scores"] >= maps["tau"])


def test_zones_are_weighed_on_training_patients_and_decide_test_patients(run, tmp_path):
    job = small_jobs.make(tmp_path, evaluate__baselines="none", decision__rule="zones")
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    made, _, _ = assessing.for_package(job, trained.params)
    odds = [
        zones.log_odds(
            patches.predict(trained.network, trained.params, cohort, job.cohorts.patch_grid)[0],
            job.cohorts.patch_grid.corners(cohort),
        )
        for cohort in (job.cohorts.train, job.cohorts.test)
    ]
    weights = zones.fit(odds[0], job.cohorts.train.labels)
    on_train, on_test = (zones.chances(of_part, weights) for of_part in odds)
    assert made.rule == "zones"
    np.testing.assert_allclose(made.weights, weights, rtol=1e-12)
    assert made.tau == decision.choose_threshold(on_train, job.cohorts.train.labels)

    path, labels = tmp_path / "p.gxd", job.cohorts.test.labels
    package.save(path, change(package.load(run / "package.gxd"), decision=made))
    result = assessing.evaluate_package(job, path, trained)["contenders"]["distilled"]
    pairs = itertools.product(on_test[labels == 1], on_test[labels == 0])
    auc = np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs])
    assert result["images"]["auc"]["mean"] == pytest.approx(auc)
    sen, spe = _sen_spe(on_test, labels, made.tau)
    assert result["at_package_tau"]["sen"]["mean"] == pytest.approx(sen)
    assert result["at_package_tau"]["spe"]["mean"] == pytest.approx(spe)
    with np.load(tmp_path / "heatmaps.npz") as maps:
        rows = [job.cohorts.test.names.tolist().index(name) for name in maps["names"]]
        np.testing.assert_allclose(maps["scores"], on_test[rows])


def test_baselines_are_left_out_where_none_are_asked_for(run, tmp_path):
    job = small_jobs.make(tmp_path, evaluate__baselines="none")
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    result = assessing.evaluate_package(job, run / "package.gxd", trained)
    assert list(result["contenders"]) == ["distilled", "fresh_networks"]
    assert result["shares"] == {}
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    assert "share" not in assessing.as_text(result)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch__stride": 16}, r"patch\.stride = 8, and here it is 16"),
        ({"patch__border": True}, r"patch\.border = False, and here it is True"),
        ({"patch__inside_above": 0.5}, r"patch\.inside_above = 0\.6, and here it is 0\.5"),
    ],
)
def test_a_package_of_another_geometry_is_refused(changes, message, run, tmp_path):
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    with pytest.raises(UserError, match=message):
        assessing.evaluate_package(
            small_jobs.make(tmp_path, **changes), run / "package.gxd", trained
        )
    assert not (tmp_path / "evaluation.json").exists()


def test_a_package_of_other_classes_is_refused(run, tmp_path):
    small_jobs.write_cohort(tmp_path / "cohort", side=128)
    changes = {"data__kind": "manifest", "data__path": str(tmp_path / "cohort")}
    job = small_jobs.make(tmp_path, data__label_names=("healthy", "ill"), **changes)
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    with pytest.raises(UserError, match="non-gastritis, gastritis, the cohort irrelevant, healthy"):
        assessing.evaluate_package(job, run / "package.gxd", trained)


def test_images_are_decided_where_labels_are_negative_and_positive(job):
    cohort = job.cohorts.test
    assert assessing.decides_images(cohort)
    assert assessing.decides_images(
        dataclasses.replace(cohort, masks=None, class_names=("negative", "positive"))
    )
    for masks, names in ((cohort.masks, "ab"), (None, "abc"), (None, "0123456789")):
        other = dataclasses.replace(cohort, masks=masks, class_names=tuple(names))
        assert not assessing.decides_images(other)


def test_without_masks_an_image_is_scored_by_all_its_patches(tmp_path):
    small_jobs.write_cohort(tmp_path, masks=False)
    job = small_jobs.make(tmp_path, data__kind="manifest", data__path=str(tmp_path))
    assert job.cohorts.source.cohort.class_names == ("non-gastritis", "gastritis")
    params = jax.vmap(job.problem.network.init)(jax.random.split(jax.random.key(0), 2))
    decided, told, results = assessing.for_package(job, params)
    assert decided.networks == 2
    probabilities = patches.predict(
        job.problem.network, params, job.cohorts.test, job.cohorts.patch_grid
    )
    assert probabilities.shape == (2, 4, 49, 2)
    shares = (probabilities.mean(0).argmax(-1) == 1).mean(-1)  # both networks together
    sen = (shares >= decided.tau)[job.cohorts.test.labels == 1].mean()
    assert results["images"]["sen"]["mean"] == pytest.approx(sen)
    assert results["images"]["undecidable"] == 0
    assert results["balanced_patch_accuracy"]["n"] == 2
    train = job.cohorts.train
    training = patches.predict(job.problem.network, params, train, job.cohorts.patch_grid).mean(0)
    shares = (training.argmax(-1) == 1).mean(-1)
    assert decided.share_positive == np.mean([share >= decided.tau for share in shares])
    assert told is None  # of four images no deviation could be believed
    assert len(train.labels) < 8


def test_a_package_says_what_its_training_images_were_like(run, tmp_path):
    job = small_jobs.make(tmp_path)
    about = package.load(run / "package.gxd").manifest
    images = job.cohorts.train.images
    assert about.likeness.images == len(images) <= job.config.evaluate.threshold_images
    means = [float(image.mean()) for image in images]
    deviations = [float(image.std()) for image in images]
    for name, values in (("mean", means), ("std", deviations)):
        pair = [np.mean(values), np.std(values, ddof=1)]
        assert about.likeness.features[name] == pytest.approx(pair)
    shares = [about.likeness.features[f"probability_{k}"][0] for k in range(3)]
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_pixels_are_normalised_as_the_package_says(run, tmp_path):
    job = small_jobs.make(
        tmp_path, seed=1, evaluate__baselines="none"
    )  # other patients, as at a partner
    manifest = package.load(run / "package.gxd").manifest
    assert manifest.normalisation.mean != job.cohorts.normalisation.mean
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    result = assessing.evaluate_package(job, run / "package.gxd", trained)
    images = result["contenders"]["distilled"]["at_package_tau"]
    scores = _shares_of_positive(_classes(run, job.cohorts.test))
    sen, spe = _sen_spe(scores, job.cohorts.test.labels, manifest.decision.tau)
    assert images["sen"]["mean"] == pytest.approx(sen)
    assert images["spe"]["mean"] == pytest.approx(spe)


def test_what_a_known_start_is_worth_elsewhere_is_that_of_fresh_networks(run, evaluation, job):
    figures = evaluation["contenders"]["fresh_networks"]["balanced_patch_accuracy"]
    content, count = package.load(run / "package.gxd"), job.config.evaluate.networks
    keys = jax.random.split(job.key(Use.FRESH), count)  # Of the job's own seed.
    params = replay.replay_many(job.problem.network, keys, content.distilled, rule="raw")
    table = job.cohorts.tables["test"]
    patches = np.stack(
        [
            job.cohorts.test.images[i, r : r + 16, c : c + 16]
            for i, r, c in zip(table.image, table.row, table.col, strict=True)
        ]
    )
    accuracies = []
    for i in range(count):
        logits = job.problem.network.apply(
            jax.tree.map(lambda leaf, i=i: leaf[i], params), job.cohorts.normalisation(patches)
        )
        predicted = np.asarray(logits).argmax(-1)
        recalls = [(predicted[table.label == label] == label).mean() for label in range(3)]
        accuracies.append(np.mean(recalls))
    assert figures["mean"] == pytest.approx(np.mean(accuracies))
    assert figures["n"] == count


def test_hard_labels_are_judged_on_the_start_of_the_package(run, evaluation, job):
    content = package.load(run / "package.gxd")
    hard = np.eye(3, dtype=np.float32)[content.distilled.labels.argmax(-1)]
    data = content.distilled.replace(labels=hard)
    params = replay.replay(job.problem.network, content.start, data, rule="raw")
    probabilities = patches.predict(
        job.problem.network,
        jax.tree.map(lambda leaf: leaf[None], params),
        job.cohorts.test,
        job.cohorts.patch_grid,
    )
    expected = assessing._patch_accuracy(job, probabilities)["balanced_patch_accuracy"]
    figures = evaluation["contenders"]["hard_labels"]["balanced_patch_accuracy"]
    assert figures["mean"] == pytest.approx(expected["mean"])


def test_of_networks_of_another_kind_nothing_but_ordinary_training_is_judged(run, tmp_path):
    job = small_jobs.make(tmp_path, evaluate__baselines="none")
    trained = networks.train_networks(run / "package.gxd", name="lenet", count=1)
    result = assessing.evaluate_package(job, run / "package.gxd", trained)
    assert list(result["contenders"]) == ["distilled"]
    figures = result["contenders"]["distilled"]
    assert figures["networks"]["network"]["name"] == "lenet"
    assert 0 < figures["balanced_patch_accuracy"]["mean"] < 1


def test_a_changed_package_is_not_evaluated(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    trained = networks.load_networks(run / "networks", run / "package.gxd")
    path = tmp_path / "run/package.gxd"
    path.write_bytes(path.read_bytes().replace(b'"rule": "counts"', b'"rule": "soft"  '))
    with pytest.raises(UserError, match="was damaged or changed"):
        assessing.evaluate_package(small_jobs.make(tmp_path / "run"), path, trained)
