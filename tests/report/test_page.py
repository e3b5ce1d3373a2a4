import dataclasses
import json
import re
import sys

import matplotlib
import numpy as np
import pytest

from gxdistill import package, report, storage
from gxdistill.data.files import reading
from gxdistill.data.files.reading import Facts, Recipe
from gxdistill.errors import UserError
from gxdistill.report import markup
from gxdistill.report.sections import background, images
from tests.packages import LEDGER, change
from tests.report import stages
from tests.report.stages import Page


def _repackage(workdir, **changes):
    content = package.load(workdir / "package.gxd")
    package.save(workdir / "package.gxd", change(content, **changes))


def _evaluated(workdir):
    """Makes the evaluation that is there one of the package that is there now."""
    evaluation = storage.read_json(workdir / "evaluation.json")
    evaluation["contenders"]["distilled"]["networks"]["package"] = package.digest(
        workdir / "package.gxd"
    )
    storage.write_json(workdir / "evaluation.json", evaluation)


def _written(workdir):
    return Page(report.write(workdir, workdir / "package.gxd"))


def test_the_page_is_well_formed_and_points_at_nothing_but_itself(whole):
    page = Page(whole / "report.html")
    assert page.every("html") == [{"lang": "en"}]
    assert not page.every("script")
    assert not page.every("link")
    assert len(page.every("h1")) == 1
    images = page.every("img")
    assert len(images) == 6 + 4 * 3
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert sum(not image["alt"] for image in images) == 4  # The layers below heat maps.

    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        target = attributes.get("href") or attributes.get("xlink:href") or "#images"
        assert target.removeprefix("#") in ids
        assert attributes.get("aria-labelledby", "images") in ids
    clips = re.findall(r"url\(([^)]*)\)", (whole / "report.html").read_text())
    assert all(clip.removeprefix("#") in ids for clip in clips)


def test_every_figure_of_the_evaluation_is_on_the_page(whole):
    text = Page(whole / "report.html").text
    evaluation = json.loads((whole / "evaluation.json").read_text())
    for contender in evaluation["contenders"].values():
        figures = [contender["balanced_patch_accuracy"], *contender["images"].values()]
        for figure in figures:
            if isinstance(figure, dict):
                deviation = " ± 0.012" if figure["std"] else ""
                assert f"{figure['mean']:.3f}{deviation}" in text
                assert "low" not in figure or f"{figure['low']:.3f} to {figure['high']:.3f}" in text
    for part in evaluation["shares"].values():
        assert f"{round(100 * part)}%" in text
    assert "1 of 60 images undecidable" in text
    order = [text.index(name) for name in ("Distilled images5", "Random real", "All real patches,")]
    assert order == sorted(order)


def test_cohort_sizes_rates_and_settings_are_on_the_page(whole):
    text = Page(whole / "report.html").text
    total, packed = 8 * stages.SIDE**2, package.size_bytes(whole / "package.gxd")
    for fact in (
        "3,603 patches distilled into 6",
        "8 images of 4 patients",
        "Patches3,603903",
        "gastritis1,202302",
        "north (4), south & sons (4)",
        f"{total:,} bytes",
        f"{packed:,} bytes",
        f"{total / packed:.1f} : 1",
        "learning rates 0.01, 0.03",  # Step 1 in both epochs.
        "learning rates 0.02, 0.04",
        "optimizer.images_lr0.0625",
        "2104.02857",
        "1811.10959",
        "not a medical device",
        "No guarantee & no promise.",
        package.digest(whole / "package.gxd"),
    ):
        assert fact in text


def test_a_rate_that_all_epochs_share_is_said_once():
    assert images._rates(np.full(10, 0.0659347)) == "learning rate 0.0659"
    assert images._rates(np.array([0.5, 0.25])) == "learning rates 0.5, 0.25"
    few = images._rates(np.arange(1, 9))
    assert few == "learning rates 1, 2, 3, 4, 5, 6, 7, 8"
    many = images._rates(np.arange(1, 61))
    assert many == "learning rates 1, 2, 3, 4, 5, 6, 53 others, 60"


def test_strings_of_the_data_are_escaped(whole):
    page = Page(whole / "report.html")
    assert f"{stages.EVIL}.png" in page.text
    assert f"broken: {stages.EVIL}" in page.text
    assert "trial <1>" in page.text
    assert any(stages.EVIL in image["alt"] for image in page.every("img"))
    assert not page.every("script")


def test_the_same_input_gives_the_same_bytes_whatever_matplotlibs_settings(whole, workdir):
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path"}):
        path = report.write(workdir, workdir / "package.gxd")
    assert path == workdir / "report.html"
    assert path.read_bytes() == (whole / "report.html").read_bytes()


def test_before_the_evaluation_the_page_says_so_and_shows_what_the_package_was_given(workdir):
    for name in ("evaluation.json", "heatmaps.npz", "history.jsonl"):
        (workdir / name).unlink()
    page = _written(workdir)
    assert page.text.count("not been evaluated beside baselines yet. Run `gxdistill evaluate`") == 3
    assert "has not been looked at on whole images yet" in page.text
    assert "history.jsonl is missing or too short" in page.text
    assert "0.520 ± 0.012" in page.text


def test_an_evaluation_of_another_package_is_not_shown(workdir):
    _repackage(workdir, name="another")
    page = _written(workdir)
    assert "The evaluation in this folder is of another package." in page.text
    assert len(page.every("img")) == 6


def test_a_cohort_without_whole_image_decisions(workdir):
    names = tuple(f"digit {i}" for i in range(10))
    results = {"balanced_patch_accuracy": {"mean": 0.9125, "std": None, "n": 1}}
    settings = stages.make_manifest(
        names,
        results,
        decision=None,
        init={"rule": "known", "seed": 4},
        network={"name": "their-net", "options": {}},
    )
    start = {"w": np.zeros(2, np.float32)}
    package.save(
        workdir / "package.gxd", package.Package(stages.make_distilled(10), settings, start)
    )
    stages.write_cohort(workdir, stages.make_cohort(names, masks=False), ())
    (workdir / "heatmaps.npz").unlink()
    contenders = {name: dict(results) for name in ("distilled", "all_patches", "on_lenet")}
    contenders["distilled"]["networks"] = {
        "network": {"name": "convnet"},
        "package": package.digest(workdir / "package.gxd"),
        "init": "known",
    }
    evaluation = {"contenders": contenders, "shares": {"balanced_patch_accuracy": 1.0}}
    storage.write_json(workdir / "evaluation.json", evaluation)
    text = _written(workdir).text
    assert (
        "with the known initial weights, trained on nothing else, reaches a balanced patch" in text
    )
    titles = ("Distilled images1", "Distilled images, on lenet", "All real patches, the ceiling")
    assert sorted(titles, key=text.index) == list(titles)
    assert "There is no curve: whole images are not decided here." in text
    assert "There are none: whole images are not decided here" in text
    assert "Of 10 classes the 5 largest are shown." in text
    assert "No entry was quarantined." in text
    assert "Sensitivity" not in text


def test_real_images_at_the_start_are_told_in_red(whole, workdir):
    _repackage(workdir, part="distillation", started_from="real")
    page = _written(workdir)
    assert "Warning: these distilled images started from real images of patients" in page.text
    assert page.every("aside")[0]["class"] == "alarm"
    assert "Warning" not in Page(whole / "report.html").text


def test_what_is_guaranteed_is_stated(whole, workdir):
    assert "Guarantee: no formal guarantee." in Page(whole / "report.html").text
    _repackage(workdir, ledger=package.from_json(package.LedgerRecord, LEDGER))
    assert "Guarantee: epsilon 8 at delta 0.001, unit: one patient, adj" in _written(workdir).text


@pytest.mark.parametrize(
    ("side", "steps", "left"),
    [(299, 14, "6 further images in the package."), (16, 20, "The next 8 steps")],
)
def test_many_or_large_images_make_no_large_page(workdir, side, steps, left):
    data = stages.make_distilled(3, side=side, steps=steps)
    content = package.Package(data, stages.make_manifest(stages.CLASSES, {}))
    content = change(change(content, "distillation", steps=steps), "patch", size=side)
    package.save(workdir / "package.gxd", content)
    _evaluated(workdir)
    stages.write_heatmaps(workdir, side=700)
    path = report.write(workdir, workdir / "package.gxd")
    assert path.stat().st_size < 3e6
    assert left in path.read_text()


def test_colour_images_are_shown_in_colour(workdir):
    scale = {"mean": [0.2, 0.4, 0.6], "std": [0.2] * 3}
    manifest = stages.make_manifest(stages.CLASSES, {}, normalisation=scale)
    content = package.Package(stages.make_distilled(3, channels=3), manifest)
    package.save(workdir / "package.gxd", change(content, "patch", channels=3))
    shown = stages.decoded(_written(workdir).every("img")[0]).astype(float).mean(axis=(0, 1))
    assert shown[0] + 30 < shown[1] < shown[2] - 30


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: (w / "package.gxd").unlink(), "no package .* Run `gxdistill distill` first"),
        (lambda w: (w / "cohort.json").unlink(), "no cohort.json. Run `gxdistill prepare` first"),
        (
            lambda w: stages.write_cohort(w, stages.make_cohort(("a", "b", "c")), ()),
            "have different classes",
        ),
        (
            lambda w: (w / "heatmaps.npz").write_bytes((w / "heatmaps.npz").read_bytes()[:900]),
            "heatmaps.npz cannot be read: .* Run `gxdistill evaluate` again",
        ),
        (lambda w: (w / "evaluation.json").write_text("{"), "evaluation.json is not valid JSON"),
    ],
)
def test_what_is_missing_or_broken_is_named_with_the_way_out(workdir, spoil, message):
    before = (workdir / "report.html").read_bytes()
    spoil(workdir)
    with pytest.raises(UserError, match=message):
        report.write(workdir, workdir / "package.gxd")
    assert (workdir / "report.html").read_bytes() == before


def test_without_matplotlib_it_is_named(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        report.write(workdir, workdir / "package.gxd")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7, "7 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (146_800, "147 kB"),
        (999_600, "1.00 MB"),
        (1_844_000_000, "1.84 GB"),
        (25_600_000, "25.6 MB"),
    ],
)
def test_sizes_have_three_digits(number, text):
    assert markup.size(number) == text


def test_how_files_were_read_is_said_and_burned_in_text_counted():
    facts = [Facts(), Facts(12, "window", texts=2), Facts(12, "percentiles", segmented=True)]
    none = {"reasons": {}}
    said = "".join(background._reading(reading.account(Recipe(), facts), none))
    assert "8 bits (1), 12 bits (2)" in said
    assert "as stored (1), percentiles (1), window (1)" in said
    assert "1 image with burned-in text in the border: painted over" in said
    assert "Masks made by a segmenter: 1." in said
    refused = {"reasons": {"burned-in text": 3, "burned-in text: its header says so": 1, "x": 9}}
    told = reading.account(Recipe(text="refuse"), [Facts()])
    assert "4 images with burned-in text in the border: refused" in "".join(
        background._reading(told, refused)
    )
    assert list(background._reading({}, none)) == []


def test_the_weights_of_zones_are_drawn_where_there_are_some(whole, workdir):
    assert "each zone" not in Page(whole / "report.html").text
    weights = tuple(round(0.25 * zone - 1, 2) for zone in range(13))
    _repackage(workdir, part="decision", rule="zones", weights=weights)
    _evaluated(workdir)
    text = _written(workdir).text
    assert "How much each zone of the organ counts, as seen" in text
    for weight in weights[:12]:
        assert markup.signed(weight) in text


def test_of_what_was_not_learned_the_page_says_so(whole):
    manifest = package.load(whole / "package.gxd").manifest
    loop = dataclasses.replace(manifest.distillation, outer_steps=0)
    _repackage(whole, distillation=loop)
    _evaluated(whole)
    (whole / "history.jsonl").unlink()
    text = _written(whole).text
    assert "6 patches drawn in place of 3,603" in text
    assert "No outer step was made: they are as they were drawn." in text
    assert "No outer step was made, so there is no curve." in text
    assert "given and not learned" in text
    for untrue in ("learned without bounds", "learned as", "distilled into", "too short"):
        assert untrue not in text


def test_a_share_of_a_ceiling_at_chance_is_no_percentage(whole):
    evaluation = storage.read_json(whole / "evaluation.json")
    evaluation["shares"]["auc"] = None
    storage.write_json(whole / "evaluation.json", evaluation)
    text = _written(whole).text
    assert "ceiling at chance" in text
    assert "trained on all real patches, is itself no better than chance in its AUC" in text
