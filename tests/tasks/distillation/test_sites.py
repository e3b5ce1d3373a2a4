import json
from functools import partial

import numpy as np
import pytest

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.evaluation import decision, patches
from gxdistill.tasks.distillation import distilling, method, sites
from tests import small_jobs


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("external")
    return small_jobs.make(folder, data__external="site-1", data__patients=24)


def _auc(scores, labels):
    pairs = [(p, n) for p in scores[labels == 1] for n in scores[labels == 0]]
    return np.mean([(p > n) + 0.5 * (p == n) for p, n in pairs])


def test_nothing_is_learned_from_the_site_that_is_kept_out(job):
    cohorts = job.cohorts
    whole = cohorts.source.cohort
    assert set(cohorts.train.sites) == set(cohorts.test.sites) == {"site-0"}
    assert set(cohorts.external.sites) == {"site-1"}
    assert len(cohorts.external.labels) == (whole.sites == "site-1").sum()
    patients = [set(part.patients) for part in (cohorts.train, cohorts.test, cohorts.external)]
    assert not patients[2] & (patients[0] | patients[1])
    levels = cohorts.train.images / 255
    assert cohorts.normalisation.mean == pytest.approx((levels.mean(),))


def test_the_package_counts_no_image_of_it(job):
    path = distilling.distil(job)
    summary = json.loads((path.parent / "cohort.json").read_text())
    assert summary["external"]["images"] == len(job.cohorts.external.labels)
    counts = package.load(path).manifest.cohort
    assert counts.sites == 1
    assert counts.images == len(job.cohorts.train.labels) + len(job.cohorts.test.labels)


def test_a_site_that_is_not_there_is_named(tmp_path):
    job = small_jobs.make(tmp_path, data__external="elsewhere")
    with pytest.raises(UserError, match="the sites of the cohort are site-0, site-1"):
        _ = job.cohorts.source


def test_the_figures_of_another_site_are_those_of_a_loop(job):
    network = job.problem.network
    weights = distilling.replay_networks(
        job,
        method.to_distilled(
            job.problem,
            job.config.distill,
            method.initial_learned(job.problem, job.config.distill),
        ),
        1,
        job.key(0),
    )
    cohort = job.cohorts.external
    grid = job.cohorts.patch_grid
    training = (np.linspace(0, 1, 40)[None], np.repeat([0, 1], 20))
    taus = np.array([0.5])
    score = partial(decision.score, job.config.decision.rule)
    probabilities = patches.predict(network, weights, cohort, grid)
    figures = sites.external(job, probabilities, taus, score, training)
    scores = patches.image_scores(probabilities, score)[0]
    assert figures["site"] == "site-1"
    decided = ~np.isnan(scores)
    assert decided.sum() > 5
    expected = _auc(scores[decided], cohort.labels[decided])
    assert figures["images"]["auc"]["mean"] == pytest.approx(expected)
    # The threshold of the training scores is their middle: half of the images are positive.
    assert (scores[decided] >= figures["joint"]["tau"]).mean() == pytest.approx(0.5, abs=0.1)


def test_each_site_of_the_test_patients_is_measured_apart(tmp_path):
    job = small_jobs.make(tmp_path, data__patients=24)
    test = job.cohorts.test
    scores = np.random.default_rng(0).uniform(size=(2, len(test.labels)))
    figures = sites.apart(job, scores, np.array([0.4, 0.6]))["sites"]
    assert sorted(figures) == ["site-0", "site-1"]
    for name, part in figures.items():
        rows = test.sites == name
        expected = np.mean([_auc(row[rows], test.labels[rows]) for row in scores])
        assert part["auc"]["mean"] == pytest.approx(expected)
        assert part["images"] == rows.sum()


def test_each_site_can_be_kept_out_if_there_are_several_and_all_are_named(tmp_path):
    cohort = small_jobs.make(tmp_path)
    assert sites.names_of(cohort) == ["site-0", "site-1"]
    with pytest.raises(UserError, match=r"data\.external is 'site-1'; here each site"):
        sites.names_of(small_jobs.make(tmp_path, data__external="site-1"))
    cohort.cohorts.source.cohort.sites[:] = "north"
    with pytest.raises(UserError, match="are 'north'; to keep each out"):
        sites.names_of(cohort)
    cohort.cohorts.source.cohort.sites[0] = ""
    with pytest.raises(UserError, match="a site for each image"):
        sites.names_of(cohort)


def test_the_table_of_sites_shows_the_package_beside_the_ceiling(tmp_path):
    def part(auc):
        return {"external": {"images": {"auc": {"mean": auc}, "hm": {"mean": 0.5}}}}

    contenders = {"class_means": part(0.1), "distilled": part(0.7), "all_patches": part(0.8)}
    evaluations = {"North": {"contenders": contenders}, "South": {"contenders": {}}}
    told = sites.summarise(small_jobs.make(tmp_path), evaluations)
    assert json.loads((tmp_path / "sites.json").read_text()) == told
    assert told["South"] == {}
    assert [line.split() for line in sites.as_text(told).splitlines()[1:]] == [
        ["North", "distilled", "0.700", "0.500", "-"],
        ["North", "all_patches", "0.800", "0.500", "-"],
    ]
