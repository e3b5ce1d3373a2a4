"""The settings of distillation: their table, its config, and the pages that tell of them.

python -m gxdistill.tasks.distillation.settings > docs/settings.md
"""

import functools
import math

import ml_collections

from gxdistill.errors import UserError
from gxdistill.jobs import checks, settings
from gxdistill.jobs.settings import Shape, Table, choice, integer, items, names_in, number
from gxdistill.jobs.shared import COUNT, RATE, SHARE, SHARED
from gxdistill.tasks.distillation.guards import check_privacy
from gxdistill.tasks.distillation.release_settings import RELEASE

_METHOD = "gxdistill.tasks.distillation.method"


def check_epochs(config: ml_collections.ConfigDict) -> None:
    """Refuses a package that would need rates which nothing learns.

    Raises:
      UserError: naming the setting.
    """
    loop = config.distill
    if loop.rates == "per_step" and loop.replay_epochs not in (0, loop.epochs):
        raise UserError(
            f"distill.replay_epochs is {loop.replay_epochs}, and a rate is learned for each step "
            f"of {loop.epochs} epochs. Set it to 0, or distill.rates to 'shared' or 'order_free'."
        )


def check_augmentations(config: ml_collections.ConfigDict) -> None:
    """Refuses changes that are drawn where the very network of the sender is promised.

    Raises:
      UserError: naming the setting.
    """
    loop = config.distill
    if loop.replay_augmentations and loop.init == "known":
        raise UserError(
            f"distill.replay_augmentations is {loop.replay_augmentations}, and a package for known "
            f"initial weights is proved by its replay, in which nothing is drawn. Set it to (), or "
            f"distill.init to 'random'."
        )


def check_labels(config: ml_collections.ConfigDict) -> None:
    """Refuses a cohort that has no labels, or masks of several classes.

    Raises:
      UserError: naming the setting.
    """
    if not config.data.label_names:
        raise UserError(
            "data.label_names is (); it must be names that differ from each other, for images are "
            "distilled by their labels."
        )
    if config.data.mask_classes:
        raise UserError(
            f"data.mask_classes is {config.data.mask_classes}; distillation knows masks of an "
            f"organ alone. Set it to (), and name the organ's labels by data.organ."
        )


_BALANCED = (
    "distill.batch",
    "distill.evaluate_patches",
    "evaluate.ceiling.batch",
    "compress.patches",
)
_MAX_BYTES = 1 << 30  # Of distilled images: what a receiver loads at most.


def check_classes(config: ml_collections.ConfigDict, _: Shape, classes: int) -> None:
    """Refuses class-balanced draws that have no room for each class.

    Raises:
      UserError: naming the setting.
    """
    for name in _BALANCED:
        size = functools.reduce(getattr, name.split("."), config)
        checks.check_balanced(name, size, classes)


def check_size(config: ml_collections.ConfigDict, shape: Shape, _: int) -> None:
    """Refuses distilled data that no receiver would load.

    Raises:
      UserError: with the size.
    """
    loop = config.distill
    images = loop.steps * loop.images_per_step * math.prod(shape)
    size = 4 * (images + loop.steps * (loop.replay_epochs or loop.epochs))
    if size > _MAX_BYTES:
        raise UserError(
            f"The distilled data would take {size / 2**30:.3g} GiB, a package holds 1 GiB at most. "
            f"Lower distill.steps, distill.images_per_step, the epochs or patch.size."
        )


_DATA = {
    "distill.init": choice(
        "random",
        ("known", "random"),
        "Initial weights that are learned for: one known set, or any.",
    ),
    "distill.steps": integer(
        10, *COUNT, "S, inner steps of an epoch: each has a batch of distilled images."
    ),
    "distill.epochs": integer(3, *COUNT, "E, how often training goes through all batches."),
    "distill.replay_epochs": integer(
        0,
        0,
        10**6,
        "E that a package is trained for, where steps share a rate; 0 is distill.epochs.",
    ),
    "distill.images_per_step": integer(
        3, *COUNT, "B, distilled images of a batch; may be fewer than classes."
    ),
    "distill.label_rule": choice(
        "raw",
        names_in("gxdistill.distill.init", "LABEL_RULES"),
        "How learned numbers become soft labels.",
    ),
    "distill.started_from": choice(
        "noise",
        ("noise", "mixture", "real"),
        "Images at the start: noise, draws from a mixture of Gaussians, or real ones, which leak.",
    ),
    "distill.cluster_patches": integer(
        100, 20, 10**6, "Real patches of a cluster of the mixture, on average."
    ),
    "distill.started_labels": choice(
        "classes",
        ("classes", "networks"),
        "Labels at the start: by class, or by networks trained on all real patches.",
    ),
    "distill.label_temperature": number(
        1.0, 0.05, 20.0, "Of those networks' labels: below 1 they are sharper, above 1 flatter."
    ),
    "distill.synthesis": choice(
        "pixels",
        ("pixels", "tiles", "bases"),
        "What is learned of images: pixels, tiles to be enlarged, or bases to be mixed.",
    ),
    "distill.tile_factor": integer(2, *COUNT, "How many times a tile is enlarged."),
    "distill.bases": integer(16, *COUNT, "Number of bases that all images are mixed of."),
}
_INNER = {
    "distill.inner": choice(
        "sgd", names_in("gxdistill.distill.inner", "OPTIMIZERS"), "Optimiser of the inner steps."
    ),
    "distill.momentum": number(0.9, *SHARE, "Decay of the inner optimiser, where it is momentum."),
    "distill.start_lr": number(
        0.02, *RATE, "Inner learning rate of the first step, before any is learned."
    ),
    "distill.start_schedule": choice(
        "constant",
        names_in("gxdistill.distill.init", "SCHEDULES"),
        "How inner learning rates go on from the first, before any is learned.",
    ),
    "distill.rates": choice(
        "per_step",
        names_in(_METHOD, "RATES"),
        "Inner learning rates: one a step, one for all, or one for all with steps in any order.",
    ),
    "distill.augmentations": items(
        (),
        "names of augmentations",
        "Changes of real and distilled images alike, drawn at each outer step.",
        choices=names_in("gxdistill.distill.augment", "AUGMENTATIONS"),
    ),
    "distill.replay_augmentations": items(
        (),
        "names of augmentations",
        "Changes of each image of each step when networks are trained on distilled data.",
        choices=names_in("gxdistill.distill.augment", "AUGMENTATIONS"),
    ),
}
_OUTER = {
    "distill.precision": choice(
        "float32",
        names_in("gxdistill.package.precision", "PRECISIONS"),
        "How images are packaged: as they are, or rounded to fewer bits once all is learned.",
    ),
    "distill.window": choice(
        "all",
        names_in(_METHOD, "WINDOWS"),
        "Differentiated inner steps: all, the last, a random window, or one where weights move.",
    ),
    "distill.window_steps": integer(
        20, *COUNT, "Number of inner steps that are differentiated, unless all are."
    ),
    "distill.networks": integer(1, *COUNT, "Initial weights of one outer step."),
    "distill.networks_at_once": integer(
        0, 0, 10**6, "Networks side by side on a device; 0 is all of them, on a CPU one."
    ),
    "distill.batch": integer(256, *COUNT, "Real patches of one outer step."),
    "distill.memory": choice(
        "auto",
        names_in("gxdistill.distill.memory", "CHOICES"),
        "What a meta-gradient keeps in memory; auto takes the fastest that fits the budget.",
    ),
    "distill.memory_budget_mb": integer(
        256, 0, 10**6, "MiB for the meta-gradient of one network, for auto; 0 goes by the card."
    ),
    "distill.outer_steps": integer(
        1000, 0, 10**7, "Length of the learning; 0 packages the start as it is."
    ),
    "distill.steps_per_call": integer(10, *COUNT, "Outer steps of one dispatch to the device."),
    "distill.checkpoint_every": integer(50, 1, 10**7, "Outer steps between two checkpoints."),
    "distill.evaluate_every": integer(100, 1, 10**7, "Outer steps between two evaluations."),
    "distill.evaluate_networks": integer(2, *COUNT, "Fresh networks of a periodic evaluation."),
    "distill.evaluate_patches": integer(1200, *COUNT, "Test patches of a periodic evaluation."),
    "distill.optimizer.images_lr": number(0.05, 0.0, 1e9, "Outer learning rate of the images."),
    "distill.optimizer.labels_lr": number(0.02, 0.0, 1e9, "Outer learning rate of the labels."),
    "distill.optimizer.rates_lr": number(
        0.02,
        0.0,
        1e9,
        "Outer learning rate of the inner learning rates; 0 leaves these as they start.",
    ),
    "distill.optimizer.clip": number(1.0, *RATE, "Largest norm of a meta-gradient."),
    "distill.optimizer.ema_clip": number(
        0.0,
        0.0,
        1e9,
        "Largest norm of a meta-gradient over its running mean; 0 sets no such limit.",
    ),
    "distill.optimizer.warmup": integer(
        0, 0, 10**7, "Outer steps until the outer learning rates are reached."
    ),
}
_COMPRESS = {
    "compress.steps": integer(
        100, 0, 10**6, "Outer steps that fine-tune images through their rounding; 0 is none."
    ),
    "compress.rate": number(
        0.1, 1e-9, 1.0, "Share of the rates of distill.optimizer that fine-tuning has."
    ),
    "compress.patches": integer(
        3000, *COUNT, "Training patches that the loss by compression is measured on."
    ),
    "compress.weights.steps": integer(
        4000, *COUNT, "Steps that train essential weights, on batches as the ceiling's."
    ),
    "compress.weights.lr": number(
        0.03,
        1e-9,
        1e3,
        "First learning rate of essential values, which move weights by hundredths.",
    ),
    "compress.weights.decay": number(
        0.0,
        0.0,
        1e3,
        "Decay of essential values: with more, they generalise better in fewer bytes.",
    ),
}
_PRIVACY = {
    "privacy.mechanism": choice(
        "none",
        ("none", "meta_gradient", "statistics"),
        "What protects patients: nothing, noise on each meta-gradient, or on statistics, once.",
    ),
    "privacy.epsilon": number(
        8.0, 1e-3, 100.0, "Budget: the run stops before a release that would exceed it."
    ),
    "privacy.delta": number(1e-5, 1e-12, 0.1, "At which epsilon is told; below 1 / patients."),
    "privacy.clip": number(1.0, *RATE, "Largest norm of what a patient contributes to a step."),
    "privacy.clip_at": choice(
        "weights",
        names_in("gxdistill.privacy.meta_gradient", "PLACES"),
        "Where that is clipped: at the trained weights, or at the distilled data, which is slow.",
    ),
    "privacy.noise": number(
        0.0, 0.0, 1e6, "Deviation of a step's noise over the clip; 0 fits it to the budget."
    ),
    "privacy.patients_per_step": integer(
        32, *COUNT, "Patients of an outer step, on average: each comes by a coin of its own."
    ),
    "privacy.threshold_noise": number(
        0.0, 0.0, 1e6, "Noise on the scores that tau is chosen on, patients; 0 releases no tau."
    ),
    "privacy.patches_per_patient": integer(8, *COUNT, "Patches of each patient of a step."),
}
_TASK = settings.add_task(
    Table(
        {**_DATA, **_INNER, **_OUTER, **_COMPRESS, **_PRIVACY, **RELEASE},
        {
            "privacy": "What is guaranteed to patients, and at which price.",
            "distill": "What is learned, and how.",
            "compress": "How a package, or a network, is written in fewer bytes.",
        },
        rules=(check_labels, check_epochs, check_augmentations, check_privacy),
        problem_rules=(check_classes, check_size),
    )
)
TABLE = SHARED | _TASK


def default_config() -> ml_collections.ConfigDict:
    """Makes the config that the files in `configs/` start from; fields are locked."""
    return settings.to_config(TABLE)


def shrink_to_smoke(
    config: ml_collections.ConfigDict, *, batch: int = 16, outer_steps: int = 4
) -> None:
    """Shortens all loops of a config to a handful of steps, for a run of a minute on a CPU.

    Args:
      config: is changed; its data, patches and network are left to the caller.
      batch: real patches of one step.
      outer_steps: length of the learning, a multiple of 4.
    """
    config.distill.update(outer_steps=outer_steps, batch=batch, steps_per_call=2)
    config.distill.update(checkpoint_every=2, evaluate_every=4, evaluate_patches=30)
    config.evaluate.update(networks=2, baseline_networks=1)
    config.evaluate.ceiling.update(networks=1, steps=4, batch=batch)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that is not one of distillation.

    Raises:
      UserError: naming the setting, its value and what it may be.
    """
    checks.check(config, TABLE)


def as_page() -> str:
    """Writes all settings as `docs/settings.md`."""
    return settings.as_page(
        TABLE,
        "Settings of distillation",
        "A config in `configs/` starts from `default_config()` of "
        "`gxdistill.tasks.distillation.settings` and\nchanges what it must; the command line "
        "changes single settings, as `--config.distill.outer_steps=200`, and\n`gxdistill settings "
        "--config=CONFIG` lists those of a config, `--json` for programs.\nThis page is made by "
        "`python -m gxdistill.tasks.distillation.settings > docs/settings.md`.",
    )


if __name__ == "__main__":
    print(as_page(), end="")
