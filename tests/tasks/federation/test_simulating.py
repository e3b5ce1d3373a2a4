"""A simulation from end to end, what it writes, and that it goes on where it was interrupted."""

import dataclasses
import json

import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.runtime import interrupts
from gxdistill.tasks.federation import simulating
from tests import small_jobs, toy
from tests.tasks.federation import small_federations

QUICK = {
    "network__options": {"width": 2, "depth": 1},
    "federation__alone": False,
    "federation__central": False,
    "federation__local_steps": 1,
    "federation__secure": False,  # What asks the host is compiled anew each time.
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("simulated")
    with toy.quick_compilation():
        return workdir, simulating.simulate(small_federations.make(workdir, **QUICK))


def test_the_table_tells_dice_beside_unit_epsilon_and_delta(simulated):
    workdir, result = simulated
    assert result == json.loads((workdir / "federation.json").read_text())
    rows = result["contenders"]
    assert list(rows) == ["federated", "site", "patient"]
    assert [row["unit"] for row in rows.values()] == [None, "site", "patient"]
    assert rows["federated"]["epsilon"] is None
    assert rows["site"]["ledger"]["events"][0]["count"] == 3
    text = simulating.as_text(result)
    for row in rows.values():
        assert 0 <= row["dice"] <= 1
        assert set(row["dice_by_site"]) == {"site-0", "site-1"}
        (line,) = [line for line in text.splitlines() if line.startswith(row["title"] + "  ")]
        assert f"{row['dice']:.3f}" in line
        assert (row["unit"] or "-") in line
    assert result["sites"]["site-0"]["train_patients"] == 4
    # Of weights in float32.
    assert rows["federated"]["bytes_a_round"] % 4 == 0


def test_an_interrupted_simulation_ends_bit_for_bit_as_one_that_was_not(
    simulated, tmp_path, monkeypatch
):
    workdir, result = simulated
    job = small_federations.make(tmp_path, **QUICK)
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) in (2, 5):  # Within the first training, and within another.
            raise KeyboardInterrupt

    monkeypatch.setattr(interrupts, "check", interrupt)
    with toy.quick_compilation():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                simulating.simulate(job)
        assert simulating.simulate(job) == result
    for name in ("federated", "site", "patient"):
        folders = [
            root / "trainings" / name / "checkpoints/step_00000003" for root in (workdir, tmp_path)
        ]
        whole, resumed = (small_jobs.content(folder / "arrays") for folder in folders)
        assert whole == resumed


def test_other_settings_in_the_same_folder_are_refused(simulated):
    workdir, _ = simulated
    job = small_federations.make(workdir, **QUICK, federation__lr=0.5)
    with pytest.raises(UserError, match=r"federation\.lr \(was 0\.003, is 0\.5\)"):
        simulating.simulate(job)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"federation__secure": True, "federation__threshold": 1},
            "federation.threshold is 1; of 2 sites more than half",
        ),
        ({"patch__size": 65}, "patch.size is 65, which does not fit in images of 64x64 px"),
    ],
)
def test_what_does_not_fit_the_cohort_is_refused_before_any_training(changes, fault, tmp_path):
    with pytest.raises(UserError, match=fault):
        simulating.simulate(small_federations.make(tmp_path / "new", **(QUICK | changes)))
    assert not (tmp_path / "new").exists()


def test_a_volume_is_measured_as_a_whole(tmp_path):
    """Two slices of one patient, of which one is empty, beside Dice over all their pixels."""
    job = small_federations.make(tmp_path)
    data = simulating.hospitals.of_job(job)
    test = data.test.select(np.arange(2))
    masks = np.zeros((2, 64, 64), bool)
    masks[0, :8, :8] = True
    images = np.where(masks, 255, 0).astype(np.uint8)[..., None]
    images[1, :4, :8] = 255  # Taken for the organ, and is not.
    test = dataclasses.replace(
        test, images=images, masks=masks, patients=np.array(["p", "p"]), sites=np.array(["a", "a"])
    )
    network = small_federations.pixelwise()
    params = {"w": np.float32([[-1, 1]]), "b": np.float32([0, 0])}
    told = simulating._measured(job, network, params, data._replace(test=test))
    assert told["patients"] == 1
    assert told["dice"] == pytest.approx(2 * 64 / (64 + 64 + 32))
    assert told["dice_by_site"] == {"a": told["dice"]}
