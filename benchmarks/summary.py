"""The small table of README.md: what each kind of job gave, and what it is to be compared with."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.record import Figure

NAME = "summary"  # Of the table.


class Row(NamedTuple):
    """A row of the summary: one figure, and what it is to be compared with.

    Attributes:
      case: of all its figures.
      text: what was done.
      measured: what the figure is.
      metric: the figure.
      beside: metrics to compare with, by what they are called.
    """

    case: str
    text: str
    measured: str
    metric: str
    beside: Mapping[str, str]


_REAL, _SOFT, _ALL = "as many random real ones", "these with soft labels", "all real ones"
_FRESH = "on networks with other initial weights"
_BY_PATCH = {
    _REAL: "balanced_random_real",
    _SOFT: "balanced_random_real_soft",
    _ALL: "balanced_all_patches",
}
_ELSEWHERE = {
    _REAL: "external_auc_random_real",
    _SOFT: "external_auc_random_real_soft",
    _ALL: "external_auc_ceiling",
}
ROWS = (
    Row(
        case="mnist_lenet_known_10",
        text="MNIST, LeNet, known initial weights, 150 mixtures of 10 images",
        measured="balanced accuracy",
        metric="balanced_patch_accuracy",
        beside={
            _REAL: "balanced_random_real",
            _SOFT: "balanced_random_real_soft",
            _FRESH: "balanced_fresh_networks",
            _ALL: "balanced_all_patches",
        },
    ),
    Row(
        case="mnist_convnet_random_10",
        text="MNIST, ConvNet, any initial weights, 100 mixtures of 10 images",
        measured="balanced accuracy",
        metric="balanced_patch_accuracy",
        beside=_BY_PATCH,
    ),
    Row(
        case="radiograph_known",
        text="Radiographs normalised by the organ, known weights, learned on from a mixture",
        measured="balanced accuracy of patches",
        metric="balanced_patch_accuracy",
        beside={
            _REAL: "balanced_random_real",
            _SOFT: "balanced_random_real_soft",
            _FRESH: "balanced_fresh_networks",
            _ALL: "balanced_all_patches",
        },
    ),
    Row(
        case="radiograph_known",
        text="The same, whole images decided",
        measured="harmonic mean",
        metric="hm",
        beside={
            _REAL: "hm_random_real",
            _SOFT: "hm_random_real_soft",
            _FRESH: "hm_fresh_networks",
            _ALL: "hm_all_patches",
        },
    ),
    Row(
        case="radiograph_random",
        text="The same, any initial weights: drawn from a mixture, soft labels",
        measured="balanced accuracy of patches",
        metric="balanced_patch_accuracy",
        beside=_BY_PATCH,
    ),
    Row(
        case="radiograph_random",
        text="The same, whole images decided",
        measured="harmonic mean",
        metric="hm",
        beside={_REAL: "hm_random_real", _SOFT: "hm_random_real_soft", _ALL: "hm_all_patches"},
    ),
    Row(
        case="radiograph_few",
        text="The same, 60 images learned on from a mixture",
        measured="balanced accuracy of patches",
        metric="balanced_patch_accuracy",
        beside=_BY_PATCH,
    ),
    Row(
        case="radiograph_to_shenzhen",
        text="6,600 from a mixture, made at Montgomery for all images of Shenzhen",
        measured="AUC",
        metric="external_auc",
        beside=_ELSEWHERE,
    ),
    Row(
        case="radiograph_to_montgomery",
        text="The same, made at Shenzhen for all images of Montgomery",
        measured="AUC",
        metric="external_auc",
        beside=_ELSEWHERE,
    ),
    Row(
        case="radiograph_private",
        text="Whole radiographs, one private release: epsilon 8 for a patient at delta 1e-3",
        measured="AUC",
        metric="auc_eps8",
        beside={"epsilon 1": "auc_eps1", "no noise": "auc_eps100"},
    ),
    Row(
        case="against_torch_lenet_10x3",
        text="An outer step through 30 inner steps of LeNet",
        measured="CPU seconds",
        metric="cpu_s",
        beside={"eager PyTorch": "torch_cpu_s"},
    ),
    Row(
        case="against_torch_convnet128_20x1",
        text="An outer step through 20 inner steps of ConvNet-128",
        measured="CPU seconds",
        metric="cpu_s",
        beside={"eager PyTorch": "torch_cpu_s"},
    ),
)


def cell(figure: Figure, *, counted: bool = True) -> str:
    """Writes a figure with as many digits as it is worth, its spread and, if `counted`, its n."""
    digits = 0 if isinstance(figure.value, int) else 3 if abs(figure.value) < 10 else 1
    text = f"{figure.value:,.{digits}f}"
    if 0 < abs(figure.value) < 0.01:
        text = f"{figure.value:.1e}" if abs(figure.value) < 0.0001 else f"{figure.value:.2g}"
    if figure.std is not None:
        text += f" ± {figure.std:,.{max(digits, 1)}f}"
        text += f" (n = {figure.n})" if counted else ""
    return text


def render(rows: Sequence[Row], figures: Sequence[Figure]) -> str:
    """Writes the small table of README.md; what was not measured on a CPU is left out.

    Args:
      rows: what to show.
      figures: in the order in which they were measured; the latest counts.

    Returns:
      Lines, the last one ended. The commands stand below the tables of `benchmarks/README.md`.
    """
    measured = (figure for figure in figures if figure.device.startswith("CPU"))
    latest = {(figure.case, figure.metric): figure for figure in measured}
    lines = ["| what | figure | gxdistill | beside it |", f"|{' --- |' * 4}"]
    for row in rows:
        if (row.case, row.metric) not in latest:
            continue
        beside = (
            f"{name} {cell(latest[row.case, metric], counted=False)}"
            for name, metric in row.beside.items()
            if (row.case, metric) in latest
        )
        cells = (row.text, row.measured, cell(latest[row.case, row.metric]), "; ".join(beside))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
