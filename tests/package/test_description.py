import re

import numpy as np
import pytest

from gxdistill import package
from tests.packages import LEDGER, change, make, members


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "tiny.gxd"
    package.save(path, make())
    return path


def test_a_description_says_what_people_ask(saved):
    text = package.describe(package.load(saved), saved)
    rates = np.exp(make().distilled.log_lr.astype(float))
    for part in (
        "tiny0 (schema version 7)",
        "purpose         To test <packages>.",
        "licence         CC BY 4.0",
        "100 images, 50 patients, 2 sites; 3 images quarantined",
        "train           70 images of 35 patients: 40 negative, 30 positive",
        "tiny-net, norm group, width 32",
        "the known ones of seed 3, included",
        "normalised      once over the cohort: another machine's grey values may mislead",
        "2 steps x 3 epochs of sgd on cross_entropy",
        "8 of 8 x 8 x 1, 4 a step, float32",
        "noise, learned in 400 outer steps",
        "softmax of learned logits",
        f"min {rates.min():.4g}, median {np.median(rates):.4g}, max {rates.max():.4g}",
        "mean 0.5; std 0.25 of pixel / 255",
        "8 px at stride 4, the far edges too",
        "images of 64 x 48 px, shrunken 2 times",
        "irrelevant, negative, positive",
        "soft, tau 0.4375, of the mean of 5 networks' probabilities; 40% of the training",
        "moments of 60 training images, to compare others with",
        "images.hm 0.781 +- 0.0123 (0.7 to 0.85)",
        "images.auc undefined",
        "images.undecidable 1",
        f"{package.size_bytes(saved)} bytes: arrays ",
        "signature       none",
        package.digest(saved),
    ):
        assert part in text
    assert " ".join(text.split()).count("No guarantee is given by this test.") == 5
    assert max(map(len, text.splitlines())) <= 96
    assert all(re.match(r".{15} [^ ]", line) for line in text.splitlines())  # two columns


def test_a_package_without_a_ledger_says_that_nothing_is_guaranteed(saved):
    assert "guarantee       no formal guarantee\n" in package.describe(package.load(saved), saved)
    assert "- guarantee: no formal guarantee\n" in members(saved)["README.md"].decode()


def test_a_ledger_is_shown_with_epsilon_delta_unit_and_what_it_leaves_out(tmp_path):
    ledger = package.from_json(package.LedgerRecord, LEDGER)
    package.save(tmp_path / "p", change(make(), ledger=ledger))
    text = package.describe(package.load(tmp_path / "p"), tmp_path / "p")
    for shown in (" ".join(text.split()), members(tmp_path / "p")["README.md"].decode()):
        assert (
            "epsilon 8 at delta 0.001, unit: one patient, adjacency: add or remove one; not "
            "covered: the choice of the settings"
        ) in shown
        assert "meta-gradient, 300 times: sampled gaussian noise of 1.81 x sensitivity 0.5" in shown
        assert "no formal guarantee" not in shown


@pytest.mark.parametrize(
    ("epsilon", "text"), [(7.991, "8"), (7.981, "7.99"), (0.0123, "0.0123"), (0.01231, "0.0124")]
)
def test_an_epsilon_is_never_shown_smaller_than_it_is(epsilon, text):
    ledger = package.from_json(package.LedgerRecord, {**LEDGER, "epsilon": epsilon})
    assert package.guarantee(ledger).startswith(f"epsilon {text} at delta 0.001, unit: one patient")


def test_an_epsilon_beyond_all_bounds_is_no_guarantee():
    ledger = package.from_json(package.LedgerRecord, {**LEDGER, "epsilon": None})
    assert package.guarantee(ledger) == "no formal guarantee: epsilon is above 100"


def test_real_images_are_called_by_name(tmp_path):
    made = change(make(), "distillation", started_from="real")
    package.save(tmp_path / "p", made)
    text = package.describe(package.load(tmp_path / "p"), tmp_path / "p")
    assert "REAL IMAGES OF PATIENTS" in text
    assert "REAL IMAGES OF PATIENTS" in members(tmp_path / "p")["README.md"].decode()


def test_a_start_that_is_packaged_as_it_is_was_not_learned(tmp_path):
    made = change(make(), "distillation", started_from="mixture", outer_steps=0)
    package.save(tmp_path / "p", made)
    text = " ".join(package.describe(package.load(tmp_path / "p"), tmp_path / "p").split())
    assert "a mixture of Gaussians fitted to real images, as drawn" in text


def test_the_card_lies_in_the_file_and_says_what_must_be_said(saved):
    card = members(saved)["README.md"].decode()
    assert card == package.card(package.load(saved))
    headings = re.findall("^#+ (.*)$", card, re.M)
    assert headings == [
        *("tiny0", "Purpose", "Cohort", "Method", "Results", "Privacy", "Licence", "How to load")
    ]
    for part in (
        "schema version 7: 8 synthetic images",
        package.WARNING,
        "To test \\<packages\\>.",
        "- train: 70 images of 35 patients: 40 negative, 30 positive",
        "- images.hm 0.781 +- 0.0123 (0.7 to 0.85)",
        "No guarantee is given by this test.",
        "- CC BY 4.0",
    ):
        assert part in card


def test_the_code_of_the_card_loads_the_images(saved, tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", members(saved)["README.md"].decode(), re.S)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE.gxd").write_bytes(saved.read_bytes())
    found = {}
    exec(code, found)
    np.testing.assert_array_equal(found["images"], make().distilled.images)


def test_equal_packages_do_not_differ():
    text = package.diff(make(), make())
    assert text.startswith("settings that differ\n  none\nresults\n")
    assert text.count(" equal") == 5
    assert "differ:" not in text


def test_differences_are_told_side_by_side():
    one, two = make(), make()
    two = change(change(two, "distillation", epochs=9), "network", options={"width": 64})
    two.manifest.results["images"]["hm"]["mean"] = 0.9
    two.distilled.images[:] += 0.25
    two.start["params"]["Dense_0"]["bias"] = np.zeros(7, np.float32)
    two.start["more"] = np.zeros(2)
    text = " ".join(package.diff(one, two).split())
    gap = 0.25 / np.sqrt(np.mean(one.distilled.images.astype(float) ** 2))
    for part in (
        "settings that differ network.options.width 32 64 network.options.norm group - ",
        "distillation.epochs 3 9 results",
        "images.hm.mean 0.781 0.9",
        "images.hm.std 0.0123 0.0123",
        f"images float32 [2, 4, 8, 8, 1] differ: rms 0.25, {gap:.3g} of the first's, at most 0.25",
        "labels float32 [2, 4, 3] equal",
        "start.params.Dense_0.bias float32 [3] | float32 [7]",
        "start.more - | float64 [2]",
    ):
        assert part in text
