"""The recipes of docs/python.md run as they stand, and do what the page says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

import gxdistill
from gxdistill.cli import main

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs/python.md"
PAGE = PATH.read_text("utf-8")


class Recipe(NamedTuple):
    title: str
    line: int  # of its first line of code
    code: str


def _recipes(page: str) -> list[Recipe]:
    """The Python blocks of a page, by the heading above each."""
    title, begin, found, lines = "", None, [], page.splitlines()
    for number, line in enumerate(lines):
        if line == "```python":
            begin = number + 1
        elif line == "```" and begin is not None:
            code = "\n".join(lines[begin:number]) + "\n"
            found.append(Recipe(title, begin + 1, code))
            begin = None
        elif line.startswith("## ") and begin is None:
            title = line.removeprefix("## ")
    return found


RECIPES = {recipe.title: recipe for recipe in _recipes(PAGE)}


@pytest.fixture
def follow(run, tmp_path, monkeypatch):
    """Runs a recipe in an empty folder but for the demo's, and returns its names."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/smoke").symlink_to(run)

    def follow(title):
        recipe = RECIPES[title]
        code = "\n" * (recipe.line - 1) + recipe.code  # so that a traceback names the page's line
        names = {"__name__": "__main__"}
        exec(compile(code, str(PATH), "exec"), names)
        return names

    return follow


def test_there_are_six_recipes_each_of_which_fits_a_screen():
    assert len(RECIPES) == 6 == PAGE.count("```python")
    lengths = {r.title: sum(map(bool, r.code.splitlines())) for r in RECIPES.values()}
    assert all(10 <= length <= 35 for length in lengths.values()), lengths


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.title)
def test_a_recipe_is_in_good_style(recipe):
    ruff = Path(sys.executable).parent / "ruff"
    for command in (["check", "--ignore=D"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *command, "--stdin-filename=docs/recipe.py", "-"],
            input=recipe.code,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_patches_are_cut_and_classified(follow):
    names = follow("Cut and classify patches")
    probabilities, table = names["probabilities"][0], names["table"](names["test"])
    corners = [tuple(c) for c in names["grid"].corners(names["test"]).tolist()]
    rows = zip(table.image, table.row, table.col, table.label, strict=True)
    right = {0: [], 1: [], 2: []}
    for image, row, col, label in rows:
        right[int(label)].append(probabilities[image, corners.index((row, col))].argmax() == label)
    recalls = [np.mean(of_class) for of_class in right.values()]
    assert names["accuracy"] == pytest.approx(np.mean(recalls))
    assert names["losses"][-10:].mean() < names["losses"][:10].mean()


def test_a_network_of_ones_own_is_distilled_for(follow):
    names = follow("Distil with a network of your own")
    assert names["state"].learned.images.shape == (1, 2, 8, 8, 1)
    # Untrained, or trained on what the distilled images started from, it is worse.
    start = gxdistill.replay(names["network"], names["fresh"], names["data"], rule="raw")
    for params in (names["fresh"], start):
        logits = names["apply"](params, names["unseen"])
        assert (logits.argmax(-1) == names["classes"]).mean() < 0.9 < names["accuracy"]


def test_a_meta_gradient_of_ones_own_is_followed(follow):
    names = follow("A meta-gradient of your own")
    learned, data = names["state"].learned, names["data"]
    np.testing.assert_array_equal(learned.labels, data.labels)
    np.testing.assert_array_equal(learned.log_lr, data.log_lr)
    # What it matches are the means: the second class is brighter by a half.
    difference = learned.images[0, 1] - learned.images[0, 0]
    assert 0.2 < float(difference.mean()) < 0.9


def test_a_package_is_replayed_elsewhere(follow, run):
    weights = follow("Replay a package in another JAX program")["weights"]
    package = gxdistill.load_package(run / "package.gxd")
    assert package.start is not None
    trained = gxdistill.train_networks(run / "package.gxd").params
    for module, leaves in trained.items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(weights[f"start.{module}.{name}"], leaf[0], atol=1e-6)
    moved = jax.tree.map(lambda a, b: bool((a[0] != b).any()), trained, package.start)
    assert any(jax.tree.leaves(moved))


def test_whole_images_are_decided_as_the_command_does(follow):
    names = follow("Decide whole images")
    command = ["predict", "runs/smoke/package.gxd", "images", "--out=by_command"]
    main.main(command)
    images = json.loads(Path("by_command/predictions.json").read_text())["images"]
    assert len(images) == len(names["cohort"].labels)
    assert images == names["rows"]
    by_command = [np.nan if row["score"] is None else row["score"] for row in images]
    np.testing.assert_allclose(by_command, names["scores"], rtol=1e-6)
    classes = {"non-gastritis": 0, "gastritis": 1, "undecidable": -1}
    assert [classes[row["decision"]] for row in images] == names["decisions"].tolist()


def test_a_segmentation_is_scored(follow):
    names = follow("Score a segmentation")
    predicted, truth = names["predicted"], names["test"].masks
    by_hand = [
        2 * (p & t).sum() / (p.sum() + t.sum()) for p, t in zip(predicted, truth, strict=True)
    ]
    np.testing.assert_allclose(names["dice"][:, 1], by_hand)
    assert names["low"] < np.mean(by_hand) < names["high"]


def test_every_file_named_on_the_page_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (PATH.parent / link).exists()] == []
