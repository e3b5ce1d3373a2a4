"""The settings of segmentation: their table, its config, and the page that tells of them.

python -m gxdistill.tasks.segmentation.settings > docs/segmentation_settings.md
"""

import dataclasses

import ml_collections

from gxdistill.errors import UserError
from gxdistill.jobs import checks, settings
from gxdistill.jobs.settings import (
    Shape,
    Table,
    choice,
    integer,
    items,
    names_in,
    number,
    switch,
    text,
)
from gxdistill.jobs.shared import COUNT, RATE, SHARED

_STEPS = ("steps", "checkpoint_every")


def check_masks(config: ml_collections.ConfigDict) -> None:
    """Refuses a cohort whose pixels have no classes, or which is read by what is looked for.

    Raises:
      UserError: naming the setting.
    """
    data = config.data
    if not data.mask_classes:
        raise UserError(
            "data.mask_classes is (); name the classes of the masks' pixels, the background first, "
            "as --config.data.mask_classes=background,nucleus."
        )
    if data.normalise.startswith("organ"):
        raise UserError(
            f"data.normalise is {data.normalise!r}, by the mask that is to be found. Choose "
            f"'cohort', 'image' or 'image_histogram'."
        )
    if data.kind == "prepared":
        raise UserError(
            "data.kind is 'prepared'; such a set has masks of an organ alone. Read its manifest."
        )


def check_steps(config: ml_collections.ConfigDict) -> None:
    """Refuses numbers of steps that do not fit each other.

    Raises:
      UserError: naming the setting.
    """
    loop = config.segment
    for name in _STEPS:
        if loop[name] % loop.steps_per_call:
            raise UserError(
                f"segment.{name} is {loop[name]}, not a multiple of segment.steps_per_call, "
                f"{loop.steps_per_call}. Change one of them."
            )


def check_tiles(config: ml_collections.ConfigDict, shape: Shape, _: int) -> None:
    """Refuses an overlap that leaves nothing, and augmentations that do not fit the images.

    Raises:
      UserError: naming the setting.
    """
    if config.segment.overlap >= shape[0]:
        raise UserError(
            f"segment.overlap is {config.segment.overlap}, not below patch.size, {shape[0]}. "
            f"Lower it."
        )
    if "stain" in config.segment.augment and shape[2] != 3:
        raise UserError(
            "segment.augment has 'stain', and grey images have none. Leave it out, or set "
            "data.colour."
        )


_SEGMENT = {
    # Of a U-Net in place of the classifiers' own.
    "network.name": choice(
        "unet", names_in("gxdistill.models.zoo", "SEGMENTERS"), "Kind of network that is trained."
    ),
    "about.purpose": text("Research on segmentation.", "text", "What the segmenter is for."),
    "segment.steps": integer(2000, 1, 10**7, "Steps of training."),
    "segment.batch": integer(8, *COUNT, "Crops of one step, of patch.size pixels a side."),
    "segment.lr": number(0.002, *RATE, "First learning rate of Adam; it falls to 0 by a cosine."),
    "segment.decay": number(0.0001, 0.0, 1e3, "Decay of the weights, in units of the rate."),
    "segment.dice_over": choice(
        "batch", ("image", "batch"), "Pixels that one soft Dice is of: a crop's or the batch's."
    ),
    "segment.augment": items(
        (),
        "",
        "How crops are changed at random, one way after the other.",
        choices=names_in("gxdistill.segmentation.augmentation", "AUGMENTATIONS"),
    ),
    "segment.steps_per_call": integer(10, *COUNT, "Steps of one dispatch."),
    "segment.checkpoint_every": integer(100, *COUNT, "Steps between two checkpoints."),
    "segment.overlap": integer(32, 0, 10**6, "Pixels that neighbouring tiles share, at least."),
    "segment.flips": switch(True, "Whether predictions are averaged over a tile's mirror images."),
    "segment.measure": choice(
        "image",
        ("image", "patient"),
        "What figures are of: an image, or the slices of a patient together as a volume.",
    ),
    "segment.tolerance": number(
        1.0, 0.0, 1e3, "Pixels by which a boundary may be off in the surface Dice."
    ),
}
_TASK = settings.add_task(
    Table(
        _SEGMENT,
        {"segment": "How a network learns to segment, and how it is measured."},
        rules=(check_masks, check_steps),
        problem_rules=(check_tiles,),
    )
)
TABLE = SHARED | _TASK


def default_config() -> ml_collections.ConfigDict:
    """Makes the config that the files in `configs/` start from; fields are locked."""
    config = settings.to_config(TABLE)
    config.data.label_names = ()
    config.network.options = {"width": 16, "depth": 3}
    return config


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that is not one of segmentation.

    Raises:
      UserError: naming the setting, its value and what it may be.
    """
    checks.check(config, TABLE)


def as_page() -> str:
    """Writes the settings that segmentation adds as `docs/segmentation_settings.md`."""
    return settings.as_page(
        dataclasses.replace(_TASK, sections=TABLE.sections),
        "Settings of segmentation",
        "Beside those below, a config has the sections `data`, `sampling`, `patch`, `network` and "
        "`about` of\n[every task](settings.md); it starts from `default_config()` of "
        "`gxdistill.tasks.segmentation.settings`.\nThis page is made by `python -m "
        "gxdistill.tasks.segmentation.settings > docs/segmentation_settings.md`.",
    )


if __name__ == "__main__":
    print(as_page(), end="")
