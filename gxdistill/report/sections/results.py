"""The sections that say how good the distilled images are, and how small."""

from collections.abc import Iterator

from gxdistill.pytrees import Metadata
from gxdistill.report import figures
from gxdistill.report.findings import Findings
from gxdistill.report.markup import NONE, Markup, by, count, join, share, size, tag

_EVALUATE = "Run `gxdistill evaluate`, then `gxdistill report` again."
_CONTENDERS = {
    "distilled": "Distilled images",
    "fresh_networks": "Distilled images, other initial weights",
    "hard_labels": "Distilled images, hard labels",
    "shuffled": "Distilled images, in random order at one rate",
    "random_real": "Random real patches",
    "random_real_soft": "Random real patches, soft labels",
    "class_means": "Class means",
    "kmeans_centres": "k-means centres",
    "all_patches": "All real patches, the ceiling",
}
_FIGURES = {
    "balanced_patch_accuracy": "Patch accuracy",
    "sen": "Sensitivity",
    "spe": "Specificity",
    "hm": "HM",
    "auc": "AUC",
}
_SPELT = {
    "balanced_patch_accuracy": "a balanced patch accuracy",
    "hm": "a harmonic mean of sensitivity and specificity",
    "auc": "an area under the ROC curve",
}


def _figure(contender: Metadata, name: str) -> Metadata | None:
    part = contender if name == "balanced_patch_accuracy" else contender.get("images") or {}
    return part.get(name)


def _listed(parts: list[Markup]) -> Markup:
    *most, last = parts
    return join(*(join(part, ", ") for part in most[:-1]), *most[-1:], " and " * bool(most), last)


def _missing(findings: Findings) -> str:
    if findings.outdated:
        return f"The evaluation in this folder is of another package. {_EVALUATE}"
    return f"The package has not been evaluated beside baselines yet. {_EVALUATE}"


def ratio(findings: Findings) -> str:
    """Says how many times the cohort is as large as the package."""
    times = findings.image_bytes(findings.cohort["images"]) / findings.package_bytes
    return f"{times:,.0f}" if times >= 10 else f"{times:.1f}"


def verdict(findings: Findings) -> Markup:
    """Says in one paragraph what was made and what it is worth."""
    data, train = findings.package.distilled, findings.cohort["splits"]["train"]
    steps, per_step, height, width, _ = data.images.shape
    of_images = f" of {count(train['images'], 'image')}" * (findings.unit == "patch")
    summary = join(
        tag("strong", findings.units(steps * per_step).replace(" ", " synthetic ")),
        f" of {by(height, width)} pixels, with soft labels and learning rates, stand in for ",
        f"{findings.units(findings.patches)}{of_images} of {count(train['patients'], 'patient')}. ",
        "" if findings.is_learned else "No outer step was made: they are as they were drawn. ",
        "They make a package of ",
        tag("strong", size(findings.package_bytes)),
        f"; the cohort is {ratio(findings)} times as large. ",
    )
    worth = tuple(_worth(findings)) if findings.contenders["distilled"] else ()
    missing = () if findings.evaluation else (_missing(findings),)
    return tag("p", summary, *worth, *missing, class_="verdict")


def _worth(findings: Findings) -> Iterator[str]:
    ours, shares = findings.contenders["distilled"], findings.shares
    names = ("hm", "auc") if _figure(ours, "auc") else ("balanced_patch_accuracy",)
    parts = [(name, part) for name in names if (part := _figure(ours, name))]
    means = [join(f"{_SPELT[name]} of ", tag("strong", f"{p['mean']:.2f}")) for name, p in parts]
    reach = "reaches" if parts[0][1]["n"] == 1 else "reach on average"
    yield join(
        _trained(ours, findings), f", trained on nothing else, {reach} ", _listed(means), " "
    )
    yield f"on the {count(findings.cohort['splits']['test']['images'], 'image')} of other patients"
    at_chance = [name for name, _ in parts if name in shares and shares[name] is None]
    if at_chance:
        yield ". The ceiling, a network trained on all real patches, is itself no better than "
        yield f"chance in its {_listed([join(_FIGURES[name]) for name in at_chance])}"
    elif all(name in shares for name, _ in parts):
        reached = _listed([tag("strong", share(shares[name])) for name, _ in parts])
        patches = sum(findings.cohort["patches"]["train"].values())
        named, trained = findings.manifest.network.name, _network(ours, findings)
        network = "the same network" if trained == named else f"a network ({named})"
        yield join(": ", reached, f" of the ceiling, {network} trained on all ")
        yield count(patches, "real patch", "real patches")
    yield ". "


def _network(ours: Metadata, findings: Findings) -> str:
    """Names what was evaluated: the package's own network, or another one of the zoo."""
    evaluated = ours.get("networks")
    return evaluated["network"]["name"] if evaluated else findings.manifest.network.name


def _trained(ours: Metadata, findings: Findings) -> str:
    name, number = _network(ours, findings), ours["balanced_patch_accuracy"]["n"]
    if number == 1:
        start = ours.get("networks", {}).get("init", findings.manifest.init.rule)
        known = start == "known"
        return f"The network ({name}){' with the known initial weights' * known}"
    return f"{number} networks ({name}) with fresh initial weights"


def comparison(findings: Findings) -> Iterator[Markup]:
    """Sets the distilled images beside baselines and the ceiling."""
    contenders = findings.contenders
    if not contenders["distilled"]:
        yield tag("p", _missing(findings), class_="absent")
        return
    images = any(part.get("images") for part in contenders.values())
    columns = dict(_FIGURES) if images else {"balanced_patch_accuracy": "Patch accuracy"}
    places = {name: place for place, name in enumerate(_CONTENDERS)}
    order = sorted(contenders, key=lambda name: places.get(name, places["fresh_networks"]))
    rows = [_row(name, contenders[name], columns) for name in order]
    head = tag("tr", tag("th", "Trained on", scope="col"), *_heads(columns))
    foot = [_shares_row(findings.shares, columns)] if findings.shares else []
    caption = join(*_caption(findings, images))
    yield tag(
        "table",
        tag("caption", caption),
        tag("thead", head),
        tag("tbody", *rows),
        *(tag("tfoot", row) for row in foot),
        class_="contest",
    )
    if not findings.evaluation:
        yield tag("p", _missing(findings), class_="absent")
    elif len(contenders) == 1:
        yield tag("p", "No baselines were asked for (evaluate.baselines).", class_="absent")


def _heads(columns: Metadata) -> Iterator[Markup]:
    for label in columns.values():
        yield tag("th", label, scope="col")


def _row(name: str, contender: Metadata, columns: Metadata) -> Markup:
    number = contender["balanced_patch_accuracy"]["n"]
    about = count(number, "network")
    images = contender.get("images") or {}
    if images.get("undecidable"):
        about += f", {images['undecidable']:.3g} of {images['images']} images undecidable"
    title = _CONTENDERS.get(name, f"Distilled images, {name.replace('_', ' ')}")  # on_NETWORK
    cells = (cell(_figure(contender, key), label) for key, label in columns.items())
    ours = "ours" if name == "distilled" else None
    return tag("tr", tag("th", title, tag("small", about), scope="row"), *cells, class_=ours)


def cell(part: Metadata | None, label: str) -> Markup:
    """Writes a figure with its deviation and interval into a table."""
    if part is None:
        return tag("td", NONE, data_label=label)
    mean = f"{part['mean']:.3f}" + ("" if part["std"] is None else f" ± {part['std']:.3f}")
    known = part.get("low") is not None
    interval = [tag("small", f"{part['low']:.3f} to {part['high']:.3f}")] if known else []
    return tag("td", tag("span", mean), *interval, data_label=label)


def _shares_row(shares: Metadata, columns: Metadata) -> Markup:
    cells = (
        tag("td", tag("span", _share(shares, key)), data_label=label)
        for key, label in columns.items()
    )
    return tag("tr", tag("th", "Distilled, share of the ceiling", scope="row"), *cells)


def _share(shares: Metadata, key: str) -> str:
    if key not in shares:
        return NONE
    return "ceiling at chance" if shares[key] is None else share(shares[key])


def _caption(findings: Findings, images: bool) -> Iterator[str]:
    yield "Test patients only. Mean ± standard deviation over networks. "
    yield "Patch accuracy: the mean recall over the classes. "
    if images:
        yield "Sensitivity, specificity, their harmonic mean (HM) and AUC are of whole images that "
        yield "could be decided, each contender at a threshold of its own, chosen on training "
        yield "patients; below them the 95% bootstrap interval over patients. Images of which "
        yield "every patch is taken for irrelevant are undecidable, and counted apart. "
    if len(findings.contenders) > 1:
        yield "Baselines train on as many images as there are distilled ones, for as many steps."


def roc(findings: Findings) -> Iterator[Markup]:
    """Draws the ROC curves of the distilled images and of the ceiling."""
    curves = {
        name: findings.contenders[name]
        for name in ("distilled", "all_patches")
        if findings.contenders.get(name, {}).get("roc")
    }
    if findings.evaluation is None:
        yield tag("p", _missing(findings), class_="absent")
    elif "distilled" not in curves:
        yield tag("p", "There is no curve: whole images are not decided here.", class_="absent")
    else:
        text = (
            "Whole test images that could be decided; the curve is averaged over the networks at "
            "equal false positives. The dots are the mean sensitivity and specificity at the "
            "thresholds that were chosen on training patients; the diagonal is chance."
        )
        shown = [tag("figure", figures.roc(curves), tag("figcaption", text))]
        bins = {name: part["reliability"] for name, part in curves.items() if _binned(part)}
        if bins:
            said = tag("figcaption", *_on_reliability(bins))
            shown.append(tag("figure", figures.reliability(bins), said))
        yield tag("div", *shown, class_="pair")


def _binned(contender: Metadata) -> bool:
    return contender.get("reliability") is not None


def _on_reliability(bins: Metadata) -> Iterator[str]:
    yield "Scores of the networks together, in ten bins, against the share of images in each that "
    yield "are positive: on the diagonal a score is a probability. "
    for name, title in (("distilled", "Distilled images"), ("all_patches", "All real patches")):
        if name in bins:
            part = bins[name]
            yield f"{title}: Brier score {part['brier']:.3f}, expected calibration error "
            yield f"{part['ece']:.3f}. "


def curves(findings: Findings) -> Iterator[Markup]:
    """Draws loss and accuracy over the outer steps."""
    ceiling = findings.contenders.get("all_patches")
    limit = ceiling["balanced_patch_accuracy"]["mean"] if ceiling else None
    drawn = [
        (figures.curve(findings.history, "loss", "loss"), _LOSS),
        (figures.curve(findings.history, "accuracy", "patch accuracy", limit), _ACCURACY),
    ]
    shown = [tag("figure", svg, tag("figcaption", text)) for svg, text in drawn if svg]
    if shown:
        yield tag("div", *shown, class_="pair")
    elif not findings.is_learned:
        yield tag("p", "No outer step was made, so there is no curve.", class_="absent")
    else:
        yield tag("p", "history.jsonl is missing or too short for a curve.", class_="absent")


_LOSS = "Loss of networks just trained on the distilled images, on real training patches."
_ACCURACY = (
    "Accuracy of such networks on a balanced draw of test patches. It is watched only: nothing "
    "was chosen by it."
)


def sizes(findings: Findings) -> Iterator[Markup]:
    """Compares the sizes of cohort and package."""
    cohort = findings.cohort
    shrunken = ""
    if cohort["downscale"] > 1:
        shrunken = f", read at {by(*cohort['read_size'])} and reduced {cohort['downscale']} times"
    whole = findings.image_bytes(cohort["images"])
    train = findings.image_bytes(cohort["splits"]["train"]["images"])
    rows = [
        ("Cohort, as pixels of 8 bits", whole),
        ("of this, the training images", train),
        ("Package, as it lies on the disk", findings.package_bytes),
    ]
    lines = [
        tag("tr", tag("th", name, scope="row"), tag("td", size(n)), tag("td", f"{n:,} bytes"))
        for name, n in rows
    ]
    caption = f"Images of {by(*cohort['image_size'])} pixels{shrunken}."
    last = tag("th", "Cohort : package", scope="row"), tag("td", f"{ratio(findings)} : 1")
    foot = tag("tfoot", tag("tr", *last, tag("td")))
    yield tag("table", tag("caption", caption), tag("tbody", *lines), foot, class_="facts")
