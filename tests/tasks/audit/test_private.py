import json

import pytest

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.tasks.audit import auditing
from gxdistill.tasks.distillation import distilling
from gxdistill.tasks.distillation.repeating import Recipe
from tests import small_jobs

QUICK = auditing.Options(shadows=4, canaries=1, pictures=False)
PRIVATE = {
    "privacy__mechanism": "meta_gradient",
    "privacy__epsilon": 8.0,
    "privacy__delta": 1e-3,
    "privacy__noise": 2.0,
    "privacy__patients_per_step": 4,
    "privacy__patches_per_patient": 2,
    "data__levels": "fixed",
}


def _silent(_):
    pass


@pytest.mark.slow  # Each shadow compiles a program of its own.
def test_a_private_package_is_audited_beside_its_ledger(tmp_path):
    pytest.importorskip("dp_accounting")
    job = small_jobs.make(tmp_path, _silent, **PRIVATE)
    path = distilling.distil(job)
    proven = auditing.proven(package.load(path).manifest)
    assert 0 < proven.epsilon <= 8
    assert (proven.delta, proven.unit) == (1e-3, "patient")
    result = auditing.audit(job, path, Recipe(job), QUICK)
    assert json.loads((tmp_path / "audit.json").read_text())["proven"]["epsilon"] > 0
    found = result["tests"]["singling_out"]
    assert found["delta"] == 1e-3
    assert found["epsilon"] <= proven.epsilon
    page = (tmp_path / "audit.html").read_text()
    assert f"ledger is right: {package.guarantee(package.load(path).manifest.ledger)}" in page
    # Shadows have noise of their own, so that no two are alike.
    ledgers = {(tmp_path / f"audit/shadow{k:03d}/settings.json").read_bytes() for k in range(4)}
    assert len(ledgers) == 4


@pytest.mark.slow
def test_a_package_of_released_statistics_is_audited_beside_its_ledger(tmp_path):
    pytest.importorskip("dp_accounting")
    released = {"features": "cell_moments", "count": 12, "pixels": 8, "steps": 0}
    changes = {f"privacy__statistics__{name}": value for name, value in released.items()}
    changes |= {**PRIVATE, "privacy__mechanism": "statistics", "privacy__noise": 0.0}
    job = small_jobs.make(tmp_path, _silent, **changes)
    result = auditing.audit(job, distilling.distil(job), Recipe(job), QUICK)
    assert result["tests"]["singling_out"]["epsilon"] <= result["proven"]["epsilon"] <= 8


def test_a_package_without_a_ledger_is_not_of_a_private_recipe(run, tmp_path):
    job = small_jobs.make(tmp_path, _silent, **PRIVATE)
    with pytest.raises(UserError, match="has no ledger, and the config asks for one"):
        auditing.audit(job, run / "package.gxd", Recipe(job), QUICK)
