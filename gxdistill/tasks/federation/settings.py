"""The settings of a federation that segments: their table, its config, and their page.

python -m gxdistill.tasks.federation.settings > docs/federation_settings.md
"""

import ml_collections

from gxdistill.errors import UserError
from gxdistill.jobs import checks, settings
from gxdistill.jobs.settings import (
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

PROTECTIONS = ("site", "patient")


def check_server(config: ml_collections.ConfigDict) -> None:
    """Refuses settings of a federation that contradict each other.

    Raises:
      UserError: naming the setting.
    """
    federation = config.federation
    if federation.mean != "weighted":
        if "site" in federation.protect:
            raise UserError(
                f"federation.mean is {federation.mean!r} with federation.protect 'site': of noise, "
                f"a robust mean keeps the most. Set it to 'weighted', or leave the noise out."
            )
        if federation.secure:
            raise UserError(
                f"federation.mean is {federation.mean!r} with federation.secure: a robust mean "
                f"looks at each update, which a masked sum hides. Leave one out."
            )
    noise = federation.site.noise
    if federation.site.adaptive and 2 * federation.site.bit_noise <= noise:
        raise UserError(
            f"federation.site.bit_noise is {federation.site.bit_noise}: the bits alone tell more "
            f"than federation.site.noise {noise} allows. Raise it above {noise / 2}."
        )


_ROUNDS = {
    "network.name": choice(
        "unet", names_in("gxdistill.models.zoo", "SEGMENTERS"), "Kind of network that is trained."
    ),
    "federation.start": text(
        "", "a file, or nothing", "Package of a segmenter whose weights all start from."
    ),
    "federation.rounds": integer(50, *COUNT, "Rounds between the server and the sites."),
    "federation.local_steps": integer(20, *COUNT, "Steps of each site in a round."),
    "federation.batch": integer(8, *COUNT, "Crops of a step, of patch.size pixels a side."),
    "federation.augment": items(
        (),
        "",
        "How crops are changed at random, one way after the other.",
        choices=names_in("gxdistill.segmentation.augmentation", "AUGMENTATIONS"),
    ),
    "federation.dice_over": choice(
        "batch", ("image", "batch"), "Pixels that one soft Dice is of: a crop's or the batch's."
    ),
    "federation.least": integer(
        1, *COUNT, "Training patients of a site; those of smaller ones are one site, 'others'."
    ),
    "federation.deal": integer(
        0, 0, 1000, "Made-up sites that patients are dealt out to; 0 takes the cohort's own."
    ),
    "federation.optimizer": choice(
        "adam",
        names_in("gxdistill.tasks.federation.training", "OPTIMIZERS"),
        "Optimiser of a site's steps; it starts anew in every round.",
    ),
    "federation.lr": number(0.003, *RATE, "First rate of a site's steps."),
    "federation.schedule": choice(
        "cosine",
        names_in("gxdistill.tasks.federation.training", "SCHEDULES"),
        "How that rate goes on over the rounds.",
    ),
    "federation.proximal": number(
        0.0, 0.0, 1e9, "mu of FedProx, which draws a site's weights to the server's; 0 is FedAvg."
    ),
    "federation.participation": number(1.0, 1e-6, 1.0, "Chance of a site to take part in a round."),
    "federation.weights": choice(
        "images", ("images", "equal"), "What a site weighs in the mean: by its images, or alike."
    ),
    "federation.mean": choice(
        "weighted",
        ("weighted", "trimmed", "median"),
        "How updates are averaged: by weight, or such that a few made-up ones do little.",
    ),
    "federation.trim": number(
        0.2, 0.0, 0.49, "Share of the sites that a trimmed mean leaves out at each end."
    ),
    "federation.server": choice(
        "sgd",
        names_in("gxdistill.federated.aggregation", "SERVERS"),
        "Optimiser of the server: sgd at rate 1 is FedAvg, adam is FedAdam.",
    ),
    "federation.server_lr": number(1.0, *RATE, "Rate of the server's optimiser."),
}
_SECRETS = {
    "federation.secure": switch(
        False, "Masks the updates, so that the server sees their sum alone."
    ),
    "federation.secure_bound": number(
        1000.0, 1e-3, 1e6, "Largest number in an update that is masked; a larger one is refused."
    ),
    "federation.threshold": integer(
        0, 0, 10**6, "Sites that must be left at the end of a masked round; 0 is all."
    ),
    "federation.protect": items(
        (),
        "names among 'site' and 'patient'",
        "Whose presence noise hides, each in a federation of its own beside the plain one.",
        choices=PROTECTIONS,
    ),
    "federation.delta": number(
        1e-2, 1e-12, 0.999, "At which epsilon is told; below one over the number of units, at best."
    ),
    "federation.site.clip": number(1.0, *RATE, "Largest norm of a site's update."),
    "federation.site.noise": number(
        1.0, 1e-3, 1e4, "Deviation of the noise on a site's update, in units of the clip."
    ),
    "federation.site.adaptive": switch(
        False, "Lets the clip follow a quantile of the norms that is told with noise."
    ),
    "federation.site.quantile": number(0.5, 0.0, 1.0, "That quantile."),
    "federation.site.quantile_rate": number(0.2, 1e-6, 10.0, "How fast the clip follows."),
    "federation.site.bit_noise": number(
        10.0, 1e-3, 1e6, "Deviation of the noise on what a site tells of its norm."
    ),
    "federation.patient.epsilon": number(
        8.0, 1e-3, 100.0, "Of all rounds, which the noise is calibrated to."
    ),
    "federation.patient.noise": number(
        0.0, 0.0, 1e4, "Deviation of the noise, in units of the clip; 0 goes by epsilon."
    ),
    "federation.patient.clip": number(1.0, *RATE, "Largest norm of a patient's part of a sum."),
    "federation.patient.sampling": number(
        0.2, 1e-6, 1.0, "Chance of a patient to be in a round's sample."
    ),
    "federation.patient.crops": integer(4, *COUNT, "Crops of a patient in a sample, and step."),
    "federation.patient.shown": number(
        0.0, 0.0, 1.0, "Share of crops from images that show a structure; the rest from any."
    ),
    "federation.patient.augmented": switch(
        True, "Whether crops of a patient's part are changed by federation.augment, too."
    ),
    "federation.patient.steps": integer(
        1, *COUNT, "Steps of a patient's part, the weights' change; 1 gives the gradient itself."
    ),
    "federation.patient.steps_lr": number(
        0.1, *RATE, "Rate of these steps, of SGD with momentum .9, where there are several."
    ),
    "federation.patient.rounds": integer(200, *COUNT, "Rounds, each one step of the server."),
    "federation.patient.lr": number(0.003, *RATE, "First rate of the server's Adam."),
    "federation.patient.honest": integer(
        0,
        0,
        10**6,
        "Sites whose share of the noise is counted on; 0 is as many as the threshold.",
    ),
}
_MEASURES = {
    "federation.alone": switch(True, "Trains each site alone, too."),
    "federation.central": switch(True, "Trains on all sites' patients together, too."),
    "federation.overlap": integer(
        32, 0, 10**6, "Pixels that neighbouring tiles of a test image share, at least."
    ),
    "federation.checkpoint_every": integer(5, *COUNT, "Rounds between two checkpoints."),
}
_TASK = settings.add_task(
    Table(
        {**_ROUNDS, **_SECRETS, **_MEASURES},
        {"federation": "How sites train together, and what protects them."},
        rules=(check_server,),
    )
)
TABLE = SHARED | _TASK


def default_config() -> ml_collections.ConfigDict:
    """Makes the config that the files in `configs/` start from; fields are locked."""
    return settings.to_config(TABLE)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that is not one of a federation.

    Raises:
      UserError: naming the setting, its value and what it may be.
    """
    checks.check(config, TABLE)


def as_page() -> str:
    """Writes the settings of the section `federation` as `docs/federation_settings.md`."""
    here = {name: setting for name, setting in _TASK.settings.items() if "federation." in name}
    return settings.as_page(
        Table(here, _TASK.sections),
        "Settings of a federation",
        "Those of the section `federation`; data, patches and network are set as for "
        "[every job](settings.md).\nA config in `configs/` starts from `default_config()` of "
        "`gxdistill.tasks.federation.settings` and changes\nwhat it must; the command line changes "
        "single settings, as `--config.federation.rounds=20`.\nThis page is made by "
        "`python -m gxdistill.tasks.federation.settings > docs/federation_settings.md`.",
    )


if __name__ == "__main__":
    print(as_page(), end="")
