"""How well test patients are segmented through mixtures, beside raw images and mixtures alone."""

from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from gxdistill import storage
from gxdistill.evaluation import boundaries, overlap
from gxdistill.jobs.workdir import Workdir
from gxdistill.mixup.mixing import draw_shares, exposure
from gxdistill.mixup.unmixing import average
from gxdistill.package import seeds
from gxdistill.package.mixup_file import MixupFile, network_of
from gxdistill.package.seeds import Use
from gxdistill.privacy.attacks import unmixing
from gxdistill.pytrees import Metadata, Params
from gxdistill.runtime.console import Log, Progress
from gxdistill.service.model import CompiledModel
from gxdistill.tasks.mixup import comparing, sides, training
from gxdistill.tasks.mixup.cohort import MixupCohort, to_input

RESULT, CASES = "mixup.json", "mixup_cases.npz"
_WORST = 4  # Patients with pictures.
_SIZE = 16

Segment = Callable[[np.ndarray], np.ndarray]  # Mixtures [S, H, W, 1] -> probabilities.


def evaluate(config: ml_collections.ConfigDict, workdir: Workdir, log: Log) -> Metadata:
    """Measures test patients, each a volume, and writes `mixup.json`.

    Returns:
      Of each contender Dice and HD95 by patient and class; and how mixtures give patients away.

    Raises:
      UserError: the files of both sides are missing or damaged.
    """
    cohort, client = MixupCohort(config), sides.load_client(workdir / training.CLIENT_FILE)
    model = CompiledModel(sides.load_server(workdir / training.SERVER_FILE), (_SIZE,))
    test, truth = cohort.test.images, cohort.test.labels
    shares, rows = _draw(config, client, len(test))
    unmixer, clock = sides.Unmixer(client), Progress(log, "test patients")
    unmixed, mixed, sent = [], [], []
    for patient, slices in enumerate(test):
        recovered, mixed_in = [], []
        for share, row in zip(shares[patient], rows[patient], strict=True):
            images, labels = sides.reference_slices(client, int(row), len(slices))
            mixture = sides.mixtures(slices, images, float(share))
            mixed_in.append(mixture)
            answer = in_batches(lambda x: model.run(x)[0], mixture)
            recovered.append(unmixer(answer, images, labels, float(share)))
        unmixed.append(np.asarray(average(np.stack(recovered))).argmax(-1))  # type: ignore[arg-type]
        mixed.append(answer.argmax(-1))
        sent.append(np.stack(mixed_in)[..., 0])
        clock(patient + 1, len(test))
    masks = {"unmixed": np.stack(unmixed), "mixture alone": np.stack(mixed)}
    if config.mixup.raw:
        params = comparing.train_raw(config, cohort, workdir, log)
        masks["raw images"] = _segment_raw(config, cohort, params)
    separator = _separator(config, cohort, workdir, log)
    classes = len(cohort.volumes.class_names)
    result = {
        "contenders": {
            name: _figures(predicted, truth, classes) for name, predicted in masks.items()
        },
        "exposure": float(np.mean([exposure(drawn.tolist()) for drawn in shares])),
        "reidentified": _attacks(np.swapaxes(sent, 0, 1), test, references_of(client), separator),
        "patients": len(test),
        "references": int(config.mixup.references),
    }
    storage.write_arrays(
        workdir / CASES, **_cases(test, np.stack(sent)[:, -1], masks["unmixed"], truth)
    )
    storage.write_json(workdir / RESULT, result)
    return result


def references_of(client: MixupFile) -> np.ndarray:
    """Returns the references of a client, `[R, S, H, W]` uint8."""
    assert client.images is not None
    return client.images


def _draw(
    config: ml_collections.ConfigDict, client: MixupFile, patients: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws lambda and the reference of each mixing, `[patients, references]` each."""
    count = config.mixup.references
    key = seeds.key(config.seed, Use.POOL)
    shares = draw_shares(key, patients * count, training.law_of(config))
    rng = np.random.default_rng(config.seed)
    rows = [rng.permutation(len(references_of(client)))[:count] for _ in range(patients)]
    return np.asarray(shares).reshape(patients, count)[:, : len(rows[0])], np.array(rows)


def in_batches(segment: Segment, images: np.ndarray) -> np.ndarray:
    """Segments any number of slices, a few at a time."""
    parts = [segment(images[at : at + _SIZE]) for at in range(0, len(images), _SIZE)]
    return np.concatenate(parts)


def _segment_raw(
    config: ml_collections.ConfigDict, cohort: MixupCohort, params: Params
) -> np.ndarray:
    program = jax.jit(network_of(training.manifests(config, cohort)[0]).apply)

    def segment(slices: np.ndarray) -> np.ndarray:
        filled = np.pad(slices, ((0, _SIZE - len(slices)), (0, 0), (0, 0)))
        return np.asarray(program(params, to_input(filled)))[: len(slices)].argmax(-1)

    return np.stack([in_batches(segment, slices) for slices in cohort.test.images])


def _cases(
    test: np.ndarray, sent: np.ndarray, unmixed: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Takes the patients that were segmented worst, each by the slice that shows most of them."""
    wrong = (unmixed != truth).reshape(len(test), -1).sum(1)
    rows = np.argsort(-wrong)[:_WORST]
    at = (truth[rows] > 0).sum((2, 3)).argmax(1)
    grey = 255 // max(1, int(truth.max()))
    return {
        "target": test[rows, at],
        "mixture": np.rint(255 * sent[rows, at]).astype(np.uint8),
        "unmixed": (grey * unmixed[rows, at]).astype(np.uint8),
        "truth": (grey * truth[rows, at]).astype(np.uint8),
    }


def _figures(predicted: np.ndarray, truth: np.ndarray, classes: int) -> Metadata:
    """Measures volumes, `[P, S, H, W]` each; the background is left out."""
    # A volume is one image to the overlap, which counts pixels wherever they stand.
    flat = (predicted.reshape(len(predicted), -1, 1), truth.reshape(len(truth), -1, 1))
    dice = overlap.dice(*flat, classes)[:, 1:]
    far = boundaries.compare(predicted, truth, classes).hd95[:, 1:]
    return {
        "dice": float(dice.mean()),
        "dice_std": float(dice.mean(1).std()),
        "dice_by_class": dice.mean(0).tolist(),
        "hd95": float(far.mean()),
    }


def _separator(
    config: ml_collections.ConfigDict, cohort: MixupCohort, workdir: Workdir, log: Log
) -> Segment | None:
    """Trains the attack by a network; None where the settings leave it out."""
    if not config.mixup.attack_steps:
        return None
    params = comparing.train_separator(config, cohort, workdir, log)
    program = jax.jit(comparing.separator_of(config, cohort).apply)

    def separate(mixtures: np.ndarray) -> np.ndarray:
        filled = np.pad(mixtures, ((0, _SIZE - len(mixtures)), *[(0, 0)] * 3))
        return np.asarray(program(params, filled))[: len(mixtures)]

    return separate


def _attacks(
    sent: np.ndarray, test: np.ndarray, pool: np.ndarray, separate: Segment | None
) -> Metadata:
    """Looks each patient up in a gallery of raw volumes, by the mixture and by what is left of it.

    Args:
      sent: mixtures of all mixings, `[Q, P, S, H, W]`.
      test: the raw volumes, `[P, S, H, W]` uint8.
      pool: references, `[R, S, H, W]` uint8.
      separate: gives slices back from mixtures, `[N, H, W, 1]` each; None leaves that out.
    """
    gallery, known = (volumes / np.float32(255) for volumes in (test, pool))
    mean = unmixing.average_queries([*sent])
    rebuilt = {
        "likeness": mean,
        "known references": unmixing.subtract_known(sent[0], known).images,
    }
    if separate is not None:
        parts = [in_batches(separate, volume[..., None])[..., 0] for volume in mean]
        rebuilt["a trained network"] = np.stack(parts)
    attacks = {name: unmixing.retrieval(images, gallery) for name, images in rebuilt.items()}
    return {
        name: {
            "precision_at_1": result.precision_at_1._asdict(),
            "mean_average_precision": result.mean_average_precision,
            "over_chance": result.over_chance,
            "likeness": unmixing.mean_likeness(rebuilt[name], gallery),
        }
        for name, result in attacks.items()
    }


def as_text(result: Metadata) -> str:
    """Writes an evaluation for people."""
    lines = [f"{'':16} {'Dice':>6} {'HD95':>7}"]
    for name, figures in result["contenders"].items():
        lines.append(f"{name:16} {figures['dice']:6.3f} {figures['hd95']:7.2f}")
    count = result["references"]
    lines.append(
        f"{result['patients']} test patients, {count} mixture{'s' * (count > 1)} of each; what the "
        f"server can average shows them at {result['exposure']:.2f} times the deviation of what "
        f"hides them."
    )
    for name, attack in result["reidentified"].items():
        share = attack["precision_at_1"]
        lines.append(
            f"Found in a gallery of raw images, by {name}: {share['value']:.1%} of the patients "
            f"({share['low']:.1%} to {share['high']:.1%}), {attack['over_chance']:.1f} times "
            f"chance."
        )
    return "\n".join(lines)
