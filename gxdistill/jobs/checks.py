"""What a setting may be: tables that every config is held against before any work is done."""

import difflib
import math
from collections.abc import Iterator
from typing import Any

import ml_collections

from gxdistill.data import leaks
from gxdistill.data.batches.sampling import PATIENTS
from gxdistill.data.files import reading
from gxdistill.distill import memory
from gxdistill.distill.augment import AUGMENTATIONS
from gxdistill.distill.init import LABEL_RULES, SCHEDULES
from gxdistill.distill.inner import OPTIMIZERS
from gxdistill.errors import UserError
from gxdistill.evaluation.decision import RULES
from gxdistill.jobs.settings import default_config

_COUNT = (1, 10**6)
_SHARE = (0.0, 1.0)
_RATE = (1e-9, 1e9)

# Lowest and highest value; whole numbers where the lowest is one. What a setting may be beside the
# others and the data (divisors, sizes, classes) is checked where these meet.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.downscale": _COUNT,
    "data.spacing": (1e-3, 1e2),
    "data.test_share": _SHARE,
    "data.max_bad_share": _SHARE,
    "data.limit": _COUNT,
    "data.patients": (4, 10**6),
    "data.size": (16, 2**13),
    "data.train_share": _SHARE,
    "data.resident_mb": _COUNT,
    "data.cache_mb": _COUNT,
    "patch.size": _COUNT,
    "patch.stride": _COUNT,
    "patch.irrelevant_below": _SHARE,
    "patch.inside_above": _SHARE,
    "distill.steps": _COUNT,
    "distill.epochs": _COUNT,
    "distill.replay_epochs": (0, 10**6),
    "distill.images_per_step": _COUNT,
    "distill.momentum": _SHARE,
    "distill.start_lr": _RATE,
    "distill.networks": _COUNT,
    "distill.networks_at_once": (0, 10**6),
    "distill.batch": _COUNT,
    "distill.memory_budget_mb": (0, 10**6),
    "distill.tile_factor": _COUNT,
    "distill.bases": _COUNT,
    "distill.window_steps": _COUNT,
    "distill.outer_steps": (0, 10**7),
    "distill.steps_per_call": _COUNT,
    "distill.checkpoint_every": (1, 10**7),
    "distill.evaluate_every": (1, 10**7),
    "distill.evaluate_networks": _COUNT,
    "distill.evaluate_patches": _COUNT,
    "distill.optimizer.images_lr": (0.0, 1e9),
    "distill.optimizer.labels_lr": (0.0, 1e9),
    "distill.optimizer.rates_lr": (0.0, 1e9),
    "distill.optimizer.clip": _RATE,
    "distill.optimizer.ema_clip": (0.0, 1e9),
    "distill.optimizer.warmup": (0, 10**7),
    "compress.steps": (0, 10**6),
    "compress.rate": (1e-9, 1.0),
    "compress.patches": _COUNT,
    "compress.weights.steps": _COUNT,
    "compress.weights.lr": (1e-9, 1e3),
    "compress.weights.decay": (0.0, 1e3),
    "evaluate.networks": _COUNT,
    "evaluate.threshold_images": _COUNT,
    "evaluate.baseline_networks": _COUNT,
    "evaluate.ceiling.networks": _COUNT,
    "evaluate.ceiling.steps": (1, 10**7),
    "evaluate.ceiling.batch": _COUNT,
    "evaluate.ceiling.lr": _RATE,
}
_CHOICES = {
    "data.burned_in": reading.TEXTS,
    "data.fit": reading.FITS,
    "data.kind": ("manifest", "prepared", "phantom", "mnist"),
    "data.window": reading.WINDOWS,
    "data.leaks.duplicate": leaks.RULES,
    "data.leaks.site": leaks.RULES,
    "data.feed": ("auto", "resident", "streaming"),
    "sampling.patients": PATIENTS,
    "distill.init": ("known", "random"),
    "distill.inner": tuple(OPTIMIZERS),
    "distill.label_rule": LABEL_RULES,
    "distill.memory": memory.CHOICES,
    "distill.rates": ("per_step", "shared", "order_free"),
    "distill.synthesis": ("pixels", "tiles", "bases"),
    "distill.window": ("all", "last", "random", "adaptive"),
    "distill.start_schedule": SCHEDULES,
    "distill.started_from": ("noise", "mixture", "real"),
    "distill.started_labels": ("classes", "networks"),
    "decision.rule": RULES,
}
_OPEN = ("data.columns", "network.options", "sampling.sites")  # Tables whose keys are the user's.
_BALANCED = (
    "distill.batch",
    "distill.evaluate_patches",
    "evaluate.ceiling.batch",
    "compress.patches",
)
_MAX_BYTES = 1 << 30  # Of distilled images: what a receiver loads at most.


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config that lacks a setting, or has one too many, of another type or out of range.

    Raises:
      UserError: naming the setting, its value and what it may be.
    """
    wanted, given = dict(_settings(default_config())), dict(_settings(config))
    for name in [name for name in wanted if name not in given]:
        raise UserError(
            f"The config has no setting {name}. Start it from gxdistill.jobs.settings."
            f"default_config(), as the files in configs/ do."
        )
    for name in [name for name in given if name not in wanted]:
        nearest = difflib.get_close_matches(name, wanted, 1, 0)[0]
        raise UserError(f"The config has an unknown setting {name}. Did you mean {nearest}?")
    for name, value in given.items():
        may_be = _may_be(name, value, wanted[name])
        if may_be:
            raise UserError(f"{name} is {value!r}; it must be {may_be}.")


def _settings(config: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    for key in config:
        name, value = f"{at}{key}", config[key]
        if isinstance(value, ml_collections.ConfigDict) and name not in _OPEN:
            yield from _settings(value, f"{name}.")
        else:
            yield name, value


def _may_be(name: str, value: Any, default: Any) -> str | None:
    """Words what a setting may be; None where it is that."""
    if name in _CHOICES:
        known = _CHOICES[name]
        return None if value in known else " or ".join(map(repr, known))
    if name in RANGES:
        return _fits_range(value, *RANGES[name], optional=default is None)
    if name == "data.image_size":
        return None if value is None or _is_size(value) else "height and width in pixels, or None"
    if not isinstance(value, type(default)):
        return f"a {type(default).__name__}"
    if name == "distill.augmentations" and any(kind not in AUGMENTATIONS for kind in value):
        return f"names among {', '.join(map(repr, AUGMENTATIONS))}"
    if name == "data.label_names" and (not value or len({*value, "irrelevant"}) <= len(value)):
        return "names that differ from each other and from 'irrelevant'"
    return None


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(side) is int and side > 0 for side in value)
    )


def _fits_range(value: Any, low: float, high: float, *, optional: bool) -> str | None:
    whole = isinstance(low, int)
    if value is None and optional:
        return None
    if type(value) in ((int,) if whole else (int, float)) and low <= value <= high:
        return None
    what = "a whole number" if whole else "a number"
    return f"{what} from {low} to {high}" + (", or None" if optional else "")


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


def check_classes(config: ml_collections.ConfigDict, classes: int) -> None:
    """Refuses class-balanced batches that have no room for each class.

    Raises:
      UserError: naming the setting.
    """
    for name in _BALANCED:
        size = dict(_settings(config))[name]
        if size < classes:
            raise UserError(
                f"{name} is {size}; a balanced draw of {classes} classes needs at least as many "
                f"patches. Raise it."
            )


def check_size(config: ml_collections.ConfigDict, shape: tuple[int, ...]) -> None:
    """Refuses distilled data that no receiver would load.

    Args:
      config: of the job.
      shape: of one patch, `[H, W, C]`.

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
