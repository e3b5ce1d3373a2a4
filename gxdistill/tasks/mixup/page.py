"""The client's page: what was sent, and what came of it."""

from collections.abc import Mapping, Sequence

import numpy as np

from gxdistill.package.mixup_file import MixupManifest
from gxdistill.report import pictures
from gxdistill.report.markup import Markup, count, tag
from gxdistill.report.style import document
from gxdistill.tasks.mixup.patients import Segmented

_MOST = 100  # Patients with pictures.


def make(manifest: MixupManifest, results: Sequence[Segmented]) -> str:
    """Writes the page, one file that asks nothing of any network.

    Args:
      manifest: of the client's file.
      results: of each patient.
    """
    patients, slices = len(results), sum(len(result.masks) for result in results)
    title = f"{count(patients, 'patient')} segmented through mixtures"
    header = tag(
        "header",
        tag("p", f"gxdistill mixup: {manifest.name}", class_="kicker"),
        tag("h1", title),
        tag(
            "p",
            f"{count(slices, 'slice')}, each sent as a mixture alone. Mixing is no encryption: a "
            f"mixture still shows something of the patient, and several of one patient show more.",
            class_="verdict",
        ),
    )
    sections = (_section(manifest, result) for result in results[:_MOST])
    return document(title, header, tag("main", *sections))


def _section(manifest: MixupManifest, result: Segmented) -> Markup:
    sizes = (result.masks > 0).sum((1, 2))
    at = int(sizes.argmax())
    levels = np.linspace(0, 255, len(manifest.class_names)).astype(np.uint8)
    shown = {
        "Slice, which stayed here": result.patient.slices[at],
        "Mixture, which was sent": np.rint(255 * result.mixture[at]).astype(np.uint8),
        "Mask": levels[result.masks[at]],
    }
    volumes = ", ".join(
        f"{name} {(result.masks == k).sum():,} voxels"
        for k, name in enumerate(manifest.class_names)
        if k
    )
    price = f"What was sent shows the patient at {result.cost:.2f} times what hides it."
    return tag(
        "section",
        tag("h2", result.patient.folder),
        tag("p", f"{count(len(result.masks), 'slice')}: {volumes}. {price}"),
        in_threes(shown),
    )


def in_threes(shown: Mapping[str, np.ndarray]) -> Markup:
    """Shows slices, `[H, W]` uint8 each, by their captions: three in a row."""
    figures = (
        tag(
            "figure",
            tag("img", alt=text, **pictures.source(pictures.distilled(pixels[..., None]))),
            tag("figcaption", text),
        )
        for text, pixels in shown.items()
    )
    return tag("div", *figures, class_="thumbnails trio")
