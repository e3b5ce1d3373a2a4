"""The settings of one private release of statistics, and of the images that match it."""

from gxdistill.jobs.settings import Setting, choice, integer, items, names_in, number
from gxdistill.jobs.shared import COUNT, RATE

_FEATURES = "gxdistill.privacy.features"
_WEIGHT = (1e-3, 1e3)

RELEASE: dict[str, Setting] = {
    "privacy.statistics.features": choice(
        "oriented_gradients", names_in(_FEATURES, "KINDS"), "Features that statistics are of."
    ),
    "privacy.statistics.prior": choice(
        "smooth_noise",
        names_in("gxdistill.privacy.prior", "PRIORS"),
        "Images of no patient, by which features are scaled.",
    ),
    "privacy.statistics.count": integer(200, 1, 2000, "Features of an image."),
    "privacy.statistics.pixels": integer(
        60, 1, 2000, "Coordinates of an image, which images are drawn in."
    ),
    "privacy.statistics.cell": integer(4, *COUNT, "Side of a cell of features, in pixels."),
    "privacy.statistics.weights.second": number(
        0.7, *_WEIGHT, "Weight in the release of the second moments of features."
    ),
    "privacy.statistics.weights.sums": number(
        0.45, *_WEIGHT, "Weight of the sums of features by class."
    ),
    "privacy.statistics.weights.pixel_second": number(
        0.45, *_WEIGHT, "Weight of the second moments of coordinates by class."
    ),
    "privacy.statistics.weights.pixel_sums": number(
        0.25, *_WEIGHT, "Weight of the sums of coordinates by class."
    ),
    "privacy.statistics.weights.counts": number(0.15, *_WEIGHT, "Weight of the counts by class."),
    "privacy.statistics.releases": items(
        (),
        "files",
        "Releases of hospitals, release.gxr of their folders, that are added up in place of one.",
    ),
    "privacy.statistics.detail": number(
        0.0, 0.0, 1e3, "Fine structure of drawn images, times that of the prior; 0 is none."
    ),
    "privacy.statistics.sharpness": number(
        5.0, *RATE, "What a teacher says times this are the logits of labels."
    ),
    "privacy.statistics.steps": integer(
        40, 0, 10**6, "Steps that move the drawn images nearer to the released statistics."
    ),
    "privacy.statistics.rate": number(0.02, *RATE, "First learning rate of these steps."),
    "privacy.statistics.checkpoint_every": integer(
        10, 1, 10**6, "Steps between two checkpoints, a divisor of their number."
    ),
}
