"""`gxdistill new`: proposes a config, with comments, for a folder that it has looked at."""

import math
from collections.abc import Iterator
from pathlib import Path

from gxdistill import storage
from gxdistill.data.files.folders import count_passed
from gxdistill.data.files.manifest import few
from gxdistill.errors import UserError
from gxdistill.tasks.cohort.looking import Look, look

_SIDE = 128  # Pixels that images are averaged to at least: quick on a CPU.
_PATCH = 0.125  # Side of a patch as a share of an image's, near the papers' 299 of 2048.


def write(folder: Path, target: Path) -> list[str]:
    """Writes a config for a folder.

    Args:
      folder: of the images.
      target: the file to write, which must not exist.

    Returns:
      What to tell the user, line by line.

    Raises:
      UserError: the folder tells too little, or the file exists or cannot be written.
    """
    if target.exists():
        raise UserError(f"{target} exists already. Remove it, or choose another --out.")
    seen = look(folder)
    if not seen.sizes:
        raise UserError(
            f"None of the images that {folder / seen.manifest} names can be opened. Are the names "
            f"in it relative to its own folder? Column or template: "
            f"{seen.columns.get('image', 'image')!r}."
        )
    storage.write_text(target, _config(folder.absolute(), seen, target))
    return [*_told(folder, seen), f"config: {target}", f"look next: {_preview(target)}"]


def _preview(target: Path) -> str:
    return f"gxdistill preview --config={target} --workdir=runs/{target.stem}"


def propose_cut(height: int, width: int) -> tuple[int, int, int]:
    """Proposes how images are shrunk and cut.

    Args:
      height: of the images in pixels.
      width: likewise.

    Returns:
      The downscale, which divides both sides; side and stride of a patch in shrunken pixels.
    """
    common, least = math.gcd(height, width), min(height, width)
    factors = [d for d in range(1, common + 1) if common % d == 0]
    downscale = max(d for d in factors if d == 1 or least // d >= _SIDE)
    # A multiple of 8: three poolings of the network halve it without a rest.
    size = max(8, 8 * round(_PATCH * (least // downscale) / 8))
    return downscale, size, max(1, size // 2)


def _told(folder: Path, seen: Look) -> Iterator[str]:
    yield f"manifest: {seen.manifest}, {seen.rows} rows, {seen.masks} with a mask"
    for field, source in seen.columns.items():
        yield f"column: {field} is {source}"
    yield f"labels: {', '.join(f'{text or None!r} ({n})' for text, n in seen.labels.most_common())}"
    if not seen.are_named:
        yield "name the labels in the config, where it says label_names"
    if len(seen.label_names) != 2:
        yield f"{len(seen.label_names)} labels: whole images are decided only between two"
    if not seen.patients:
        yield "no column tells the patients: each image is taken for one of its own"
    if seen.passed:
        yield count_passed(seen.passed, [folder])


def _config(folder: Path, seen: Look, target: Path) -> str:
    size, number = seen.sizes.most_common(1)[0]
    same = len(seen.sizes) == 1
    largest = tuple(max(sides) for sides in zip(*seen.sizes, strict=True))
    downscale, patch, stride = propose_cut(*(size if same else (_rounded(s) for s in largest)))
    lines = [
        'r"""Distils a cohort of one\'s own; written by `gxdistill new`, to be changed at will.',
        "",
        f"  {_preview(Path(target.name))}",
        f"  gxdistill check --config={target.name} --workdir=runs/{target.stem}",
        f"  gxdistill distill --config={target.name} --workdir=runs/{target.stem}",
        f"  gxdistill distill --config={target.name}:smoke    # the same, a minute, 60 images",
        "",
        "`gxdistill settings --config=...` lists all settings with what each may be.",
        '"""',
        "",
        "import ml_collections",
        "",
        "from gxdistill.tasks.distillation.settings import default_config, shrink_to_smoke",
        "",
        "",
        'def get_config(variant: str = "full") -> ml_collections.ConfigDict:',
        '    """Makes the config: "full", or "smoke"."""',
        "    config = default_config()",
        f"    config.name = {target.stem!r}",
        f"    config.data.path = {str(folder)!r}",
        f"    config.data.manifest = {seen.manifest!r}",
        *_columns(seen),
        *_labels(seen),
        *_splits(seen),
        f"    # Of a sample, {number} of {seen.sizes.total()} images are {size[0]} x {size[1]} px.",
    ]
    if same:
        lines.append(f"    config.data.image_size = {size!r}")
    else:
        lines += [
            f"    # There are {len(seen.sizes)} sizes: smaller images are put amid black.",
            "    # Where the size of their pixels is known, resample them: config.data.spacing.",
            '    config.data.fit = "pad"',
        ]
    lines += _cut(downscale, patch, stride, masks=seen.masks > 0)
    return "\n".join([*lines, *_RECIPE, ""])


def _rounded(side: int) -> int:
    return 64 * math.ceil(side / 64)


def _columns(seen: Look) -> Iterator[str]:
    if not seen.columns:
        return
    yield "    # Our field: the column of the manifest, or a template of columns."
    if not seen.patients:
        yield "    # No column tells the patients: each image is taken for one patient. If patients"
        yield "    # have several images, name their column, or training and test share patients."
    yield f"    config.data.columns = {seen.columns!r}"


def _labels(seen: Look) -> Iterator[str]:
    yield f"    # In the manifest: {few([t for t, _ in seen.labels.most_common()], 10)}."
    if not seen.are_named:
        yield "    # NAME THEM: these are only numbers, and the names go into the package."
    yield f"    config.data.label_names = {seen.label_names!r}"


def _splits(seen: Look) -> Iterator[str]:
    if seen.splits:
        yield '    # Of the split column; "skip" passes rows over. Validation is trained on here.'
        yield f"    config.data.splits = {seen.splits!r}"
    if len(seen.sites) > 1:
        yield f"    # Sites: {few([f'{name} ({n})' for name, n in seen.sites.most_common()], 10)}."


def _cut(downscale: int, patch: int, stride: int, *, masks: bool) -> Iterator[str]:
    yield "    # Grey values of each image by itself, for packages that go to other hospitals;"
    yield '    # "cohort" measures them once for all, "organ" within the masks.'
    yield '    config.data.normalise = "image"'
    yield "    # Blocks of so many pixels a side are averaged; patches are measured after that."
    yield f"    config.data.downscale = {downscale}"
    yield f"    config.patch.size = {patch}"
    yield f"    config.patch.stride = {stride}"
    if not masks:
        yield "    # There are no masks: every patch takes the label of its image."


_RECIPE = """\
    # A recipe that suits a CPU, that of configs/radiograph.py.
    config.network.options = {"width": 32, "depth": 3, "norm": "instance"}
    config.decision.rule = "soft"
    config.distill.update(init="known", steps=20, epochs=2, outer_steps=1500)
    config.distill.optimizer.images_lr = 0.1
    config.evaluate.ceiling.steps = 1000
    if variant == "smoke":
        config.data.limit = 60
        config.network.options = {"width": 4, "depth": 2, "norm": "instance"}
        config.distill.update(steps=2, epochs=1)
        shrink_to_smoke(config)
    return config""".splitlines()
