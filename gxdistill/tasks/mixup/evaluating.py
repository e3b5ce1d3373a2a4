"""How well test patients are segmented through mixtures, beside raw images and mixtures alone."""

import ml_collections
import numpy as np

from gxdistill import package, storage
from gxdistill.evaluation import boundaries, overlap
from gxdistill.jobs.workdir import Workdir
from gxdistill.mixup.mixing import draw_shares, exposure
from gxdistill.mixup.unmixing import average
from gxdistill.package import seeds
from gxdistill.package.mixup_file import MixupFile
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Metadata
from gxdistill.runtime.console import Log, Progress
from gxdistill.service.model import CompiledModel
from gxdistill.tasks.mixup import attacking, contenders, judging, sides, training
from gxdistill.tasks.mixup.cohort import MixupCohort
from gxdistill.tasks.mixup.comparing import Trainer
from gxdistill.tasks.mixup.contenders import AT_ONCE, Contender, in_batches

RESULT, AUDIT, CASES = "mixup.json", "audit.json", "mixup_cases.npz"
_WORST = 4  # Patients with pictures.


def evaluate(config: ml_collections.ConfigDict, workdir: Workdir, log: Log) -> Metadata:
    """Measures test patients, each a volume, and writes `mixup.json` and `audit.json`.

    Returns:
      Of each contender Dice and HD95 by patient and class, how much what is sent is like the raw
      images, and how many patients are found by that; and `audit`, what attacks make of mixtures.

    Raises:
      UserError: the files of both sides are missing or damaged, or a training diverged.
    """
    trainer = Trainer(config, MixupCohort(config), workdir, log)
    client = sides.load_client(workdir / training.CLIENT_FILE)
    test, truth = trainer.cohort.test.images, trainer.cohort.test.labels
    shares, rows = _draw(config, client, len(test))
    sent, unmixed, mixed = _through_mixtures(trainer, client, shares, rows)
    ways = {"unmixed": Contender(unmixed, sent[0]), "mixture alone": Contender(mixed, sent[0])}
    if config.mixup.beside != "none":
        ways["raw images"] = contenders.raw_images(trainer)
    if config.mixup.beside == "all":
        alike = contenders.similarity_of_mixtures(trainer)
        ways["noise"] = contenders.noise(trainer, alike)
        ways["deformation"] = contenders.deformation(trainer, alike)
    rebuilt = attacking.rebuild(trainer, sent, references_of(client))
    attacks = attacking.figures(trainer, rebuilt)
    classes = len(trainer.cohort.volumes.class_names)
    result: Metadata = {
        "contenders": {
            name: {**_figures(c.masks, truth, classes), **attacking.seen(trainer, c.sent)}
            for name, c in ways.items()
        },
        "law": [float(bound) for bound in training.law_of(config)],
        "patients": len(test),
        "references": int(config.mixup.references),
    }
    singled_out = {
        "attacks": attacks,
        "ms_ssim_of_mean_patient": attacking.guess(trainer),
        "exposure": float(np.mean([exposure(drawn.tolist()) for drawn in shares])),
    }
    digest = package.digest(workdir / training.CLIENT_FILE)
    audit = judging.audit(client.manifest, digest, singled_out, patients=len(test))
    best = max(attacks, key=lambda name: attacks[name]["ms_ssim"])
    used = references_of(client)[rows[:, 0]]
    storage.write_arrays(
        workdir / CASES, **_cases(test, used, sent[0], rebuilt[best], unmixed, truth)
    )
    storage.write_json(workdir / RESULT, result)
    storage.write_json(workdir / AUDIT, audit)
    return {**result, "audit": audit}


def _through_mixtures(
    trainer: Trainer, client: MixupFile, shares: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Has test patients segmented as a client does.

    Args:
      trainer: of the run.
      client: file of the client; the server's lies beside.
      shares: lambda of each mixing, `[P, Q]`.
      rows: its reference, `[P, Q]`.

    Returns:
      The mixtures, `[Q, P, S, H, W]`; masks un-mixed, and those of the last mixtures taken as they
      are, `[P, S, H, W]`.
    """
    server = sides.load_server(trainer.workdir / training.SERVER_FILE)
    model, test = CompiledModel(server, (AT_ONCE,)), trainer.cohort.test.images
    unmixer, clock = sides.Unmixer(client), Progress(trainer.log, "test patients")
    sent, unmixed, mixed = [], [], []
    for patient, slices in enumerate(test):
        recovered, mixtures = [], []
        for share, row in zip(shares[patient], rows[patient], strict=True):
            images, labels = sides.reference_slices(client, int(row), len(slices))
            mixture = sides.mixtures(slices, images, float(share))
            mixtures.append(mixture[..., 0])
            answer = in_batches(lambda x: model.run(x)[0], mixture)
            recovered.append(unmixer(answer, images, labels, float(share)))
        unmixed.append(np.asarray(average(np.stack(recovered))).argmax(-1))  # type: ignore[arg-type]
        mixed.append(answer.argmax(-1))
        sent.append(np.stack(mixtures))
        clock(patient + 1, len(test))
    return np.stack(sent, axis=1), np.stack(unmixed), np.stack(mixed)


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


def _cases(
    test: np.ndarray,
    references: np.ndarray,
    sent: np.ndarray,
    rebuilt: np.ndarray,
    unmixed: np.ndarray,
    truth: np.ndarray,
) -> dict[str, np.ndarray]:
    """Takes the patients that were segmented worst, each by the slice that shows most of them."""
    wrong = (unmixed != truth).reshape(len(test), -1).sum(1)
    rows = np.argsort(-wrong)[:_WORST]
    at = (truth[rows] > 0).sum((2, 3)).argmax(1)
    grey = 255 // max(1, int(truth.max()))
    mixture, best = (np.rint(255 * volumes[rows, at]) for volumes in (sent, rebuilt))
    return {
        "target": test[rows, at],
        "reference": references[rows, at],
        "mixture": mixture.astype(np.uint8),
        "reconstruction": np.clip(best, 0, 255).astype(np.uint8),
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


def as_text(result: Metadata) -> str:
    """Writes an evaluation for people."""
    lines = [f"{'':16} {'Dice':>6} {'HD95':>7} {'SSIM':>6} {'found':>6}"]
    for name, figures in result["contenders"].items():
        lines.append(
            f"{name:16} {figures['dice']:6.3f} {figures['hd95']:7.2f} {figures['ssim']:6.3f} "
            f"{figures['precision_at_1']['value']:6.1%}"
        )
    count, audit = result["references"], result["audit"]
    outcome = audit["tests"]["singling_out"]
    lines.append(
        f"{result['patients']} test patients, {count} mixture{'s' * (count > 1)} of each; what the "
        f"server can average shows them at {outcome['exposure']:.2f} times the deviation of what "
        f"hides them. Found are those whose raw image, of all, is most like what is sent."
    )
    for name, attack in outcome["attacks"].items():
        share = attack["precision_at_1"]
        lines.append(
            f"Found in a gallery of raw images, by {name}: {share['value']:.1%} of the patients "
            f"({share['low']:.1%} to {share['high']:.1%}), {attack['over_chance']:.1f} times "
            f"chance; MS-SSIM of what it rebuilds {attack['ms_ssim']:.3f}."
        )
    lines.append(audit["verdicts"]["singling_out"]["words"])
    return "\n".join(lines)
