"""Resumable training state: folders `step_00000123`, each whole or not there."""

import re
from pathlib import Path

from absl import logging

from gxdistill import _check, storage
from gxdistill.errors import UserError
from gxdistill.pytrees import Metadata, Params

_STEP = re.compile(r"step_(\d{8,})")
_RECORD = "checkpoint.json"
_MAX_BYTES = 1 << 40  # Our own state, whatever its size; packages of others are bounded tighter.


def _steps(folder: Path) -> dict[int, Path]:
    """Returns the checkpoints by step, newest first."""
    matches = [(_STEP.fullmatch(entry.name), entry) for entry in folder.iterdir()]
    steps = {int(match[1]): entry for match, entry in matches if match}
    return dict(sorted(steps.items(), reverse=True))


def save(folder: Path, step: int, state: Params, *, metadata: Metadata, keep: int = 2) -> None:
    """Writes a checkpoint at one stroke, then deletes those that are no longer needed.

    Args:
      folder: of all checkpoints of a run.
      step: number of the step that `state` is to go on with.
      state: any pytree of arrays, typed PRNG keys and Python numbers.
      metadata: what JSON can hold, to know the run by.
      keep: how many checkpoints stay, this one included. Later ones go too: `restore` passed them
        over as damaged, and the run repeats them.

    Raises:
      UserError: the disk is full or the place not writable; older checkpoints are then untouched.
      ValueError: `keep` or `step` is out of range.
    """
    _check.positive(keep=keep)
    if step < 0:
        raise ValueError(f"`step` is {step}; it must be at least 0.")
    with storage.fresh_folder(folder / f"step_{step:08d}") as fresh:
        arrays = storage.save_arrays(fresh / "arrays", state)
        record = {"metadata": dict(metadata), "arrays": arrays}
        (fresh / _RECORD).write_text(storage.json_text(storage.seal(record)), "utf-8")
    steps = _steps(folder)
    kept = [number for number in steps if number <= step][:keep]
    for number, path in steps.items():
        if number not in kept:
            storage.remove_folder(path)


def restore(folder: Path, like: Params) -> tuple[int, Params, Metadata] | None:
    """Reads the newest checkpoint that is whole; a damaged one is passed over with a warning.

    Args:
      folder: of all checkpoints of a run; need not exist.
      like: a state of the same structure, shapes and dtypes; it also says where the values go.

    Returns:
      Step, state and metadata, each bit as it was saved; None where there is no checkpoint.

    Raises:
      UserError: the state has another structure, shape or dtype than `like`.
    """
    if not folder.is_dir():
        return None
    storage.tidy(folder)
    for step, path in _steps(folder).items():
        try:
            record = storage.read_json(path / _RECORD)
            storage.check_seal(record, path / _RECORD)
            arrays = storage.load_arrays(path / "arrays", record["arrays"], max_bytes=_MAX_BYTES)
        except UserError as error:
            logging.warning("Passing over the checkpoint of step %d: %s", step, error)
            continue
        way_out = f"{path} is of a run with other settings: choose a fresh working folder."
        return step, storage.restore_like(arrays, like, way_out=way_out), record["metadata"]
    return None
