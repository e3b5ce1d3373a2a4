"""Which patients were mixed with which references: kept by the client, and told to nobody.

A server that sees one patient mixed with many references averages them, and the patient comes out.
So a patient is mixed once, and the same slices are sent again only as the same mixtures, which tell
nothing new. Patients and slices are kept as keyed hashes (RFC 2104): without the file's own key,
nobody can try names until one fits; who has the file can.
"""

import dataclasses
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gxdistill import storage
from gxdistill.errors import UserError
from gxdistill.mixup.mixing import exposure


class Mixing(NamedTuple):
    """One mixing of all slices of a patient.

    Attributes:
      reference: SHA-256 of the reference volume.
      share: lambda.
    """

    reference: str
    share: float


@dataclasses.dataclass(frozen=True)
class Entry:
    """A patient who was mixed.

    Attributes:
      names: keyed hashes of all that names the patient.
      slices: keyed hashes of the slices, in their order.
      mixings: that were sent.
    """

    names: tuple[str, ...]
    slices: tuple[str, ...]
    mixings: tuple[Mixing, ...]


@dataclasses.dataclass(frozen=True)
class Mixings:
    """All patients who were mixed.

    Attributes:
      key: secret of the hashes, 64 hexadecimal digits.
      entries: in the order in which they were mixed.
    """

    key: str
    entries: tuple[Entry, ...] = ()


class Plan(NamedTuple):
    """How a patient is mixed.

    Attributes:
      record: all mixings with these, to be written before anything is sent.
      mixings: of this patient, now.
      exposure: how clearly all that was sent of the patient, then and now, shows it; see
        `mixing.exposure`.
    """

    record: Mixings
    mixings: tuple[Mixing, ...]
    exposure: float


def read(path: Path) -> Mixings:
    """Reads the file of mixings; where there is none, begins one with a key of its own.

    Raises:
      UserError: it holds something else.
    """
    if not path.exists():
        return Mixings(secrets.token_hex(32))
    table = storage.read_json(path)
    try:
        entries = tuple(
            Entry(
                tuple(map(str, entry["names"])),
                tuple(map(str, entry["slices"])),
                tuple(Mixing(str(digest), float(share)) for digest, share in entry["mixings"]),
            )
            for entry in table["entries"]
        )
        return Mixings(str(table["key"]), entries)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} holds no record of mixings. Without it, patients may be mixed twice: restore "
            f"it from a copy, or name another file only if no patient is mixed again."
        ) from error


def write(path: Path, mixings: Mixings) -> None:
    """Writes the file of mixings at one stroke.

    Raises:
      UserError: it cannot be written; then nothing may be sent.
    """
    storage.write_json(path, dataclasses.asdict(mixings))
    path.chmod(0o600)


def _hash(key: str, kind: str, content: bytes) -> str:
    return hmac.new(bytes.fromhex(key), kind.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def plan(
    mixings: Mixings,
    names: Sequence[str],
    slices: np.ndarray,
    fresh: Sequence[Mixing],
    *,
    again: bool = False,
) -> Plan:
    """Decides how a patient is mixed.

    Args:
      mixings: of before.
      names: all that names the patient.
      slices: `[S, H, W]` uint8, as they are mixed.
      fresh: the mixings for a patient who was not mixed before.
      again: mixes a patient once more all the same.

    Returns:
      See `Plan`; of slices that were sent before, the mixings are those of then.

    Raises:
      UserError: the patient was mixed before, with other slices or fewer references, and `again`
        does not say that it may be.
    """
    named = tuple(sorted(_hash(mixings.key, "name", name.encode()) for name in {*names}))
    shape = repr(slices.shape[1:]).encode()
    hashed = tuple(_hash(mixings.key, "slice", shape + s.tobytes()) for s in slices)
    before = [
        entry
        for entry in mixings.entries
        if {*named} & {*entry.names} or {*hashed} & {*entry.slices}
    ]
    sent = [mixing.share for entry in before for mixing in entry.mixings]
    for entry in before:
        if entry.slices == hashed and len(entry.mixings) >= len(fresh) and not again:
            return Plan(mixings, entry.mixings[: len(fresh)], exposure(sent))
    then = exposure([*sent, *(mixing.share for mixing in fresh)])
    if before and not again:
        raise UserError(
            f"The patient {storage.shown(names[0])} was mixed before, with other slices or "
            f"references. Who sees all mixtures sees the patient {then / exposure(sent):.2g} times "
            f"as clearly. Leave the patient out, or allow it by --again."
        )
    entry = Entry(named, hashed, tuple(fresh))
    record = dataclasses.replace(mixings, entries=(*mixings.entries, entry))
    return Plan(record, entry.mixings, then)
