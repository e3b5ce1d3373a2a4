"""The sections that show pictures: the distilled images, and whole images with heat maps."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from gxdistill.distill import init
from gxdistill.evaluation import zones
from gxdistill.report import pictures
from gxdistill.report.findings import Findings
from gxdistill.report.markup import Markup, count, signed, tag

_OPEN_IMAGES = 36  # Distilled ones that are shown unfolded.
_MOST_IMAGES = {True: 96, False: 36}  # Small ones or not: the page stays below 3 MB.
_SMALL = 64  # Pixels.
_RATES = 8  # That are written of a step.
_MOST_BARS = 5
_PER_IMAGE = ("images", "probabilities", "labels", "names", "scores", "decisions")


class _Scale(NamedTuple):
    """What the bars of all labels have in common: class names, lowest and highest value."""

    names: tuple[str, ...]
    low: float
    high: float


def distilled(findings: Findings) -> Iterator[Markup]:
    """Shows the distilled images with their labels and learning rates."""
    data, manifest = findings.package.distilled, findings.manifest
    steps, per_step = data.images.shape[:2]
    mean, std = (np.array(values, np.float32) for values in manifest.normalisation)
    pixels = np.asarray(data.images) * std + mean
    low, high = pictures.grey_range(pixels)
    rule = manifest.distillation.label_rule
    labels = np.asarray(init.targets(data.labels, rule))
    rates = np.exp(np.asarray(data.log_lr, np.float64)).reshape(-1, steps)
    yield tag("p", *_how_to_read(findings, labels, low, high))
    grey = np.rint(255 * np.clip((pixels - low) / (high - low), 0, 1)).astype(np.uint8)
    most = _MOST_IMAGES[pixels.shape[2] <= _SMALL]
    bars = _Scale(manifest.class_names, min(0, labels.min()), max(1, labels.max()))
    groups = [
        _step(s, grey[s, :most], labels[s], rates[:, s], bars)
        for s in range(min(steps, max(1, most // per_step)))
    ]
    unfolded = max(1, _OPEN_IMAGES // per_step)
    yield tag("ol", *groups[:unfolded], class_="steps")
    if rest := groups[unfolded:]:
        summary = tag("summary", f"The next {count(len(rest), 'step')}")
        yield tag("details", summary, tag("ol", *rest, class_="steps", start=unfolded + 1))
    left = steps * per_step - len(groups) * min(per_step, most)
    if left:
        yield tag("p", f"{count(left, 'further image')} in the package.", class_="note")


def _how_to_read(findings: Findings, labels: np.ndarray, low: float, high: float) -> Iterator[str]:
    epochs = findings.manifest.distillation.epochs
    yield "A network is trained on these images alone, one step after another"
    yield f", {epochs} times over. " if epochs > 1 else ". "
    yield "Under each image is its soft label, what the network is to answer, "
    if not findings.is_learned:
        yield "given and not learned, as the images are not. "
    elif findings.manifest.distillation.label_rule == "raw":
        yield "learned without bounds: it may leave the range from 0 to 1. "
    else:
        yield "learned as probabilities. "
    if labels.shape[-1] > _MOST_BARS:
        yield f"Of {labels.shape[-1]} classes the {_MOST_BARS} largest are shown. "
    yield f"The grey range, the same for all images, goes from {signed(low)} to "
    yield f"{signed(high)}, where a real image goes from 0, black, to 1, white; 1% of the pixels "
    yield "lie beyond either end."


def _step(
    number: int,
    pixels: np.ndarray,
    labels: np.ndarray,
    rates: np.ndarray,
    scale: _Scale,
) -> Markup:
    tiles = [
        _tile(picture, label, f"step {number + 1}, image {i + 1}", scale)
        for i, (picture, label) in enumerate(zip(pixels, labels, strict=False))
    ]
    title = tag("h3", f"Step {number + 1}", tag("small", _rates(rates)))
    return tag("li", title, tag("div", *tiles, class_="tiles"))


def _rates(rates: np.ndarray) -> str:
    """Describes the rates of a step in all epochs; a rate that they share, once; of many, few."""
    written = [f"{rate:.3g}" for rate in rates]
    if len(set(written)) == 1:
        return f"learning rate {written[0]}"
    if len(written) > _RATES:
        middle = f"{len(written) - _RATES + 1} others"
        written = [*written[: _RATES - 2], middle, written[-1]]
    return f"learning rates {', '.join(written)}"


def _tile(pixels: np.ndarray, label: np.ndarray, what: str, scale: _Scale) -> Markup:
    top = np.argsort(-label, kind="stable")[:_MOST_BARS]
    chosen = range(len(label)) if len(label) <= _MOST_BARS else top.tolist()
    bars = (_bar(scale.names[k], float(label[k]), scale) for k in chosen)
    alt = f"Distilled image, {what}; its label is highest for {scale.names[int(top[0])]}."
    return tag(
        "div",
        tag("img", alt=alt, **pictures.source(pictures.distilled(pixels))),
        tag("ul", *bars, class_="bars"),
        class_="tile",
    )


def _bar(name: str, value: float, scale: _Scale) -> Markup:
    width = scale.high - scale.low
    left, right = (100 * (end - scale.low) / width for end in sorted((0.0, value)))
    bar = tag("rect", x=f"{left:.1f}", width=f"{right - left:.1f}", height=4)
    box = {"viewBox": "0 0 100 4", "preserveAspectRatio": "none", "aria_hidden": "true"}
    text = tag("span", tag("b", name), " ", tag("i", signed(value)))
    return tag("li", text, tag("svg", bar, **box))


def heat_maps(findings: Findings) -> Iterator[Markup]:
    """Shows whole test images with what was predicted of their patches and decided of them."""
    maps, names = findings.heatmaps, findings.image_classes
    if maps is None:
        why = (
            "The network has not been looked at on whole images yet. Run `gxdistill evaluate`, "
            "then `gxdistill report` again."
        )
        if findings.manifest.decision is None:
            why = "There are none: whole images are not decided here, only patches."
        yield tag("p", why, class_="absent")
        return
    yield tag(
        "p",
        "Drawn by chance from the test patients, half of them positive. Colour is the predicted "
        f"probability of {names[1]} against {names[0]}, averaged over the overlapping patches "
        "that cover a pixel. Patches taken for irrelevant add no colour.",
    )
    gradient = tag("span", style=f"background-image: {pictures.HEAT_GRADIENT}")
    yield tag("div", f"0, {names[0]}", gradient, f"1, {names[1]}", class_="legend")
    if (how := findings.manifest.decision) is not None and how.weights:
        yield _zones(how.weights, names)
    for i in range(len(maps["images"])):
        yield _case({name: maps[name][i] for name in _PER_IMAGE}, maps, names)


def _zones(weights: tuple[float, ...], names: tuple[str, ...]) -> Markup:
    """Draws how much each zone of the organ counts, by `evaluation.zones`."""
    most = max(*map(abs, weights[:-1]), 1e-9)
    cells = []
    for zone, weight in enumerate(weights[:-1]):
        row, column = divmod(zone, zones.COLUMNS)
        x, y, opacity = 50 * column, 30 * row, f"{0.6 * abs(weight) / most:.2f}"
        kind = "against" if weight < 0 else None
        box = {"width": 48, "height": 28, "fill_opacity": opacity, "class_": kind}
        cells.append(tag("rect", x=x, y=y, **box))
        cells.append(tag("text", signed(weight), x=x + 24, y=y + 18, text_anchor="middle"))
    told = (
        "How much each zone of the organ counts, as seen: three rows by four columns, each of "
        f"equal area. The higher, the more do patches there that look like {names[1]} speak for it."
    )
    size = f"0 0 {50 * zones.COLUMNS} {30 * zones.ROWS}"
    drawn = tag("svg", *cells, viewBox=size, class_="zones", role="img", aria_label=told)
    return tag("figure", drawn, tag("figcaption", told))


def _case(
    case: Mapping[str, Any], maps: Mapping[str, np.ndarray], names: tuple[str, ...]
) -> Markup:
    name, pixels = str(case["names"]), case["images"]
    truth, decided = names[int(case["labels"])], _decided(int(case["decisions"]), names)
    photograph = pictures.source(pictures.whole(pixels))
    place = maps["corners"], int(maps["size"]), pixels.shape
    heat = pictures.source(pictures.overlay(*pictures.heat_map(case["probabilities"], *place)))
    coloured = tag("img", alt=f"Heat map of {name}, decided: {decided}.", **heat)
    layers = tag("span", tag("img", alt="", **photograph), coloured, class_="layers")
    return tag(
        "article",
        _captioned(tag("img", alt=f"Test image {name}, {truth}.", **photograph), name),
        _captioned(layers, "with the heat map"),
        tag("div", *_account(case, float(maps["tau"]), names)),
        class_="case",
    )


def _decided(decision: int, names: tuple[str, ...]) -> str:
    return "undecidable" if decision < 0 else names[decision]


def _account(case: Mapping[str, Any], tau: float, names: tuple[str, ...]) -> Iterator[Markup]:
    """Describes a decision."""
    decision, label, score = int(case["decisions"]), int(case["labels"]), float(case["scores"])
    right = "" if decision < 0 else ", right" if decision == label else ", wrong"
    kind = "decision wrong" if decision == 1 - label else "decision"
    yield tag("p", f"Decided: {_decided(decision, names)}{right}", class_=kind)
    yield tag("p", f"In truth: {names[label]}")
    if decision < 0:
        yield tag("p", "There is no score: no patch was taken for relevant.")
        return
    yield tag("p", f"Score {score:.3f}, {'at least' if decision else 'below'} tau {tau:.3f}.")
    yield _number_line(score, tau)


def _captioned(picture: Markup, text: str) -> Markup:
    return tag("figure", picture, tag("figcaption", text))


def _number_line(score: float, tau: float) -> Markup:
    """Draws a score and the threshold between 0 and 1."""
    at, edge = 10 + 180 * score, 10 + 180 * tau
    return tag(
        "svg",
        tag("line", x1=10, x2=190, y1=20, y2=20),
        tag("line", x1=f"{edge:.1f}", x2=f"{edge:.1f}", y1=13, y2=27, class_="tau"),
        tag("text", "tau", x=f"{edge:.1f}", y=9, text_anchor="middle", class_="tau-text"),
        tag("circle", cx=f"{at:.1f}", cy=20, r=4.5),
        tag("text", "0", x=10, y=38, text_anchor="middle"),
        tag("text", "1", x=190, y=38, text_anchor="middle"),
        viewBox="0 0 200 42",
        class_="scale",
        aria_hidden="true",
    )
