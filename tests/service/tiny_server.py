"""Serves a network of one convolution, whose weights a number in the model's file draws.

python -m tests.service.tiny_server FOLDER [NAME=VALUE ...]

The values are fields of `Limits`, and port, together (0 or 1) and sleep, seconds a batch takes.
"""

import hashlib
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.errors import UserError
from gxdistill.runtime.console import log
from gxdistill.service import server
from gxdistill.service.model import Model
from gxdistill.service.protocol import Limits

SHAPE, CLASSES = (16, 12, 1), ("background", "left", "right")


def kernel_of(seed):
    return np.random.default_rng(seed).normal(size=(3, 3, 1, 3)).astype(np.float32)


def apply(kernel, images):
    logits = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.softmax(logits)


def slow(seconds):
    def wait(x):
        time.sleep(seconds)
        return x

    def mapped(kernel, images):
        shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
        return apply(kernel, jax.pure_callback(wait, shape, images))

    return mapped


def digest_of(seed):
    return hashlib.sha256(str(seed).encode()).hexdigest()


def load_with(function):
    def load(path):
        text = path.read_text()
        if not text.isdigit():
            raise UserError(f"{path} holds no number.")
        return Model(digest_of(int(text)), function, kernel_of(int(text)), SHAPE, CLASSES)

    return load


def main():
    folder, *words = sys.argv[1:]
    folder = Path(folder)
    values = {name: float(value) for name, value in (word.split("=") for word in words)}
    port, together = int(values.pop("port", 0)), bool(values.pop("together", 1))
    seconds = values.pop("sleep", 0)
    whole = {field: type(getattr(Limits(), field))(value) for field, value in values.items()}
    settings = server.Settings(
        model=folder / "model",
        certificate=folder / "server.pem",
        key=folder / "server.key",
        tokens=folder / "tokens.json",
        journal=folder / "journal.db",
        port=port,
        limits=Limits(**whole),
        sizes=(1, 4, 16),
        together=together,
    )
    server.serve(settings, load_with(slow(seconds) if seconds else apply), log)


if __name__ == "__main__":
    main()
