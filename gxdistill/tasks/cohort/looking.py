"""What a folder of images looks like from outside: its manifest, columns, labels and sizes."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gxdistill import storage
from gxdistill.data.files import folders, images
from gxdistill.data.files.grey import BadEntryError
from gxdistill.data.files.manifest import few, locate
from gxdistill.errors import UserError

_SAMPLE = 200  # Images whose headers are read.
_ROWS = 1_000_000
_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".json")
_MASK_WORDS = ("mask", "seg", "organ", "roi", "contour")
# What columns are called where they are not called by our names.
_NAMES = {
    "image": ("image", "image_path", "img", "filename", "file", "path", "file_name", "dicom"),
    "mask": ("mask", "mask_path", "segmentation", "seg", "mask_file", "roi"),
    "label": ("label", "class", "diagnosis", "finding", "target", "y", "category", "disease"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "person", "case"),
    "site": ("site", "hospital", "centre", "center", "institution", "source"),
    "split": ("split", "subset", "fold", "partition", "set"),
    "spacing": ("spacing", "pixel_spacing", "mm"),
}
_SPLITS = {
    **dict.fromkeys(("train", "training", "tr", "development"), "train"),
    **dict.fromkeys(("test", "testing", "te", "holdout", "external"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "tune"), "train"),
}
_NEGATIVE = ("normal", "negative", "neg", "healthy", "no finding", "none", "control", "benign")


class Look(NamedTuple):
    """What was seen of a folder.

    Attributes:
      manifest: the CSV, relative to the folder.
      rows: number of its rows.
      columns: for a field that goes by another name, the column or template.
      labels: how often each text stands in the label column.
      label_names: of the classes, by label.
      are_named: whether the names come from the manifest; else they are to be filled in.
      splits: for a value of the split column, what it seems to mean.
      sites: how many rows each has.
      sizes: how many images of a sample have each height and width.
      masks: number of rows with a mask.
      patients: whether a column tells them.
      passed: number of hidden or system entries that were passed over.
    """

    manifest: str
    rows: int
    columns: dict[str, str]
    labels: Counter[str]
    label_names: tuple[str, ...]
    are_named: bool
    splits: dict[str, str]
    sites: Counter[str]
    sizes: Counter[tuple[int, int]]
    masks: int
    patients: bool
    passed: int


def look(folder: Path) -> Look:
    """Looks at a folder: reads its manifest whole, and headers of a sample of images.

    Raises:
      UserError: it is no folder, or no CSV in it names images with labels.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Name the folder of your images.")
    files, passed = folders.list_files(folder)
    path = _find_manifest(folder, files)
    header, rows = _read(path)
    names = {file.relative_to(path.parent).as_posix() for file in files if _is_below(file, path)}
    sources = _sources(header, rows, names)
    for field in ("image", "label"):
        if field not in sources:
            raise UserError(
                f"{path} has no column that looks like the {field}: there are {few(header)}. Call "
                f"one {field!r}, as docs/sending.md describes."
            )
    columns = {field: source for field, source in sources.items() if source != field}
    values = {field: [_fill(source, row) for row in rows] for field, source in sources.items()}
    labels = Counter(values["label"])
    label_names, are_named = _label_names(labels, header, rows, sources["label"])
    splits = {
        text: _SPLITS.get(text.lower(), "skip") for text in sorted(set(values.get("split", ())))
    }
    has_patients = "patient" in sources
    if not has_patients:
        columns["patient"] = columns.get("image", "image")
    return Look(
        manifest=path.relative_to(folder).as_posix(),
        rows=len(rows),
        columns=columns,
        labels=labels,
        label_names=label_names,
        are_named=are_named,
        splits={text: split for text, split in splits.items() if text and text != split},
        sites=Counter(text or "unknown" for text in values.get("site", ())),
        sizes=_sizes(path.parent, values["image"]),
        masks=sum(map(bool, values.get("mask", ()))),
        patients=has_patients,
        passed=passed,
    )


def _is_below(file: Path, manifest: Path) -> bool:
    return file.is_relative_to(manifest.parent) and file.suffix.lower() in _SUFFIXES


def _find_manifest(folder: Path, files: Sequence[Path]) -> Path:
    tables = [file for file in files if file.suffix.lower() == ".csv"]
    tables = [file for file in tables if file.name != "quarantine.csv"]
    for named in tables:
        if named == folder / "manifest.csv":
            return named
    if len(tables) == 1:
        return tables[0]
    if tables:
        listed = few([file.relative_to(folder).as_posix() for file in tables])
        raise UserError(f"{folder} holds several CSVs: {listed}. Call the right one manifest.csv.")
    count = sum(file.suffix.lower() in _SUFFIXES for file in files)
    raise UserError(
        f"{folder} holds {count} images and no CSV that says what they show. Write a manifest.csv "
        f"beside them: image,mask,label,patient in its first line, then a row for each image."
    )


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, restval="", restkey="")
            rows = [
                {name: (text or "").strip() for name, text in row.items() if name}
                for row, _ in zip(reader, range(_ROWS), strict=False)
            ]
            header = [name.strip() for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV in UTF-8: {error}.") from error
    if not rows:
        raise UserError(f"{path} lists no image. Add a row for each.")
    return header, rows


def _sources(
    header: Sequence[str], rows: Sequence[Mapping[str, str]], files: set[str]
) -> dict[str, str]:
    """Returns, for each field that is there, its column or a template that names files."""
    plain = {name.lower().replace(" ", "_").replace("-", "_"): name for name in header}
    sources = {}
    for field, names in _NAMES.items():
        column = next((plain[name] for name in names if name in plain), None)
        if column is not None:
            sources[field] = column
    for field in ("image", "mask"):
        column = sources.get(field)
        if column is None or not any(row[column] in files for row in rows):
            template = _template(field, header, rows, files)
            if template:
                sources[field] = template
    return sources


def _template(
    field: str, header: Sequence[str], rows: Sequence[Mapping[str, str]], files: set[str]
) -> str | None:
    """Finds how a column becomes the name of a file: `images/{id}.png`; None where none does."""
    wanted = [
        name for name in sorted(files) if (field == "mask") == any(w in name for w in _MASK_WORDS)
    ]
    best: tuple[int, str] = (0, "")
    for column in header:
        texts = [row[column] for row in rows if row.get(column)]
        if len(set(texts)) < max(2, len(rows) // 2):
            continue
        first = next(((n, t) for t in texts[:20] for n in wanted if t in Path(n).name), None)
        if first is None:
            continue
        name, text = first
        start = name.rindex(text)
        template = f"{name[:start]}{{{column}}}{name[start + len(text) :]}"
        hits = sum(_fill(template, row) in files for row in rows)
        best = max(best, (hits, template), key=lambda pair: pair[0])  # The first of equals.
    return best[1] or None


def _fill(source: str, row: Mapping[str, str]) -> str:
    if source in row:
        return row[source]
    for name, text in row.items():
        source = source.replace(f"{{{name}}}", text)
    return source


def _label_names(
    labels: Counter[str], header: Sequence[str], rows: Sequence[Mapping[str, str]], column: str
) -> tuple[tuple[str, ...], bool]:
    """Returns names of the classes by label, and whether they are the manifest's."""
    texts = sorted(text for text in labels if text)
    if len(texts) > 20:
        raise UserError(
            f"Column {column!r} holds {len(texts)} different labels, as {few(texts, 3)}. A class "
            f"needs many images: is this the right column?"
        )
    if not all(text.removesuffix(".0").isdigit() for text in texts):
        ranked = sorted(texts, key=lambda t: (not t.lower().startswith(_NEGATIVE), t))
        return tuple(ranked), True
    numbers = sorted(int(float(text)) for text in texts)
    if numbers != list(range(len(numbers))):
        return tuple(texts), False
    for other in header:
        pairs = {(int(float(row[column])), row[other]) for row in rows if row[column]}
        names = tuple(name for _, name in sorted(pairs))
        if len(pairs) == len(numbers) == len(set(names)) and not any(n.isdigit() for n in names):
            return names, True
    return tuple(f"class_{number}" for number in numbers), False


def _sizes(root: Path, names: Sequence[str]) -> Counter[tuple[int, int]]:
    sizes: Counter[tuple[int, int]] = Counter()
    with images.quiet():
        for name in names[:: max(1, len(names) // _SAMPLE)]:
            try:
                size = images.read_header(locate(root, name)).size
            except (BadEntryError, storage.BadNameError):
                continue
            sizes[size[0], size[1]] += 1
    return sizes
