"""The sections in words: privacy, the cohort, how the package was made."""

from collections.abc import Iterator

from gxdistill import package
from gxdistill.pytrees import Metadata
from gxdistill.report.findings import Findings
from gxdistill.report.markup import Markup, count, tag

_OPEN_QUARANTINE = 5  # Entries that are shown unfolded.
# As text: the page points nowhere.
_REFERENCES = (
    "Wang, Zhu, Torralba and Efros: Dataset distillation. https://arxiv.org/abs/1811.10959",
    "Li, Togo, Ogawa and Haseyama: Soft-label anonymous gastric X-ray image distillation. "
    "https://arxiv.org/abs/2104.02857",
)


def privacy(findings: Findings) -> Markup:
    """Says in plain words what is promised to the patients, and what is not."""
    real = findings.manifest.distillation.started_from == "real"
    warning = tag(
        "p",
        "Warning: these distilled images started from real images of patients, and may still "
        "show them. Do not pass this package on.",
        class_="warning",
    )
    return tag(
        "aside",
        tag("h2", "Privacy", id="privacy"),
        *([warning] if real else []),
        tag("p", tag("strong", f"Guarantee: {package.guarantee(findings.manifest.ledger)}.")),
        tag("p", findings.manifest.privacy),
        tag(
            "p",
            "That the images look like noise, or are few, proves nothing. Treat the package as "
            "you would treat the images that it was made of. This page shows more than the "
            "package: whole test images and the names of files. It stays with the cohort.",
        ),
        tag("p", "gxdistill is a tool for research. It is not a medical device."),
        class_="alarm" if real else None,
        aria_labelledby="privacy",
    )


def cohort(findings: Findings) -> Iterator[Markup]:
    """Counts the cohort, and names what was left out of it."""
    known = findings.cohort
    yield tag(
        "p",
        f"{count(known['images'], 'image')} of {count(known['patients'], 'patient')}, from "
        f"{known['manifest']}. Every patient is in one part only, training or test.",
    )
    splits = [known["splits"][split] for split in ("train", "test")]
    patches = [known["patches"][split] for split in ("train", "test")]
    rows = [
        ("Patients", [part["patients"] for part in splits], None),
        ("Images", [part["images"] for part in splits], None),
        *((n, [p["labels"][n] for p in splits], "sub") for n in findings.image_classes),
        ("Patches", [sum(part.values()) for part in patches], None),
        *((n, [part[n] for part in patches], "sub") for n in findings.manifest.class_names),
    ]
    head = tag("tr", *(tag("th", t, scope="col") for t in ("", "Training", "Test")))
    lines = (
        tag("tr", tag("th", n, scope="row"), *(tag("td", f"{v:,}") for v in both), class_=kind)
        for n, both, kind in rows
    )
    yield tag("table", tag("thead", head), tag("tbody", *lines), class_="facts")
    sites = ", ".join(f"{site} ({number:,})" for site, number in known["sites"].items())
    yield tag("p", f"Images by site: {sites}.")
    yield from _reading(known.get("reading", {}), known["quarantine"])
    yield from _quarantine(known["quarantine"])


def _reading(reading: Metadata, quarantine: Metadata) -> Iterator[Markup]:
    """Says how files became images; nothing of images that were not read from files."""
    if not reading:
        return
    bits = ", ".join(f"{bits} bits ({n:,})" for bits, n in reading["bits"].items())
    windows = ", ".join(f"{name} ({n:,})" for name, n in reading["windows"].items())
    yield tag("p", f"Stored pixels: {bits}; brought to 8 bits: {windows}.")
    done = {"mask": "painted over", "keep": "kept", "refuse": "refused"}[reading["text"]]
    refused = sum(n for why, n in quarantine["reasons"].items() if why.startswith("burned-in text"))
    with_text = count(reading["with_text"] + refused, "image")
    yield tag(
        "p",
        f"{with_text} with burned-in text in the border: {done}. What is faint, or over the "
        f"middle, is not found.",
    )
    if reading["segmented"]:
        yield tag("p", f"Masks made by a segmenter: {reading['segmented']:,}.")


def _quarantine(quarantine: Metadata) -> Iterator[Markup]:
    entries = quarantine["entries"]
    if not entries:
        yield tag("p", "No entry was quarantined.")
        return
    head = tag("tr", tag("th", "Quarantined", scope="col"), tag("th", "Reason", scope="col"))
    rows = (tag("tr", tag("td", bad["name"]), tag("td", bad["reason"])) for bad in entries)
    yield tag(
        "details",
        tag("summary", f"{count(len(entries), 'entry', 'entries')} quarantined and not used"),
        tag("table", tag("thead", head), tag("tbody", *rows)),
        open="" if len(entries) <= _OPEN_QUARANTINE else None,
    )


def making(findings: Findings) -> Iterator[Markup]:
    """Says how the package was made, with the papers that the method is from."""
    facts = [*_facts(findings.manifest), ("SHA-256 of the package", findings.package.sha256 or "")]
    rows = [(tag("dt", name), tag("dd", text)) for name, text in facts]
    yield tag("dl", *(part for row in rows for part in row))
    settings = sorted(_flat(findings.manifest.distillation.settings))
    pairs = [(tag("dt", name), tag("dd", value)) for name, value in settings]
    yield tag(
        "details",
        tag("summary", "All settings of the distillation"),
        tag("dl", *(part for pair in pairs for part in pair)),
    )
    yield tag("ul", *(tag("li", text) for text in _REFERENCES), class_="references")


def _facts(manifest: package.Manifest) -> Iterator[tuple[str, str]]:
    loop, patch, init = manifest.distillation, manifest.patch, manifest.init
    options = "".join(f", {name} {value}" for name, value in manifest.network.options.items())
    yield "Network", manifest.network.name + options
    held = "which the package holds" if init.is_packaged else "drawn anew from it"
    known = f"known: those of seed {init.seed}, {held}"
    yield "Initial weights", known if init.is_known else "random, of any seed"
    images, epochs = count(loop.images_per_step, "image"), count(loop.epochs, "time")
    yield (
        "Training on it",
        f"{count(loop.steps, 'step')} of {images}, {epochs} over, {loop.inner['name']}",
    )
    yield "Loss", loop.loss.replace("_", " ")
    origin = package.origin(loop.started_from)
    learned = count(loop.outer_steps, "outer step") if loop.outer_steps else "none"
    yield "Distilling", f"{learned}, from {origin}"
    labels = {"raw": "learned as they are", "softmax": "softmax of learned logits"}
    yield "Labels", labels[loop.label_rule] if loop.outer_steps else "given, not learned"
    border = ", and flush with the far edges" if patch.border else ""
    yield "Patches", f"{patch.size} pixels wide, every {patch.stride} pixels{border}"
    outside, inside = patch.irrelevant_below, patch.inside_above
    rule = f"irrelevant up to an organ share of {outside:g}, the image's label from {inside:g}"
    yield "Area rule", f"{rule}, dropped in between"
    pairs = zip(*manifest.normalisation, strict=True)
    yield "Normalisation", "; ".join(f"mean {mean:.4f}, std {std:.4f}" for mean, std in pairs)
    yield "Decision", package.decision(manifest.decision)


def _flat(tree: Metadata, at: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", str(value)
