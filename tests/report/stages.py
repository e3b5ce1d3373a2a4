"""A working folder as the stages of a job leave it, of synthetic numbers; a reader of pages."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from PIL import Image

from gxdistill import package, storage
from gxdistill.data import source
from gxdistill.data.files.manifest import Quarantined
from gxdistill.data.files.reading import Recipe
from gxdistill.evaluation import decision, metrics
from gxdistill.patching import patch_corners
from gxdistill.pytrees import Cohort, Distilled

SIDE, PATCH, STRIDE = 48, 16, 8
EVIL = "<script>alert('x')</script>"
CLASSES = ("irrelevant", "non-gastritis", "gastritis")


def make_cohort(class_names, masks=True):
    rng, n = np.random.default_rng(0), 8
    return Cohort(
        images=rng.integers(0, 256, (n, SIDE, SIDE, 1), np.uint8),
        masks=np.ones((n, SIDE, SIDE), bool) if masks else None,
        labels=np.arange(n, dtype=np.int32) % 2,
        patients=np.array([f"patient-{i // 2}" for i in range(n)]),
        sites=np.array(["north", "south & sons"] * 4),
        splits=np.array(["train"] * 6 + ["test"] * 2),
        names=np.array([f"{i}.png" for i in range(n)]),
        class_names=class_names,
    )


def write_cohort(workdir, cohort, bad):
    read = source.Source(
        cohort, bad, Path("list.csv"), Recipe((2 * SIDE, 2 * SIDE), downscale=2), {}
    )
    patches = {
        split: {name: 100 * base + i for i, name in enumerate(cohort.class_names)}
        for split, base in (("train", 12), ("test", 3))
    }
    storage.write_json(
        workdir / "cohort.json", {**source.summary(read), "patch": {}, "patches": patches}
    )


def make_manifest(class_names, results, **changes):
    table = {
        "name": "trial <1>",
        "purpose": "Tests.",
        "licence": "CC0 & <none>.",
        "cohort": None,
        "network": {"name": "convnet", "options": {"width": 8}},
        "init": {"rule": "random", "seed": None},
        "distillation": {
            "steps": 2,
            "epochs": 2,
            "images_per_step": 3,
            "label_rule": "raw",
            "loss": "cross_entropy",
            "started_from": "noise",
            "inner": {"name": "sgd"},
            "augmentations": [],
            "outer_steps": 1200,
            "settings": {"batch": 77, "optimizer": {"images_lr": 0.0625}},
        },
        "patch": {
            "size": PATCH,
            "stride": STRIDE,
            "border": False,
            "irrelevant_below": 0.01,
            "inside_above": 0.85,
            "image_height": SIDE,
            "image_width": SIDE,
            "channels": 1,
            "downscale": 2,
        },
        "image_normalisation": "cohort",
        "normalisation": {"mean": [0.4], "std": [0.2]},
        "class_names": list(class_names),
        "precision": "float32",
        "proof": None,
        "reading": None,
        "decision": {
            "rule": "counts",
            "weights": [],
            "tau": 0.43,
            "share_positive": None,
            "networks": 1,
        },
        "likeness": None,
        "ledger": None,
        "results": results,
        "privacy": "No guarantee & no promise.",
    }
    return package.from_json(package.Manifest, {**table, **changes})


def make_distilled(classes, *, side=PATCH, channels=1, steps=2):
    rng = np.random.default_rng(1)
    return Distilled(
        images=rng.normal(size=(steps, 3, side, side, channels)).astype(np.float32),
        labels=rng.normal(0.3, 0.5, (steps, 3, classes)).astype(np.float32),
        log_lr=np.log(np.linspace(0.01, 0.04, 2 * steps, dtype=np.float32)),
    )


def make_contender(seed, networks):
    """Figures as `gxdistill evaluate` writes them, of scores drawn by chance."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    scores = rng.normal(0.4 + 0.2 * labels, 0.2)
    found = decision.summarise(scores, labels, 0.5, patients=np.arange(60).astype(str), repeats=50)
    false_positive, true_positive, _ = metrics.roc_curve(scores, labels)
    spread = {"std": 0.0123 if networks > 1 else None, "n": networks}
    images = {
        name: {
            "mean": found[name]["value"],
            **spread,
            "low": found[name]["low"],
            "high": found[name]["high"],
        }
        for name in ("sen", "spe", "hm", "auc")
    }
    return {
        "balanced_patch_accuracy": {"mean": 0.5 + seed / 100, **spread},
        "images": {**images, "images": 60, "tau": 0.5, "undecidable": float(seed == 1)},
        "roc": {"false_positive": false_positive.tolist(), "true_positive": true_positive.tolist()},
    }


def write_evaluation(workdir, contenders):
    digest = package.digest(workdir / "package.gxd")
    networks = {"network": {"name": "convnet", "options": {}}, "package": digest, "init": "fresh"}
    contenders["distilled"]["networks"] = networks
    ours, ceiling = contenders["distilled"]["images"], contenders["all_patches"]["images"]
    shares = {name: ours[name]["mean"] / ceiling[name]["mean"] for name in ("hm", "auc")}
    shares["balanced_patch_accuracy"] = 0.877
    content = {"name": "trial", "package_bytes": 1, "cohort_bytes": 1}
    storage.write_json(
        workdir / "evaluation.json", {**content, "contenders": contenders, "shares": shares}
    )


def write_heatmaps(workdir, side=SIDE, names=("a.png", "b.png", "c.png", f"{EVIL}.png")):
    rng = np.random.default_rng(2)
    corners = patch_corners((side, side), PATCH, STRIDE)
    probabilities = rng.dirichlet(np.ones(3), (4, len(corners))).astype(np.float32)
    probabilities[3] = [0.8, 0.1, 0.1]
    scores = decision.score("counts", probabilities)
    storage.write_arrays(
        workdir / "heatmaps.npz",
        images=rng.integers(0, 256, (4, side, side), np.uint8),
        probabilities=probabilities,
        corners=corners,
        size=np.int32(PATCH),
        labels=np.array([0, 0, 1, 1], np.int32),
        names=np.array(names),
        scores=scores,
        decisions=decision.decide(scores, 0.43),
        tau=np.float64(0.43),
    )


def write_all(workdir):
    """Leaves what every stage leaves."""
    write_cohort(workdir, make_cohort(CLASSES), (Quarantined(f"{EVIL}.png", f"broken: {EVIL}"),))
    contenders = {
        name: make_contender(seed, networks)
        for seed, (name, networks) in enumerate(
            [("all_patches", 2), ("class_means", 3), ("distilled", 5), ("random_real", 1)]
        )
    }
    results = {k: v for k, v in contenders["distilled"].items() if k != "roc"}
    content = package.Package(make_distilled(3), make_manifest(CLASSES, results))
    package.save(workdir / "package.gxd", content)
    write_evaluation(workdir, contenders)
    write_heatmaps(workdir)
    lines = [{"step": s, "loss": 2 / s} for s in range(10, 1210, 10)]
    lines += [{"step": s, "accuracy": s / 2000} for s in range(400, 1201, 400)]
    lines = sorted(lines, key=lambda line: line["step"])
    (workdir / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class Page(HTMLParser):
    """Reads a page; refuses tags that are not closed in their turn."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(path.read_text())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    def every(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


def decoded(image):
    """The pixels of an `img` element."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))))
