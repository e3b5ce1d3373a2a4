"""What a server can do with the mixtures of test patients: find who they are, and rebuild them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.evaluation.similarity import ms_ssim, ssim
from gxdistill.privacy.attacks import unmixing
from gxdistill.pytrees import Metadata
from gxdistill.tasks.mixup.comparing import Trainer
from gxdistill.tasks.mixup.contenders import compiled, in_batches

LIKENESS, NETWORK, KNOWN = "likeness", "a trained network", "known references"

Similarity = Callable[[jax.Array, jax.Array], jax.Array]  # [N, H, W] twice -> [N].


def rebuild(trainer: Trainer, sent: np.ndarray, pool: np.ndarray) -> dict[str, np.ndarray]:
    """Rebuilds patients from all mixtures of them, by each attack.

    Args:
      trainer: of the attack by a network, which `mixup.attack_steps=0` leaves out.
      sent: mixtures of Q mixings, `[Q, P, S, H, W]`.
      pool: references that the last attack knows, `[R, S, H, W]` uint8.

    Returns:
      Volumes by attack, `[P, S, H, W]` from 0 to 1: the mixtures as they are (their mean, where
      there are several), what a network makes of them, and what is left without the reference.

    Raises:
      UserError: a training diverged.
    """
    mean = unmixing.average_queries([*sent])
    rebuilt = {LIKENESS: mean}
    if trainer.config.mixup.attack_steps:
        separate = compiled(trainer.separator.apply, trainer.separation())
        rebuilt[NETWORK] = np.stack([in_batches(separate, x[..., None])[..., 0] for x in mean])
    left = unmixing.subtract_known(sent[0], pool / np.float32(255))
    shares = np.maximum(left.shares, 0.01).reshape(-1, 1, 1, 1)
    rebuilt[KNOWN] = np.clip(left.images / shares, 0, 1).astype(np.float32)
    return rebuilt


def figures(trainer: Trainer, rebuilt: dict[str, np.ndarray]) -> Metadata:
    """Measures how many patients each attack finds in a gallery of raw volumes, and how well.

    Args:
      trainer: of the run, with its test patients.
      rebuilt: of `rebuild`.

    Returns:
      Of each attack `precision_at_1`, `over_chance`, `mean_average_precision`, `likeness`, and
      `ms_ssim`, the mean over the slices that show anything.
    """
    gallery = trainer.cohort.test.images / np.float32(255)
    return {name: _figures(volumes, gallery) for name, volumes in rebuilt.items()}


def _figures(rebuilt: np.ndarray, gallery: np.ndarray) -> Metadata:
    result = unmixing.retrieval(rebuilt, gallery)
    return {
        "precision_at_1": result.precision_at_1._asdict(),
        "mean_average_precision": result.mean_average_precision,
        "over_chance": result.over_chance,
        "likeness": unmixing.mean_likeness(rebuilt, gallery),
        "ms_ssim": _mean(ms_ssim, rebuilt, gallery),
    }


def seen(trainer: Trainer, sent: np.ndarray) -> Metadata:
    """Measures what a contender sends: its mean SSIM to raw images, and who is found by likeness.

    Args:
      trainer: of the run, with its test patients.
      sent: `[P, S, H, W]`.
    """
    gallery = trainer.cohort.test.images / np.float32(255)
    result = unmixing.retrieval(sent, gallery)
    return {
        "ssim": _mean(ssim, sent, gallery),
        "precision_at_1": result.precision_at_1._asdict(),
        "over_chance": result.over_chance,
    }


def guess(trainer: Trainer) -> float:
    """Returns the MS-SSIM of test patients and the mean training patient: what no mixture gives."""
    mean = trainer.cohort.private.images.mean(0, dtype=np.float32) / 255
    gallery = trainer.cohort.test.images / np.float32(255)
    return _mean(ms_ssim, np.broadcast_to(mean, gallery.shape), gallery)


def _mean(measure: Similarity, volumes: np.ndarray, gallery: np.ndarray) -> float:
    """Averages a similarity over the slices that are not black, `[P, S, H, W]` twice."""
    pairs = zip(volumes, gallery, strict=True)
    values = [np.asarray(measure(jnp.asarray(a), jnp.asarray(b))) for a, b in pairs]
    return float(np.stack(values)[gallery.any((2, 3))].mean())
