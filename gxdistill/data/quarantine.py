"""What is left out of a cohort: how much may be, what is said of more, the list of it."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gxdistill import storage
from gxdistill.data.files.manifest import Quarantined, few
from gxdistill.data.files.reading import in_pixels
from gxdistill.errors import UserError

_MEND = "Mend them there, or raise max_bad_share (--config.data.max_bad_share)."
_NUMBER = re.compile(r"[+-]?\d+(?:\.0*)?")


class TooManyBadError(UserError):
    """More of a cohort is bad than is allowed.

    Attributes:
      quarantine: all that was found bad, for `write_quarantine`.
    """

    def __init__(self, message: str, quarantine: tuple[Quarantined, ...]):
        super().__init__(message)
        self.quarantine = quarantine


def in_order(bad: Mapping[int, Quarantined]) -> tuple[Quarantined, ...]:
    """Returns what was left out in the order of the manifest's lines."""
    return tuple(bad[line] for line in sorted(bad))


def is_too_bad(bad: Mapping[int, Quarantined], total: int, share: float) -> bool:
    """Tells whether more than a share of `total` entries was left out, or all."""
    return len(bad) > share * total or len(bad) >= total


def stop_if_too_bad(
    bad: Mapping[int, Quarantined], total: int, share: float, path: Path, way_out: str = ""
) -> None:
    """Refuses a cohort of which too much was left out.

    Args:
      bad: what was left out, by line of the manifest.
      total: number of entries that were to be read.
      share: of them that may be bad.
      path: of the manifest.
      way_out: what to do about it, where a common cause is known.

    Raises:
      TooManyBadError: more is bad, or all.
    """
    if not is_too_bad(bad, total, share):
        return
    quarantine = in_order(bad)
    shown = "; ".join(f"{entry.name!r}: {entry.reason}" for entry in quarantine[:3])
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    raise TooManyBadError(
        f"{len(bad)} of {total} entries of {path} are bad, {share:.1%} are allowed: "
        f"{shown}{more}. {way_out or _MEND}",
        quarantine,
    )


def write_quarantine(path: Path, quarantine: Sequence[Quarantined]) -> None:
    """Writes a CSV of name and reason, at one stroke.

    Args:
      path: of the file; a former one is replaced.
      quarantine: what was left out.

    Raises:
      UserError: the file cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Quarantined._fields, *quarantine])
    storage.write_text(path, text.getvalue())


def suggest_size(
    sizes: Sequence[tuple[int, int]], wanted: tuple[int, int] | None, misfits: int
) -> str:
    """Says what to do where most images are bad for their size alone; "" where they are not.

    Args:
      sizes: height and width of each image whose header could be read.
      wanted: those that images must have; None where none were named.
      misfits: number of images of another size.
    """
    if wanted is None or 2 * misfits <= len(sizes):
        return ""
    size, number = Counter(sizes).most_common(1)[0]
    return (
        f"{number} of the images are {in_pixels(size)}, and data.image_size says "
        f"{in_pixels(wanted)}: take the images' own size, as --config.data.image_size=None, with "
        f"--config.patch.size and --config.patch.stride that suit it."
    )


def suggest_labels(labels: Counter[str], label_names: Sequence[str]) -> str:
    """Says what to do where most labels are unknown; "" where they are not.

    Args:
      labels: how often each text stands in the label column.
      label_names: names of the labels 0, 1 and so on.
    """
    numbers = {str(i) for i in range(len(label_names))}
    unknown = [text for text in labels if text and text not in {*label_names, *numbers}]
    strange = [text for text in unknown if not _NUMBER.fullmatch(text)]
    if 2 * sum(labels[text] for text in strange) <= labels.total():
        return ""
    return (
        f"The labels there are {few(sorted(strange))}, and data.label_names says "
        f"{few(label_names)}: name them, the negative one first, as "
        f"--config.data.label_names={','.join(sorted(strange)[:2])}."
    )


def describe_labels(labels: Counter[str], label_names: Sequence[str]) -> str:
    """Says what labels that are numbers are taken for; "" where none are."""
    numbers = sorted(
        {int(float(text)) for text in labels if _NUMBER.fullmatch(text)} if labels else ()
    )
    known = [i for i in numbers if 0 <= i < len(label_names) and str(i) not in label_names]
    if not known:
        return ""
    meanings = ", ".join(f"{i} is {label_names[i]!r}" for i in known)
    return f"labels are numbers: {meanings}, as data.label_names says"
