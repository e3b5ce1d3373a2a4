"""The client's command: patients' slices in, masks and a page out, and only mixtures sent."""

import hashlib
import io
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.mixup.unmixing import average
from gxdistill.package.mixup_file import MixupFile
from gxdistill.runtime.console import Log, Progress
from gxdistill.service.model import CompiledModel, Model
from gxdistill.service.protocol import Served
from gxdistill.tasks.mixup import mixings, page
from gxdistill.tasks.mixup.mixings import Mixing, Plan
from gxdistill.tasks.mixup.patients import Patient, Segmented, find_patients
from gxdistill.tasks.mixup.sides import Unmixer, mixtures, reference_slices

_MAX_SLICES = 4096
PAGE = "segmentation.html"
_AT_ONCE = 16  # Slices of a call of a network at hand.


class Server(Protocol):
    """What segments mixtures: a `service.client.Client`, or a network at hand."""

    url: str

    def served(self) -> Served:
        """Says what it takes."""

    def segment(self, images: np.ndarray, classes: int) -> np.ndarray:
        """Maps mixtures `[N, H, W, C]` to the probabilities of their pixels' K labels."""


class LocalServer:
    """The server's network in this process: nothing is sent.

    Attributes:
      url: its name in messages.
    """

    def __init__(self, model: Model, url: str):
        """Compiles the network.

        Args:
          model: of the server's file.
          url: its name in messages.
        """
        self.url = url
        self._model = CompiledModel(model, (_AT_ONCE,))

    def served(self) -> Served:
        """Says what it takes."""
        model = self._model.model
        return Served(model.digest, model.shape, model.classes, _AT_ONCE)

    def segment(self, images: np.ndarray, _: int) -> np.ndarray:
        """Maps mixtures to the probabilities of their pixels' labels."""
        return self._model.run(images)[0]


def segment(
    file: MixupFile,
    paths: Sequence[Path],
    target: Path,
    client: Server,
    record: Path | None,
    log: Log,
    *,
    references: int = 1,
    again: bool = False,
) -> Path:
    """Has patients segmented by a server that sees their mixtures alone.

    The record of mixings is written before anything is sent.

    Args:
      file: of the client.
      paths: see `find_patients`.
      target: folder to write: a folder of masks a patient, and a page.
      client: of the server that `file` names.
      record: file of mixings; None keeps none, where nothing is sent.
      log: told progress and privacy's price.
      references: mixtures of each patient, with as many references.
      again: mixes patients once more who were mixed before.

    Returns:
      The path of the page.

    Raises:
      UserError: see `find_patients`, `mixings.plan` and `service.client`; or there are fewer
        references.
    """
    manifest = file.manifest
    digests = _digests(file)
    if not 1 <= references <= len(digests):
        raise UserError(
            f"{references} references were asked for; the client's file has {len(digests)}."
        )
    patients = find_patients(paths, manifest.shape)
    known = mixings.Mixings(secrets.token_hex(32)) if record is None else mixings.read(record)
    planned = []
    for patient in patients:
        fresh = _draw(list(digests), manifest.law, references)
        plan = mixings.plan(known, patient.names, patient.slices, fresh, again=again)
        known = plan.record
        if missing := [mixing for mixing in plan.mixings if mixing.reference not in digests]:
            raise UserError(
                f"{storage.shown(patient.folder)} was mixed before with {len(missing)} references "
                f"that this client's file has not. Use the file of then, or allow a second mixing "
                f"by --again."
            )
        planned.append((patient, plan))
    served = client.served()
    if served.shape != manifest.shape or served.classes != manifest.class_names:
        raise UserError(f"{client.url} segments other slices or classes than the client's file.")
    if record is not None:
        mixings.write(record, known)
    results, clock = [], Progress(log, "patients")
    unmixer = Unmixer(file)
    for done, (patient, plan) in enumerate(planned, 1):
        results.append(_segmented(file, patient, plan, digests, client, served.images, unmixer))
        clock(done, len(planned), f", {results[-1].cost:.2f} times what hides them is seen")
    return _write(target, file, results)


def _digests(file: MixupFile) -> dict[str, int]:
    assert file.images is not None
    return {hashlib.sha256(volume.tobytes()).hexdigest(): i for i, volume in enumerate(file.images)}


def _draw(digests: list[str], law: tuple[float, float], count: int) -> tuple[Mixing, ...]:
    # Of the system's randomness: a server that could guess the seed could undo the mixing.
    random = secrets.SystemRandom()
    return tuple(Mixing(d, random.uniform(*law)) for d in random.sample(digests, count))


def _segmented(
    file: MixupFile,
    patient: Patient,
    plan: Plan,
    digests: dict[str, int],
    client: Server,
    at_once: int,
    unmixer: Unmixer,
) -> Segmented:
    recovered = []
    for mixing in plan.mixings:
        row = digests[mixing.reference]
        reference, labels = reference_slices(file, row, len(patient.slices))
        mixture = mixtures(patient.slices, reference, mixing.share)
        answers = [
            client.segment(mixture[at : at + at_once], len(file.manifest.class_names))
            for at in range(0, len(mixture), at_once)
        ]
        recovered.append(unmixer(np.concatenate(answers), reference, labels, mixing.share))
    masks = np.asarray(average(np.stack(recovered))).argmax(-1).astype(np.uint8)  # type: ignore[arg-type]
    return Segmented(patient, mixture[..., 0], masks, plan.exposure)


def _write(target: Path, file: MixupFile, results: Sequence[Segmented]) -> Path:
    with storage.fresh_folder(target) as folder:
        for result in results:
            inner = storage.child(folder, result.patient.folder)
            inner.mkdir()
            for number, mask in enumerate(result.masks):
                buffer = io.BytesIO()
                Image.fromarray(mask).save(buffer, "PNG")
                inner.joinpath(f"{number:04d}.png").write_bytes(buffer.getvalue())
            names = {f"{i:04d}.png": name for i, name in enumerate(result.patient.files)}
            inner.joinpath("slices.json").write_text(json.dumps(names, indent=2))
        folder.joinpath(PAGE).write_text(page.make(file.manifest, results), "utf-8")
    return target / PAGE
