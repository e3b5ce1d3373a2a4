import json

import numpy as np
import pytest

from gxdistill.errors import UserError
from gxdistill.package.segmenter import load_segmenter
from gxdistill.package.segmenting import probabilities
from gxdistill.tasks.segmentation import evaluating
from tests import segmenters


def _job(folder, **changes):
    return segmenters.make_job(folder, log=lambda _: None, **changes)


def _dice(predicted, truth):
    both = sum(bool(p and t) for p, t in zip(predicted.ravel(), truth.ravel(), strict=True))
    return 2 * both / (predicted.sum() + truth.sum())


def test_the_figures_are_those_of_the_test_images(run):
    figures = json.loads((run / "segmentation.json").read_text())
    test, segmenter = _job(run).cohorts.test, load_segmenter(run / "segmenter.gxs")
    dice, right = {}, {}
    for name, image, mask in zip(test.names, test.images, test.masks, strict=True):
        predicted = probabilities(segmenter, image)[..., 1] > 0.5
        dice[name], right[name] = _dice(predicted, mask), (predicted == mask).mean()
    assert {case["name"]: case["dice"] for case in figures["cases"]} == pytest.approx(dice)
    assert [case["dice"] for case in figures["cases"]] == sorted(dice.values())
    stated = figures["classes"]["stomach"]["dice"]
    assert stated["mean"] == pytest.approx(np.mean([*dice.values()]))
    assert (stated["n"], figures["images"]) == (len(dice), len(dice))
    assert figures["accuracy"]["mean"] == pytest.approx(np.mean([*right.values()]))
    assert figures["segmenter"] == segmenter.sha256
    sites = {site: part["mean"]["dice"]["mean"] for site, part in figures["sites"].items()}
    for site, mean in sites.items():
        of_site = [dice[name] for name in test.names[test.sites == site]]
        assert mean == pytest.approx(np.mean(of_site))


def test_the_worst_cases_are_kept_with_their_pixels(run):
    figures = json.loads((run / "segmentation.json").read_text())
    with np.load(run / "segmentations.npz") as kept:
        for i, case in enumerate(figures["cases"][: len(kept["names"])]):
            assert kept["names"][i] == case["name"]
            assert _dice(kept["predicted"][i], kept["truth"][i]) == pytest.approx(case["dice"])


def test_slices_of_a_patient_are_measured_together(run, tmp_path):
    job = _job(tmp_path, segment__measure="patient")
    test = job.cohorts.test
    patients = np.array(["a", *["b"] * (len(test.names) - 1)])  # One has a slice, one all others.
    object.__setattr__(test, "patients", patients)
    figures = evaluating.evaluate(job, run / "segmenter.gxs")
    segmenter = load_segmenter(run / "segmenter.gxs")
    predicted = np.stack([probabilities(segmenter, image)[..., 1] > 0.5 for image in test.images])
    expected = {
        patient: _dice(predicted[patients == patient], test.masks[patients == patient])
        for patient in "ab"
    }
    assert {case["name"]: case["dice"] for case in figures["cases"]} == pytest.approx(expected)
    assert "2 test patients" in evaluating.as_text(figures)


def test_a_segmenter_of_other_classes_is_refused(run, tmp_path):
    job = _job(tmp_path, data__mask_classes=("background", "lung"))
    with pytest.raises(UserError, match="tells background, stomach apart"):
        evaluating.evaluate(job, run / "segmenter.gxs")
