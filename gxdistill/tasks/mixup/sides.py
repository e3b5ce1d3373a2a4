"""What server and client compute: from images to mixtures, from answers to masks."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import models
from gxdistill.data import volumes
from gxdistill.errors import UserError
from gxdistill.mixup.mixing import mix
from gxdistill.mixup.unmixing import Reference, unmix
from gxdistill.package import mixup_file, signing
from gxdistill.package.mixup_file import CLIENT, SERVER, MixupFile
from gxdistill.pytrees import Params
from gxdistill.service.model import Model
from gxdistill.tasks.mixup.cohort import to_input

_AT_ONCE = 16  # Slices that are un-mixed in one call.


def load_server(path: Path, key: Path | None = None) -> Model:
    """Reads what a server runs.

    Args:
      path: of `server.gxm`.
      key: public key of who must have signed it; None does not ask.

    Raises:
      UserError: it is no such file, damaged, or not signed with the key.
    """
    if key is not None:
        signing.check_signer(path, key)
    file = mixup_file.load(path, SERVER)
    manifest = file.manifest
    return Model(
        file.digest,
        probabilities_of(file.network.apply),
        file.params,
        manifest.shape,
        manifest.class_names,
    )


def load_client(path: Path) -> MixupFile:
    """Reads what a client needs, `client.gxm`.

    Raises:
      UserError: it is no such file, or damaged.
    """
    return mixup_file.load(path, CLIENT)


def with_references(file: MixupFile, folder: Path) -> MixupFile:
    """Gives a client references of its own, which the server does not know.

    Args:
      file: of the client.
      folder: volumes with labels, as `data.volumes.read` reads them.

    Raises:
      UserError: the volumes cannot be read, or are of another size than the client's.
    """
    manifest = file.manifest
    private = volumes.read(folder, manifest.class_names)
    if private.images.shape[2:] != manifest.shape[:2]:
        raise UserError(
            f"{folder} has slices of {private.images.shape[2:]} pixels, and the client mixes "
            f"those of {manifest.shape[:2]}. Pad or cut them first."
        )
    return dataclasses.replace(file, images=private.images, labels=private.labels)


@functools.cache  # So that the same network is the same function.
def probabilities_of(
    apply: Callable[[Params, jax.Array], jax.Array],
) -> Callable[[Params, jax.Array], jax.Array]:
    """Makes of a network's logits the probabilities of its classes."""
    return lambda params, images: jax.nn.softmax(apply(params, images), axis=-1)


def reference_slices(file: MixupFile, row: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes from a reference volume as many slices as a patient has, evenly from end to end.

    Returns:
      Images and labels, each `[count, H, W]` uint8.
    """
    assert file.images is not None
    assert file.labels is not None
    rows = np.rint(np.linspace(0, file.images.shape[1] - 1, count)).astype(int)
    return file.images[row, rows], file.labels[row, rows]


def mixtures(slices: np.ndarray, reference: np.ndarray, share: float) -> np.ndarray:
    """Mixes slices, `[S, H, W]` uint8 each, into what is sent: `[S, H, W, 1]` float32."""
    shares = jnp.full(len(slices), share, jnp.float32)
    return np.asarray(mix(to_input(slices), to_input(reference), shares))


class Unmixer:
    """The client's network, compiled once for a fixed number of slices."""

    def __init__(self, file: MixupFile):
        """Compiles nothing yet.

        Args:
          file: of the client.
        """
        apply, params = file.network.apply, file.params

        def recovered(answer: jax.Array, reference: Reference) -> jax.Array:
            return jax.nn.softmax(unmix(apply, params, answer, reference), axis=-1)

        self._program = jax.jit(recovered, compiler_options=models.compiler_options())

    def __call__(
        self, answer: np.ndarray, images: np.ndarray, labels: np.ndarray, share: float
    ) -> np.ndarray:
        """Recovers probabilities of private slices.

        Args:
          answer: probabilities of the mixtures, `[S, H, W, K]`.
          images: of the reference, `[S, H, W]` uint8.
          labels: of the reference, `[S, H, W]`.
          share: lambda.

        Returns:
          `[S, H, W, K]` float32.
        """
        parts = []
        for at in range(0, len(answer), _AT_ONCE):
            whole = [array[at : at + _AT_ONCE] for array in (answer, images, labels)]
            count = len(whole[0])
            filled = [
                np.pad(part, ((0, _AT_ONCE - count), *[(0, 0)] * (part.ndim - 1))) for part in whole
            ]
            shares = jnp.full(_AT_ONCE, share, jnp.float32)
            reference = Reference(to_input(filled[1]), jnp.asarray(filled[2], jnp.int32), shares)
            parts.append(np.asarray(self._program(filled[0], reference))[:count])
        return np.concatenate(parts)
