"""The page of an evaluation: figures, attacks, and the patients that were segmented worst."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata
from gxdistill.report.markup import NONE, Markup, count, tag
from gxdistill.report.sections.audit import means, not_tested, table
from gxdistill.report.style import document
from gxdistill.tasks.mixup import page
from gxdistill.tasks.mixup.attacking import KNOWN, LIKENESS, NETWORK
from gxdistill.tasks.mixup.evaluating import AUDIT, CASES, RESULT

_MAX_BYTES = 1 << 26
_SHOWN = {
    "target": "Target",
    "reference": "Reference",
    "mixture": "Mixture, as sent",
    "reconstruction": "Rebuilt by the clearest attack",
    "unmixed": "Un-mixed",
    "truth": "Truth",
}
_WAYS = {
    "raw images": ("Raw images", "the upper bound"),
    "unmixed": ("Mixtures, un-mixed", "as clients do"),
    "mixture alone": ("Mixtures", "the server's answer as it is, the lower bound"),
    "noise": ("Gaussian noise", "of the mixtures' SSIM"),
    "deformation": ("Deformation", "undone in the mask; of the mixtures' SSIM, or as near"),
}
_ATTACKS = {
    LIKENESS: ("Likeness", "the mixture, or the mean of several"),
    NETWORK: ("A trained network", "which separates mixtures"),
    KNOWN: ("Known references", "subtracted"),
}
_PROMISE = (
    "Mixing is no encryption. A mixture is a weighted mean, in which the patient's slice is one of "
    "two parts. Whoever knows the reference subtracts it and has the slice; whoever sees several "
    "mixtures of one patient averages them; whoever holds raw images of the patient may find the "
    "mixture by likeness. What is measured here are simple attacks: better ones find no fewer."
)


def write(workdir: Path, *, show: bool = True) -> Path:
    """Writes `workdir/report.html`, one file that asks nothing of any network and runs no script.

    Args:
      workdir: what `gxdistill mixup evaluate` wrote into.
      show: whether patients are shown: pictures are for the hospital's own eyes.

    Raises:
      UserError: nothing was evaluated there, or a file cannot be read.
    """
    for name in (RESULT, AUDIT):
        if not (workdir / name).exists():
            raise UserError(f"{workdir / name} is missing. Run `gxdistill mixup evaluate` first.")
    cases = None
    if show:
        content = storage.read_bytes(workdir / CASES, _MAX_BYTES)
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            cases = dict(file)
    path = workdir / "report.html"
    figures = storage.read_json(workdir / RESULT), storage.read_json(workdir / AUDIT)
    storage.write_text(path, _page(*figures, cases))
    return path


def _page(result: Metadata, audit: Metadata, cases: Mapping[str, np.ndarray] | None) -> str:
    dice = result["contenders"]["unmixed"]["dice"]
    title = f"Dice {dice:.3f} through mixtures"
    verdict = audit["verdicts"]["singling_out"]
    low, high = result["law"]
    header = tag(
        "header",
        tag("p", "gxdistill mixup report", class_="kicker"),
        tag("h1", title),
        tag("p", verdict["words"], class_="verdict"),
    )
    main = tag(
        "main",
        tag("aside", tag("h2", "Privacy"), tag("p", _PROMISE), class_="alarm"),
        tag("section", tag("h2", "What is sent"), _ways(result, low, high)),
        tag("section", tag("h2", "Attacks"), *means(audit), _attacks(audit)),
        *([] if cases is None else [_cases(cases)]),
        tag("section", tag("h2", "Not tested"), *not_tested(audit)),
    )
    return document(title, header, main)


def _ways(result: Metadata, low: float, high: float) -> Markup:
    ways = result["contenders"]
    return table(
        f"{count(result['patients'], 'test patient')}; lambda, the patient's share, is uniform on "
        f"{low:g} to {high:g}. Dice and HD95, in voxels, are means over patients and classes. SSIM "
        f"is that of what is sent and the raw image. Found: patients whose raw image is the one "
        f"most like what is sent, with a 95% interval.",
        ["Sent", "Dice", "HD95", "SSIM", "Found"],
        [
            (
                [title, tag("small", what)],
                [
                    f"{ways[name]['dice']:.3f}",
                    f"{ways[name]['hd95']:.2f}",
                    f"{ways[name]['ssim']:.3f}",
                    _found(ways[name]),
                ],
            )
            for name, (title, what) in _WAYS.items()
            if name in ways
        ],
    )


def _found(figures: Metadata) -> list[str]:
    share = figures["precision_at_1"]
    ends = f"{100 * share['low']:.0f} to {100 * share['high']:.0f}%"
    return [f"{100 * share['value']:.0f}%", tag("small", ends)]


def _attacks(audit: Metadata) -> Markup:
    outcome = audit["tests"]["singling_out"]
    rows: list[tuple[str | list[str], list[str | list[str]]]] = [
        (
            [title, tag("small", what)],
            [
                _found(outcome["attacks"][name]),
                f"{outcome['attacks'][name]['over_chance']:.1f}",
                f"{outcome['attacks'][name]['mean_average_precision']:.2f}",
                f"{outcome['attacks'][name]['ms_ssim']:.3f}",
            ],
        )
        for name, (title, what) in _ATTACKS.items()
        if name in outcome["attacks"]
    ]
    guess = f"{outcome['ms_ssim_of_mean_patient']:.3f}"
    rows.append((["The mean patient", tag("small", "no mixture")], [NONE, NONE, NONE, guess]))
    return table(
        f"Each attack rebuilds the patient, and looks for the most like of "
        f"{count(outcome['members'], 'raw image')}. Mean average precision: mean of 1 / rank. "
        f"MS-SSIM: of what was rebuilt and the patient, over slices that show anything.",
        ["Attack", "Found", "Times chance", "Mean average precision", "MS-SSIM"],
        rows,
    )


def _cases(cases: Mapping[str, np.ndarray]) -> Markup:
    return tag("section", tag("h2", "Worst patients"), *_rows(cases))


def _rows(cases: Mapping[str, np.ndarray]) -> Iterator[Markup]:
    yield tag("p", "Patients are shown: this part is for the hospital's own eyes.", class_="note")
    total = len(cases["target"])
    for at in range(total):
        yield tag("h3", f"{at + 1} of {total}")
        yield page.in_threes({text: cases[key][at] for key, text in _SHOWN.items()})
