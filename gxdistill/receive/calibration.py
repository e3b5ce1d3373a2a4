"""A receiver's own threshold as a file: `gxdistill calibrate` writes it, `predict` reads it."""

import dataclasses
import math
from pathlib import Path

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.package import WARNING
from gxdistill.pytrees import Metadata

WAYS = ("labels", "prevalence", "sender")  # What a threshold is set by.
_MAX_BYTES = 1 << 16
_MOST = 2**31 - 1
_WAY_OUT = "Make it anew with `gxdistill calibrate`."


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A threshold that a receiver set on images of its own.

    Attributes:
      tau: an image is positive whose score is not below it.
      low: lower end of its 95% interval.
      high: upper end.
      images: number of images with a score that it was set on.
      undecidable: number of images without one.
      by: what it was set by: "labels", a known "prevalence", or the "sender"'s share of positives.
      share: of images that were to be positive, from 0 to 1; None by labels.
      package: digest of the package, or of the essential weights, whose networks gave the scores.
    """

    tau: float
    low: float
    high: float
    images: int
    undecidable: int
    by: str
    share: float | None
    package: str


def save(path: Path, calibration: Calibration) -> None:
    """Writes a calibration as JSON.

    Raises:
      UserError: it cannot be written.
    """
    storage.write_json(path, {**dataclasses.asdict(calibration), "note": WARNING})


def _number(value: object, low: float, high: float) -> bool:
    is_number = type(value) in (int, float)
    return is_number and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


def _fault(table: Metadata) -> str | None:
    """Names the field of a table from a file that is missing, unknown or unfit."""
    names = {field.name for field in dataclasses.fields(Calibration)}
    if strange := sorted(names ^ (table.keys() - {"note"})):
        return strange[0]
    fits = {
        # A score is a share; thresholds lie around them.
        **{name: _number(table[name], -1, 2) for name in ("tau", "low", "high")},
        "images": type(table["images"]) is int and 1 <= table["images"] <= _MOST,
        "undecidable": type(table["undecidable"]) is int and 0 <= table["undecidable"] <= _MOST,
        "by": table["by"] in WAYS,
        "share": table["share"] is None or _number(table["share"], 0, 1),
        "package": isinstance(table["package"], str) and len(table["package"]) == 64,
    }
    return next((name for name, sound in fits.items() if not sound), None)


def load(path: Path, digest: str) -> Calibration:
    """Reads a calibration of a package.

    Args:
      path: from `save`.
      digest: of the package, or of the essential weights, that it must be of.

    Raises:
      UserError: it cannot be read, is none, or is of another package.
    """
    table = storage.parse_json(storage.read_bytes(path, _MAX_BYTES), path)
    if (name := _fault(table)) is not None:
        raise UserError(f"{path} is no calibration: its field {name[:60]!r} is unfit. {_WAY_OUT}")
    calibration = Calibration(**{name: table[name] for name in table.keys() - {"note"}})
    if calibration.package != digest:
        raise UserError(
            f"{path} was set with another package, of digest {storage.shown(calibration.package)} "
            f"and not {digest}. {_WAY_OUT}"
        )
    return calibration
