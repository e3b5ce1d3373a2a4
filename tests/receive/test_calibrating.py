import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from gxdistill import data, package
from gxdistill.cli import main
from gxdistill.errors import UserError
from gxdistill.receive import calibrating, predicting
from tests.packages import change


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Images of the sender's kind, and their labels by name."""
    cohort = data.phantom_cohort(7, patients=24, size=128)
    folder = tmp_path_factory.mktemp("phantoms")
    for i, image in enumerate(cohort.images):
        Image.fromarray(image[..., 0]).save(folder / f"{i:02}.png")
    return folder, {f"{i:02}.png": int(label) for i, label in enumerate(cohort.labels)}


@pytest.fixture(scope="module")
def decided(run, phantoms, tmp_path_factory):
    """Scores of the phantoms by name, as `predict` finds them with the sender's threshold."""
    out = tmp_path_factory.mktemp("decided") / "out"
    rows = predicting.predict(run / "package.gxd", [phantoms[0]], out, print)
    return {row["image"]: row["score"] for row in rows}


def _write_labels(path, labels):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *labels.items()])
    return path


def _positive(scores, tau):
    return sum(score >= tau for score in scores.values() if score is not None)


def test_a_share_of_the_images_is_positive_and_predict_decides_by_it(
    run, phantoms, decided, tmp_path, capsys
):
    file, out = tmp_path / "c.json", tmp_path / "out"
    known = [score for score in decided.values() if score is not None]
    assert len(set(known)) > 10
    command = ["calibrate", str(run / "package.gxd"), str(phantoms[0]), f"--out={file}"]
    main.main([*command, "--prevalence=0.25"])
    table = json.loads(file.read_text())
    assert table["images"] == len(known)
    assert table["undecidable"] == len(decided) - len(known)
    assert (table["by"], table["share"]) == ("prevalence", 0.25)
    assert table["package"] == package.digest(run / "package.gxd")
    assert _positive(decided, table["tau"]) == pytest.approx(len(known) / 4, abs=1)
    assert table["low"] <= table["tau"] <= table["high"]
    said = capsys.readouterr().out
    sender = package.load(run / "package.gxd").manifest.decision.tau
    assert f"tau {table['tau']:.4g} (95% interval {table['low']:.4g} to" in said
    assert f"the sender's tau: {sender:.4g}, which calls a share of" in said
    assert f"set on {len(known)} images so that a share of 0.25 is positive" in said

    main.main(
        ["predict", command[1], command[2], f"--calibration={file}", f"--out={out}"],
    )
    rows = json.loads((out / "predictions.json").read_text())
    assert (rows["tau"], rows["tau_by"]) == (table["tau"], "calibration")
    names = package.load(run / "package.gxd").manifest.class_names
    for row in rows["images"]:
        score = decided[row["image"]]
        assert row["score"] == score
        if score is not None:
            assert row["decision"] == names[-1 if score >= table["tau"] else -2]
        assert (row["tau"], row["tau_by"]) == (table["tau"], "calibration")
    with pytest.raises(SystemExit, match="exists already"):
        main.main(command)


def _best(scores, labels):
    """The best harmonic mean that any threshold reaches, by trying all."""
    reached = []
    for tau in sorted(set(scores)):
        sen = np.mean([score >= tau for score, label in zip(scores, labels, strict=True) if label])
        spe = np.mean(
            [score < tau for score, label in zip(scores, labels, strict=True) if not label]
        )
        reached.append(2 * sen * spe / (sen + spe) if sen + spe else 0.0)
    return max(reached)


def test_labels_give_the_threshold_that_tells_classes_apart_best(run, phantoms, decided, tmp_path):
    folder, labels = phantoms
    names = package.load(run / "package.gxd").manifest.class_names
    # Half of the images, by the names of their classes or by numbers; one has no score.
    some = {name: labels[name] for name in sorted(labels)[::2]}
    written = {n: names[-2 + k] if i % 2 else k for i, (n, k) in enumerate(some.items())}
    file, said = _write_labels(tmp_path / "labels.csv", written), []
    result, scored = calibrating.calibrate(
        run / "package.gxd", [folder], tmp_path / "c.json", said.append, labels=file
    )
    known = [name for name in some if decided[name] is not None]
    assert (result.by, result.share, result.images) == ("labels", None, len(known))
    assert scored.names == sorted(some)
    truth = [some[name] for name in known]
    assert len(set(truth)) == 2
    scores = [decided[name] for name in known]
    at_tau = [score >= result.tau for score in scores]
    sen = np.mean([hit for hit, label in zip(at_tau, truth, strict=True) if label])
    spe = np.mean([not hit for hit, label in zip(at_tau, truth, strict=True) if not label])
    assert 2 * sen * spe / (sen + spe) == pytest.approx(_best(scores, truth))
    assert f"note: {len(labels) - len(some)} images have no label, and are passed over" in said


def test_with_nothing_given_the_share_is_the_senders(run, phantoms, decided, tmp_path):
    content = package.load(run / "package.gxd")
    share = content.manifest.decision.share_positive
    assert 0 < share < 1
    known = [score for score in decided.values() if score is not None]
    result, _ = calibrating.calibrate(
        run / "package.gxd", [phantoms[0]], tmp_path / "c.json", print
    )
    assert (result.by, result.share) == ("sender", share)
    assert _positive(decided, result.tau) == pytest.approx(share * len(known), abs=1)
    old = tmp_path / "old.gxd"
    package.save(old, change(content, "decision", share_positive=None))
    with pytest.raises(UserError, match=r"as --prevalence=0\.3, or labels .* --labels=FILE\.csv"):
        calibrating.calibrate(old, [phantoms[0]], tmp_path / "d.json", print)
    with pytest.raises(UserError, match="set with another package"):
        predicting.predict(
            old, [phantoms[0]], tmp_path / "out", print, calibration=tmp_path / "c.json"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"00.png": "ill"}, r"line 2: the label is 'ill'; it must be 0 or"),
        ({"00.png": 1, "nowhere.png": 0}, r"labels 'nowhere\.png', which is none of the images"),
        ({"00.png": 1, " 00.png": 0}, r"line 3: '00\.png' is there twice"),
    ],
)
def test_labels_that_do_not_fit_are_told(run, phantoms, tmp_path, labels, reason):
    file = _write_labels(tmp_path / "labels.csv", labels)
    with pytest.raises(UserError, match=reason):
        calibrating.calibrate(
            run / "package.gxd", [phantoms[0]], tmp_path / "c.json", print, labels=file
        )


def test_what_cannot_be_calibrated_is_told(run, phantoms, decided, tmp_path):
    folder, labels = phantoms
    path, out = run / "package.gxd", tmp_path / "c.json"
    known = [name for name in labels if decided[name] is not None]
    alone = {name: 1 for name in known if labels[name] == 1}
    file = _write_labels(tmp_path / "labels.csv", alone)
    with pytest.raises(UserError, match="all of one class"):
        calibrating.calibrate(path, [folder], out, print, labels=file)
    with pytest.raises(UserError, match="Choose one"):
        calibrating.calibrate(path, [folder], out, print, labels=file, prevalence=0.3)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(folder / known[0], tmp_path / name / "00.png")
    file = _write_labels(tmp_path / "twice.csv", {"00.png": 1})
    with pytest.raises(UserError, match=r"Two images are called '00\.png'"):
        calibrating.calibrate(path, [tmp_path / "a", tmp_path / "b"], out, print, labels=file)
    (tmp_path / "no.csv").write_text("image,class\na,1\n")
    with pytest.raises(UserError, match="has no column label"):
        calibrating.calibrate(path, [folder], out, print, labels=tmp_path / "no.csv")
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(UserError, match=r"No image fits .*; text\.png: not a readable"):
        calibrating.calibrate(path, [tmp_path / "text.png"], out, print, prevalence=0.5)
    with pytest.raises(SystemExit, match=r"'1\.5' is not a share from 0 to 1"):
        main.main(["calibrate", str(path), str(folder), "--prevalence=1.5"])
    assert not out.exists()
