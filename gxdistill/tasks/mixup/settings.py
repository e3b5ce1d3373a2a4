"""The settings of mixing: their table and its config."""

import ml_collections

from gxdistill.errors import UserError
from gxdistill.jobs import checks, settings
from gxdistill.jobs.settings import Table, choice, integer, items, mapping, number, text
from gxdistill.jobs.shared import COUNT, RATE, SHARED

_OPTIONS = "an option of a U-Net with its value, as width or depth"


def check_settings(config: ml_collections.ConfigDict) -> None:
    """Refuses settings that do not fit each other.

    Raises:
      UserError: naming the setting.
    """
    mixup = config.mixup
    if mixup.low > mixup.high:
        raise UserError(
            f"mixup.low is {mixup.low}, above mixup.high, {mixup.high}. Lower the first."
        )
    for name in ("steps", "attack_steps", "checkpoint_every"):
        if mixup[name] % mixup.steps_per_call:
            raise UserError(
                f"mixup.{name} is {mixup[name]}, not a multiple of mixup.steps_per_call, "
                f"{mixup.steps_per_call}. Change one of them."
            )


_RUN = ("name", "seed", "log", "about.purpose", "about.licence")
_MIXUP = {
    "mixup.data": choice(
        "phantom", ("phantom", "volumes"), "Volumes drawn, or those of the folder mixup.path."
    ),
    "mixup.path": text(".", "a folder", "Folder of images_u8.npy.xz and labels_meta.npz."),
    "mixup.classes": items(
        ("background", "front", "back"),
        "names, the background first",
        "Names of the classes of pixels.",
        fits=lambda names: isinstance(names, tuple) and len(names) > 1,
    ),
    "mixup.patients": integer(24, 4, 10**5, "Number of patients, where volumes are phantoms."),
    "mixup.size": integer(32, 16, 1024, "Side of a slice in pixels, where volumes are phantoms."),
    "mixup.measured_on": choice(
        "test",
        ("test", "training"),
        "Patients that are measured: the test patients, or training patients that are kept out of "
        "training, by which settings are chosen.",
    ),
    "mixup.pool": integer(
        16, 1, 10**5, "Training patients whose volumes are public: the references."
    ),
    "mixup.low": number(0.3, 0.01, 0.99, "Lowest share of an image in its mixture."),
    "mixup.high": number(0.5, 0.01, 0.99, "Highest share of an image in its mixture."),
    "mixup.segmenter": mapping(_OPTIONS, "Settings of the server's network."),
    "mixup.unmixer": mapping(_OPTIONS, "Settings of the client's network."),
    "mixup.mixture_weight": number(1.0, 0.0, 1e3, "Of the mixture's segmentation, in the loss."),
    "mixup.target_weight": number(1.0, 0.0, 1e3, "Of the un-mixed target, in the loss."),
    "mixup.reference_weight": number(0.5, 0.0, 1e3, "Of the un-mixed reference, in the loss."),
    "mixup.steps": integer(2000, 1, 10**7, "Steps of training."),
    "mixup.batch": integer(16, *COUNT, "Slices of one step."),
    "mixup.lr": number(0.002, *RATE, "First learning rate of Adam; it falls to 0 by a cosine."),
    "mixup.decay": number(0.0001, 0.0, 1e3, "Decay of the weights, in units of the rate."),
    "mixup.steps_per_call": integer(10, *COUNT, "Steps of one dispatch."),
    "mixup.checkpoint_every": integer(100, *COUNT, "Steps between two checkpoints."),
    "mixup.references": integer(
        1, 1, 100, "Mixtures of each image, with as many references, in an evaluation."
    ),
    "mixup.attack_steps": integer(
        1000, 0, 10**7, "Steps of a network that separates mixtures, an attack; 0 leaves it out."
    ),
    "mixup.beside": choice(
        "all",
        ("all", "raw", "none"),
        "What an evaluation trains networks on beside mixtures: raw images, the upper bound, and "
        "images under noise and deformed ones; raw images alone; nothing.",
    ),
}
_TASK = settings.add_task(
    Table(
        _MIXUP,
        {"mixup": "Which volumes are mixed, by which law, and how both networks are trained."},
        rules=(check_settings,),
    )
)
TABLE = (
    Table({name: SHARED.settings[name] for name in _RUN}, {"about": SHARED.sections["about"]})
    | _TASK
)


def default_config() -> ml_collections.ConfigDict:
    """Makes the config that the files in `configs/` start from; fields are locked."""
    config = settings.to_config(TABLE)
    config.about.purpose = "Research on segmentation of mixtures."
    config.mixup.segmenter = {"width": 16, "depth": 3}
    config.mixup.unmixer = {"width": 8, "depth": 2}
    return config


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that is not one of mixing.

    Raises:
      UserError: naming the setting, its value and what it may be.
    """
    checks.check(config, TABLE)
