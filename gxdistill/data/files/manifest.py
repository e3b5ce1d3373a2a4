"""Reads the CSV that lists a cohort: one row an image, columns by our names or mapped to them."""

import difflib
import hashlib
import math
import os.path
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gxdistill import storage
from gxdistill.data.files import csv_table
from gxdistill.data.files.grey import BadEntryError
from gxdistill.errors import UserError

UNKNOWN_SITE = "unknown"  # Of an image whose manifest names none.
FIELDS = ("image", "mask", "label", "patient", "site", "split", "spacing")
REQUIRED = ("image", "label", "patient")
SKIP = "skip"  # As a split: the row is passed over.

_PLACEHOLDER = re.compile(r"{([^{}]*)}")
# What programs write where a value is missing; as an id it would make one patient of many.
_BLANKS = {
    *("nan", "na", "n/a", "n.a.", "none", "null", "nil", "nat", "<na>", "<null>"),
    *("#n/a", "#na", "#ref!", "#value!", "#name?", "#null!", "#div/0!", "-", "--", "?"),
    *("missing", "unknown", "undefined", "anonymous", "anonymized", "anonymised"),
}
_ROUNDED = re.compile(r"[+-]?\d([.,]\d+)?E\+?\d+", re.IGNORECASE)
_NUMERAL = re.compile(r"[0-9]{1,9}(\.0*)?")
_INVISIBLE = re.compile(r"[\s\u200b-\u200f\u2060\ufeff]")


class Entry(NamedTuple):
    """A row of the manifest that can be looked up.

    Attributes:
      line: of the manifest, from 1, the header being the first.
      name: the image's path as the manifest gives it.
      image: path of the image file.
      mask: path of the mask file; None where the manifest names none.
      label: index of the image's class.
      patient: id of the patient.
      site: name of the site, "unknown" where none is given.
      split: as given, "" where none is.
      spacing: of the image's pixels in millimetres; None where none is given.
    """

    line: int
    name: str
    image: Path
    mask: Path | None
    label: int
    patient: str
    site: str
    split: str
    spacing: float | None = None

    @classmethod
    def of_image(cls, path: Path, mask: Path | None = None) -> "Entry":
        """The entry of an image of which nothing is known but its file, and that of its mask."""
        return cls(0, path.name, path, mask, 0, "", "", "")


class Quarantined(NamedTuple):
    """An entry that was left out: how the manifest names it, and why."""

    name: str
    reason: str


class Rows(NamedTuple):
    """What the rows of a manifest name.

    Attributes:
      entries: in order, those that can be looked up.
      bad: by line, those that cannot.
      skipped: number of those that the split column passes over.
      labels: how often each text stands in the label column.
    """

    entries: list[Entry]
    bad: dict[int, Quarantined]
    skipped: int
    labels: Counter[str]


class _Row(NamedTuple):
    line: int
    fits: bool  # It has as many cells as the header.
    texts: Mapping[str, str]  # By field.


def read_manifest(
    path: Path,
    *,
    columns: Mapping[str, str],
    label_names: Sequence[str],
    root: Path | None = None,
    splits: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Rows:
    """Reads a manifest and sorts out the rows that name nothing that can be looked up.

    Args:
      path: of the CSV file, UTF-8 with a header.
      columns: for a field of `FIELDS` that goes by another name, the name of the file's column,
        or a template with columns in braces, as in `{"image": "images/{id}.jpg"}`.
      label_names: names of the image classes; the label column holds these or their numbers. None
        where images have no class: there need be no such column.
      root: folder that file names are relative to, and that absolute ones must lie below; None
        stands for the manifest's.
      splits: for a value of the split column, the split that it means, or `SKIP`.
      limit: keeps this many rows, evenly over labels, sites and splits.
      seed: of the draw of `limit`.

    Returns:
      What the rows name. A row without a split, where others have one, is skipped.

    Raises:
      UserError: there is no such file, it is no CSV, has no row, or lacks a column.
    """
    header, lines = csv_table.read(path, FIELDS)
    needed = [field for field in REQUIRED if label_names or field != "label"]
    getters = _getters(path, header, columns, needed)
    listed = [
        _Row(line, len(cells) == len(header), {f: get(cells) for f, get in getters.items()})
        for line, cells in lines
    ]
    rows = _of_splits(listed, splits or {})
    labels = Counter(row.texts.get("label", "") for row in rows) if label_names else Counter()
    skipped = len(listed) - len(rows)
    if limit is not None and limit < len(rows):
        rows = _spread(rows, limit, seed)
    entries, bad = [], {}
    for row in rows:
        try:
            entries.append(_entry(row, root or path.parent, label_names))
        except BadEntryError as error:
            bad[row.line] = Quarantined(row.texts["image"] or f"line {row.line}", str(error))
    twice = duplicates({entry: os.path.normpath(entry.image) for entry in entries}, "file")
    bad |= twice
    return Rows([entry for entry in entries if entry.line not in twice], bad, skipped, labels)


def duplicates(keys: Mapping[Entry, object], what: str) -> dict[int, Quarantined]:
    """Finds the entries whose key an earlier entry has.

    The first is kept, unless their labels contradict each other: then nobody knows which is right.

    Args:
      keys: what must differ, by entry in the manifest's order.
      what: what the key stands for, as the reason names it.

    Returns:
      By line, the entries to leave out.
    """
    groups: dict[object, list[Entry]] = {}
    for entry, key in keys.items():
        groups.setdefault(key, []).append(entry)
    repeated = {}
    for group in groups.values():
        contradictory = len({entry.label for entry in group}) > 1
        for i, entry in enumerate(group):
            other = group[0] if i else group[-1]
            if contradictory:
                reason = f"same {what} as line {other.line}, under another label"
                repeated[entry.line] = Quarantined(entry.name, reason)
            elif i:
                repeated[entry.line] = Quarantined(entry.name, f"same {what} as line {other.line}")
    return repeated


def few(values: Sequence[str], most: int = 5) -> str:
    """Joins the first values for a message and counts the rest."""
    shown = ", ".join(repr(value[:60]) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")


def _getters(
    path: Path, header: list[str], columns: Mapping[str, str], needed: Sequence[str]
) -> dict[str, Callable[[list[str]], str]]:
    """For each field that the file has, the function from a row's cells to the field's text."""
    for field in columns:
        if field not in FIELDS:
            raise UserError(f"`columns` maps {field!r}, which is no field.{_hint(field, FIELDS)}")
    sources = {name: name for name in FIELDS if name in header} | dict(columns)
    for field, source in sources.items():
        for name in [source] if source in header else _PLACEHOLDER.findall(source) or [source]:
            if name not in header:
                raise UserError(
                    f"`columns` maps {field!r} to column {name!r}, which manifest {path} does not "
                    f"have.{_hint(name, header)}"
                )
    for field in needed:
        if field not in sources:
            raise UserError(
                f"Manifest {path} has no column {field!r}. Add it, or map another by `columns`."
                f"{_hint(field, header)}"
            )

    def getter(field: str, source: str) -> Callable[[list[str]], str]:
        template = f"{{{source}}}" if source in header else source
        names = _PLACEHOLDER.findall(template)

        def cell(cells: list[str], name: str) -> str:
            text = cells[i].strip() if (i := header.index(name)) < len(cells) else ""
            return "" if is_blank(text) and field != "label" else text

        def text(cells: list[str]) -> str:
            if field == "patient" and not all(cell(cells, name) for name in names):
                return ""  # A part of an id would make one patient of many.
            return _PLACEHOLDER.sub(lambda match: cell(cells, match[1]), template).strip()

        return text

    return {field: getter(field, source) for field, source in sources.items()}


def is_blank(text: str) -> bool:
    """Whether a cell says that its value is missing."""
    return not text or text.casefold() in _BLANKS


def look_alikes(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Finds ids that may be the same: alike but for case, blanks, leading zeros or a final ".0".

    Args:
      ids: of patients.

    Returns:
      Pairs of different ids, in order.
    """
    groups: dict[str, list[str]] = {}
    for known in sorted(set(ids)):
        key = _INVISIBLE.sub("", unicodedata.normalize("NFKC", known)).casefold()
        key = re.sub(r"(?<=\d)\.0+$", "", key)
        groups.setdefault(re.sub(r"(?<!\d)0+(?=\d)", "", key), []).append(known)
    return [(group[0], other) for group in groups.values() for other in group[1:]]


def _hint(name: str, known: Sequence[str]) -> str:
    folded = {other.casefold(): other for other in reversed(known)}
    nearest = difflib.get_close_matches(name.casefold(), folded, n=1)
    meant = f" Did you mean {folded[nearest[0]]!r}?" if nearest else ""
    return f"{meant} There are: {', '.join(known)}."


def _of_splits(rows: list[_Row], splits: Mapping[str, str]) -> list[_Row]:
    """Returns the rows that are not skipped, each with the split that its text means.

    In a row of too few or too many cells nobody knows which is the split: it is not skipped.
    """
    known = [row._replace(texts={**row.texts, "split": _split(row, splits)}) for row in rows]
    if not any(row.texts["split"] not in ("", SKIP) for row in known):
        return [row for row in known if row.texts["split"] != SKIP or not row.fits]
    return [row for row in known if row.texts["split"] not in ("", SKIP) or not row.fits]


def _split(row: _Row, splits: Mapping[str, str]) -> str:
    text = row.texts.get("split", "")
    return splits.get(text, text)


def _spread(rows: list[_Row], limit: int, seed: int) -> list[_Row]:
    def rank(row: _Row) -> tuple:
        strata = (row.texts.get(field, "") for field in ("label", "site", "split"))
        return (*strata, hashlib.sha256(f"{seed}/{row.texts['image']}".encode()).digest())

    ranked = sorted(rows, key=rank)
    chosen = [ranked[i * len(rows) // limit] for i in range(limit)]
    return sorted(chosen, key=lambda row: row.line)


def _entry(row: _Row, folder: Path, label_names: Sequence[str]) -> Entry:
    texts = row.texts
    if not row.fits:
        raise BadEntryError("the row has more or fewer cells than the header")
    if not texts["patient"]:
        raise BadEntryError("patient empty, or a word for a missing value as 'nan'")
    if _ROUNDED.fullmatch(texts["patient"]):
        raise BadEntryError(
            f"patient {texts['patient'][:40]!r} is a number that a table rounded; format its "
            f"column as text"
        )
    return Entry(
        line=row.line,
        name=texts["image"],
        image=_within(folder, texts["image"], "image"),
        mask=_within(folder, texts["mask"], "mask") if texts.get("mask") else None,
        label=_label(texts["label"], label_names) if label_names else 0,
        patient=unicodedata.normalize("NFC", texts["patient"]),
        site=unicodedata.normalize("NFC", texts.get("site") or UNKNOWN_SITE),
        split=texts.get("split", ""),
        spacing=_spacing(texts.get("spacing", "")),
    )


def _within(folder: Path, name: str, what: str) -> Path:
    if not name:
        raise BadEntryError(f"{what} empty")
    try:
        path = locate(folder, name)
        return path if path.exists() else _other_form(folder, name) or path
    except OSError as error:  # As for a name that is longer than a file system has.
        raise BadEntryError(f"{what} path cannot be looked up: {error.strerror}") from error
    except storage.BadNameError as error:
        way = " of the manifest; data.files names another" * (error.reason == "leaves the folder")
        raise BadEntryError(f"{what} path {error.reason}{way}") from error


def locate(root: Path, name: str) -> Path:
    """Returns the path of a file that a manifest names, below the folder of its files.

    Args:
      root: the folder.
      name: relative to it, or absolute and below it.

    Raises:
      BadNameError: the file would lie elsewhere, or a name of the path is not plain.
    """
    # Links are followed: they are the owner's, a manifest may be a stranger's.
    if name.startswith("/") and Path(name).is_relative_to(root.absolute()):
        name = Path(name).relative_to(root.absolute()).as_posix()
    return storage.below(root, name)


def _other_form(folder: Path, name: str) -> Path | None:
    """The file whose name has the same letters, composed or decomposed as another system does."""
    for form in ("NFC", "NFD"):
        path = locate(folder, unicodedata.normalize(form, name))
        if path.exists():
            return path
    return None


def _spacing(text: str) -> float | None:
    if not text:
        return None
    try:
        spacing = float(text) if "_" not in text else math.nan
    except ValueError:
        spacing = math.nan
    if not 0 < spacing < math.inf:
        raise BadEntryError(f"spacing {text[:40]!r} is no number of millimetres")
    return spacing


def _whole(text: str) -> int:
    """The whole number that a text says, as "1" or "1.0" do; -1 where it says none."""
    return int(text.partition(".")[0]) if _NUMERAL.fullmatch(text) else -1


def _label(text: str, label_names: Sequence[str]) -> int:
    if not text:
        raise BadEntryError("label empty")
    text = unicodedata.normalize("NFC", text)
    names = [unicodedata.normalize("NFC", name) for name in label_names]
    if text in names:
        return names.index(text)
    # Tables write "1.0" where a label of another row is missing.
    number, numbers = _whole(text), list(map(_whole, names))
    known = f"0..{len(names) - 1}, {', '.join(label_names)}"
    if max(numbers) >= 0:  # Then a number is a name and no index.
        number = numbers.index(number) if numbers.count(number) == 1 else -1
        known = ", ".join(label_names)
    if number not in range(len(names)):
        near = next((name for name in names if name.casefold() == text.casefold()), None)
        meant = f"; did you mean {near!r}?" if near else ""
        raise BadEntryError(f"label {text[:40]!r} is none of {known}{meant}")
    return number
