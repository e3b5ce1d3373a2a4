"""A tiny segmenter, and jobs of segmentation that are small enough for tests."""

import jax
import numpy as np

from configs import segmentation
from gxdistill import models
from gxdistill.data.batches.resident import Normalisation
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.package import Init, NetworkChoice, PatchGeometry, segmenting
from gxdistill.package.segmenter import Segmenter, SegmenterManifest

OPTIONS = {"width": 2, "depth": 1}


def make_manifest(**changes):
    fields = {
        "name": "tiny",
        "purpose": "Tests.",
        "licence": "None.",
        "privacy": "None.",
        "cohort": None,
        "network": NetworkChoice("unet", OPTIONS),
        "init": Init("random", None),
        "patch": PatchGeometry(8, 6, True, 0.0, 0.0, 24, 16, 1, 1),
        "reading": None,
        "image_normalisation": "cohort",
        "normalisation": Normalisation((0.5,), (0.25,)),
        "class_names": ("background", "organ"),
        "decision": None,
        "likeness": None,
        "results": {},
        "proof": None,
        "ledger": None,
        "flips": False,
        "training": {"steps": 0},
    }
    return SegmenterManifest(**fields | changes)


def make(**changes):
    """A segmenter with drawn weights."""
    manifest = make_manifest(**changes)
    network = models.create(
        "unet", shape=manifest.patch.shape, classes=len(manifest.class_names), **OPTIONS
    )
    like = jax.eval_shape(network.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), like)
    return Segmenter(manifest, params)


def by_level(**changes):
    """A segmenter whose weights pass the grey level on: organ is what is lighter than the mean.

    Without norms: logit 1 is the input, by the finest level alone, logit 0 is nought.
    """
    options = {"width": 2, "depth": 1, "norm": "none"}
    network = NetworkChoice("unet", options)
    manifest = make_manifest(network=network, **changes)
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32),
        jax.eval_shape(segmenting.network_of(manifest).init, jax.random.key(0)),
    )
    # Two channels, one of the positive part and one of the negative, so that ReLU loses nothing.
    signs = np.array([1, -1], np.float32)
    params["down_0"]["Conv_0"]["kernel"][1, 1, 0] = signs
    params["down_0"]["Conv_1"]["kernel"][1, 1] = np.eye(2)
    params["joined_0"]["Conv_0"]["kernel"][1, 1, :2] = np.eye(2)
    params["joined_0"]["Conv_1"]["kernel"][1, 1] = np.eye(2)
    params["heads_0"]["kernel"][0, 0, :, 1] = signs
    return Segmenter(manifest, params)


def make_job(workdir, log=print, **changes):
    """The smoke job with changes, `segment__lr=0.1`."""
    config = segmentation.get_config("smoke")
    config.data.patients = 6
    config.segment.update(steps=6, steps_per_call=1, checkpoint_every=2, augment=("affine",))
    config.network.options = {"width": 2, "depth": 1}
    config.patch.update(size=16, stride=16)
    config.segment.update(batch=2, overlap=4, flips=False)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return Job(config, Workdir(workdir), log)
