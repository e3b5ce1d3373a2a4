import json
import math
import shutil

import numpy as np
import pytest

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.storage import checkpoint
from gxdistill.tasks.audit import auditing, judging, shadowing
from gxdistill.tasks.audit.measuring import Measured
from gxdistill.tasks.distillation import distilling
from gxdistill.tasks.distillation.repeating import Recipe
from tests import small_jobs

QUICK = auditing.Options(shadows=4, canaries=1)


def _silent(_):
    pass


def _audited(job, path, options=QUICK):
    return auditing.audit(job, path, Recipe(job), options)


@pytest.fixture(scope="module")
def audited(run, tmp_path_factory):
    """A working folder with an audit of the smoke job's package; not to be changed."""
    workdir = tmp_path_factory.mktemp("audited")
    _audited(small_jobs.make(workdir, _silent), run / "package.gxd")
    return workdir


def test_an_audit_has_figures_and_a_verdict_for_each_test(audited):
    result = json.loads((audited / "audit.json").read_text())
    assert set(result["tests"]) == {"singling_out", "linkability", "inference"}
    found = result["tests"]["singling_out"]
    assert (found["members"], found["others"], result["shadows"]) == (8, 8, 4)
    for part in found["attacks"].values():
        area = part["auc"]
        assert 0 <= area["low"] <= area["value"] <= area["high"] <= 1
        assert part["epsilon"] <= found["ceiling"]
    planted = found["canaries"]
    assert planted["single"]["coins"] == 2 * 2
    assert planted["single"]["epsilon"] <= planted["single"]["ceiling"]
    assert result["proven"] is None
    assert all(verdict["words"] for verdict in result["verdicts"].values())


def test_an_audit_that_is_interrupted_ends_as_one_that_is_not(audited, run, tmp_path, monkeypatch):
    saved, save = [], checkpoint.save

    def save_and_interrupt(folder, step, *args, **options):
        save(folder, step, *args, **options)
        saved.append(step)
        if len(saved) % 5 == 0:
            raise KeyboardInterrupt

    job, interrupted = small_jobs.make(tmp_path, _silent), 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        while True:
            try:
                _audited(job, run / "package.gxd")
                break
            except KeyboardInterrupt:
                interrupted += 1
                assert not (tmp_path / "audit.json").exists()
    assert interrupted == 3
    assert len(saved) == 4 * 4  # No step was taken twice.
    for name in ("audit.json", "audit.html"):
        assert (tmp_path / name).read_bytes() == (audited / name).read_bytes()


def test_images_left_at_real_patients_are_told(tmp_path):
    leaky = {"started_from": "real", "outer_steps": 0, "steps": 20, "images_per_step": 6}
    changes = {f"distill__{name}": value for name, value in leaky.items()}
    job = small_jobs.make(tmp_path, _silent, **changes)
    path = distilling.distil(job)
    result = _audited(job, path)
    area = result["tests"]["singling_out"]["attacks"]["lira_images"]["auc"]
    assert area["value"] >= 0.95
    assert result["verdicts"]["singling_out"]["leaks"]
    assert "AUC" in result["verdicts"]["singling_out"]["words"]
    page = (tmp_path / "audit.html").read_text()
    assert "Leaks were found: singling out" in page
    assert "started from real images" in page


def test_a_package_of_another_recipe_or_cohort_is_refused(run, tmp_path):
    path = run / "package.gxd"
    with pytest.raises(UserError, match=r"other settings of distill: epochs \(there 1, here 3\)"):
        _audited(small_jobs.make(tmp_path, distill__epochs=3), path)
    with pytest.raises(UserError, match=r"made with other patch: .*stride=8.*stride=4"):
        _audited(small_jobs.make(tmp_path, patch__stride=4), path)
    with pytest.raises(UserError, match=r"8 test images of 8 patients, and here are 10 of 10"):
        _audited(small_jobs.make(tmp_path, data__patients=18), path)
    assert not (tmp_path / "audit.json").exists()


def test_options_that_cannot_be_are_refused(run, tmp_path):
    job = small_jobs.make(tmp_path)
    with pytest.raises(UserError, match=r"--canaries=6: 18 canaries .* of 16 patients"):
        _audited(job, run / "package.gxd", QUICK._replace(canaries=6))
    with pytest.raises(UserError, match="--shadows=3 are too few"):
        _audited(job, run / "package.gxd", QUICK._replace(shadows=3))
    streaming = small_jobs.make(tmp_path, data__feed="streaming")
    with pytest.raises(UserError, match="Set --canaries=0"):
        shadowing.make_pool(streaming, each=1)


def test_shadows_of_other_settings_are_not_taken_over(audited, run, tmp_path):
    shutil.copytree(audited, tmp_path / "copy")
    job = small_jobs.make(tmp_path / "copy", _silent)
    with pytest.raises(UserError, match=r"shadow000 holds a run with other settings: cohort"):
        _audited(job, run / "package.gxd", QUICK._replace(canaries=2))


def test_the_page_shows_patients_only_where_it_may(audited, run, tmp_path):
    page = (audited / "audit.html").read_text()
    assert page.count("<img") == 3 * 6
    assert "phantom-" in page
    shutil.copytree(audited / "audit", tmp_path / "audit")
    job = small_jobs.make(tmp_path, _silent)
    _audited(job, run / "package.gxd", QUICK._replace(pictures=False))
    without = (tmp_path / "audit.html").read_text()
    assert "<img" not in without
    assert "phantom-" not in without
    assert (tmp_path / "audit.json").read_bytes() == (audited / "audit.json").read_bytes()


def test_a_package_without_a_ledger_has_no_guarantee(audited, run):
    assert auditing.proven(package.load(run / "package.gxd").manifest) is None
    assert "No formal guarantee" in (audited / "audit.html").read_text()


def test_an_attack_that_proves_more_than_the_ledger_is_an_error(audited):
    result = json.loads((audited / "audit.json").read_text())
    found = result["tests"]["singling_out"]
    found["epsilon"], found["canaries"]["single"]["epsilon"] = 1.2, 0.8
    ledger = {"epsilon": 1.0, "delta": 1e-3, "unit": "patient"}
    assert judging.refuted(result) is None  # There is no ledger.
    told = judging.refuted({**result, "proven": ledger})
    assert "membership of patients proves an epsilon of at least 1.20" in told
    assert judging.refuted({**result, "proven": {**ledger, "epsilon": 1.5}}) is None
    assert judging.refuted({**result, "proven": {**ledger, "epsilon": None}}) is None
    assert judging.refuted({**result, "proven": {**ledger, "unit": "image"}}) is None
    found["epsilon"], found["canaries"]["single"]["epsilon"] = 0.0, 1.1
    assert "on canaries proves" in judging.refuted({**result, "proven": ledger})


@pytest.mark.parametrize(("run", "what"), [(0, "the package"), (2, "shadow 2")])
def test_networks_that_diverged_are_named(run, what):
    nothing = np.zeros((3, 4))
    likelihood = nothing.copy()
    likelihood[run, 1] = np.nan
    places = np.zeros((2, 4), int)
    measured = Measured(likelihood, nothing, {}, places, nothing, places[0], places[0])
    with pytest.raises(UserError, match=f"trained on {what} diverged"):
        auditing._check_finite(measured)


def test_shadows_are_drawn_as_the_package_was(tmp_path):
    pool = shadowing.make_pool(small_jobs.make(tmp_path), each=1)
    members = shadowing.draw_members(pool, 300, 0)
    for stratum in np.unique(pool.strata[pool.real]):
        there = pool.real & (pool.strata == stratum)
        assert set(members[:, there].sum(axis=1)) == {pool.members[there].sum()}
    share = members.mean(axis=0)
    np.testing.assert_allclose(share, 0.5, atol=5 * math.sqrt(0.25 / 300))
    copies = members[:, pool.canary == 2]  # Of the duplicated one.
    assert copies.shape[1] == 4
    assert (copies == copies[:, :1]).all()
    np.testing.assert_array_equal(members[:5], shadowing.draw_members(pool, 5, 0))


def test_the_recipe_makes_of_the_jobs_own_patients_what_the_job_makes(run, tmp_path):
    """The pool's sampler draws other patches by the same bits, so that only moments agree."""
    job = small_jobs.make(tmp_path, _silent)
    pool = shadowing.make_pool(job, each=0)
    (data,) = shadowing.run_shadows(job, pool, pool.members[None], Recipe(job))
    of_job = package.load(run / "package.gxd").distilled
    assert data.images.shape == of_job.images.shape
    start = distilling.method.initial_distilled(job.problem, job.config.distill)
    moved = [np.abs(np.asarray(x.images) - start.images).mean() for x in (data, of_job)]
    assert moved[0] == pytest.approx(moved[1], rel=0.2)
    np.testing.assert_allclose(data.images, of_job.images, atol=0.5)


@pytest.mark.slow  # Mixtures are fitted to each shadow.
def test_a_mixture_that_networks_label_is_repeated_on_each_shadow(tmp_path):
    recipe = {"started_from": "mixture", "started_labels": "networks", "outer_steps": 0}
    recipe |= {"init": "random", "precision": "uint8", "images_per_step": 6}
    changes = {f"distill__{name}": value for name, value in recipe.items()}
    # A mixture of fewer patients than 20 of each class is refused.
    job = small_jobs.make(tmp_path, _silent, data__patients=80, data__size=64, **changes)
    path = distilling.distil(job)
    result = _audited(job, path)
    assert result["verdicts"]["singling_out"]["words"]
    for k in range(4):  # Each has teachers of its own.
        assert (tmp_path / f"audit/shadow{k:03d}/ceiling/network0").is_dir()
    assert not any("Fine-tuning" in line for line in result["not_tested"])
    assert any("3 networks are" in line for line in result["means"])
