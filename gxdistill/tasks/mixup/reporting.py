"""The page of an evaluation: figures, and the patients that were segmented worst."""

import io
from pathlib import Path

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata
from gxdistill.report import pictures
from gxdistill.report.markup import Markup, count, tag
from gxdistill.report.style import document
from gxdistill.tasks.mixup.evaluating import CASES, RESULT

_MAX_BYTES = 1 << 26
_SHOWN = {
    "target": "Target",
    "reference": "Reference",
    "mixture": "Mixture, as sent",
    "reconstruction": "Rebuilt from it",
    "unmixed": "Un-mixed",
    "truth": "Truth",
}
_PROMISE = (
    "Mixing is no encryption. A mixture is a weighted mean, in which the patient's slice is one of "
    "two parts. Whoever knows the reference subtracts it and has the slice; whoever sees several "
    "mixtures of one patient averages them; whoever holds raw images of the patient may find the "
    "mixture by likeness. What is measured here are simple attacks: better ones find no fewer."
)


def write(workdir: Path) -> Path:
    """Writes `workdir/report.html`, one file that asks nothing of any network.

    Raises:
      UserError: nothing was evaluated there, or a file cannot be read.
    """
    if not (workdir / RESULT).exists():
        raise UserError(f"{workdir / RESULT} is missing. Run `gxdistill mixup evaluate` first.")
    result = storage.read_json(workdir / RESULT)
    content = storage.read_bytes(workdir / CASES, _MAX_BYTES)
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        cases = dict(file)
    path = workdir / "report.html"
    storage.write_text(path, _page(result, cases))
    return path


def _page(result: Metadata, cases: dict[str, np.ndarray]) -> str:
    patients, attacks = result["patients"], result["reidentified"]
    dice = result["contenders"]["unmixed"]["dice"]
    title = f"Dice {dice:.3f} through mixtures"
    header = tag(
        "header",
        tag("p", "gxdistill mixup report", class_="kicker"),
        tag("h1", title),
        tag(
            "p",
            f"{count(patients, 'test patient')}. Of a server that does not know the references, "
            f"mere likeness finds {_share(attacks['likeness'])} of them in a gallery of raw "
            f"images; one that knows them finds {_share(attacks['known references'])}.",
            class_="verdict",
        ),
    )
    rows = (
        tag("tr", tag("td", name), *(tag("td", f"{row[key]:.3f}") for key in ("dice", "hd95")))
        for name, row in result["contenders"].items()
    )
    head = tag("tr", *(tag("th", text) for text in ("", "Dice", "HD95, voxels")))
    main = tag(
        "main",
        tag("aside", tag("h2", "Privacy"), tag("p", _PROMISE), class_="alarm"),
        tag("section", tag("h2", "Figures"), tag("table", head, *rows)),
        tag("section", tag("h2", "Worst patients"), *_cases(cases)),
    )
    return document(title, header, main)


def _share(attack: Metadata) -> str:
    share = attack["precision_at_1"]
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _cases(cases: dict[str, np.ndarray]) -> list[Markup]:
    rows = []
    for at in range(len(cases["target"])):
        figures = (
            tag(
                "figure",
                tag(
                    "img",
                    alt=text,
                    **pictures.source(pictures.distilled(cases[key][at][..., None])),
                ),
                tag("figcaption", text),
            )
            for key, text in _SHOWN.items()
        )
        rows.append(tag("div", *figures, class_="pair"))
    return rows
