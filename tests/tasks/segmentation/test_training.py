import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gxdistill.errors import UserError
from gxdistill.jobs import loop
from gxdistill.package.seeds import Use
from gxdistill.package.segmenter import load_segmenter
from gxdistill.segmentation import losses
from gxdistill.storage import checkpoint
from gxdistill.tasks.segmentation import training
from gxdistill.tasks.segmentation.labelled import Labelled
from gxdistill.training.steps import draws_key
from tests import segmenters
from tests.packages import bits

STEPS = 6


def _train(folder, **changes):
    job = segmenters.make_job(folder, log=lambda _: None, **changes)
    return load_segmenter(training.train(job))


def test_each_step_is_one_of_adam_on_augmented_crops(run):
    """A plain loop, without checkpoints, dispatch or devices."""
    job = segmenters.make_job("unused", log=lambda _: None)
    data, settings = Labelled(job), job.config.segment
    source = data.batches(settings.batch)
    feed = next(source.stream(None, 0))
    adam = optax.adamw(optax.cosine_decay_schedule(settings.lr, STEPS), weight_decay=settings.decay)
    params = data.network.init(job.key(Use.FRESH))
    state, key = adam.init(params), draws_key(job.key(Use.LOOP))

    @jax.jit
    def step(params, state, batch):
        def loss(params):
            logits = data.network.apply(params, batch.images)
            return losses.segmentation_loss(logits, batch.targets, over="batch")

        updates, state = adam.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for i in range(STEPS):
        batch = jax.jit(source.draw)(feed, jax.random.fold_in(key, i))
        assert batch.images.shape == (2, 16, 16, 1)
        assert batch.targets.shape == (2, 16, 16)
        params, state = step(params, state, batch)
    trained = load_segmenter(run / "segmenter.gxs").params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), trained, params)
    first = data.network.init(job.key(Use.FRESH))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), trained, first)
    assert max(jax.tree.leaves(moved)) > 0.02


@pytest.mark.parametrize(
    ("kept", "feed"),
    [(2, "resident"), pytest.param(4, "streaming", marks=pytest.mark.slow)],
)
def test_a_run_that_was_cut_off_ends_bit_for_bit_as_one_that_was_not(
    tmp_path, monkeypatch, kept, feed
):
    changes = {"data__feed": feed}
    if feed == "streaming":
        pytest.importorskip("grain")
    whole = _train(tmp_path / "whole", **changes)

    class KilledError(Exception):
        pass

    save_whole = checkpoint.save

    def save(folder, step, state, **options):
        save_whole(folder, step, state, **options)
        if step == kept:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(loop.checkpoint, "save", save)
        with pytest.raises(KilledError):
            _train(tmp_path / "cut", **changes)
    assert not (tmp_path / "cut/segmenter.gxs").exists()
    again = _train(tmp_path / "cut", **changes)
    assert bits(again.params) == bits(whole.params)
    assert (tmp_path / "cut/history.jsonl").read_text() == (
        tmp_path / "whole/history.jsonl"
    ).read_text()


def test_a_folder_of_other_settings_is_not_gone_on_with(run):
    with pytest.raises(UserError, match=r"holds a run with other settings: segment.lr \(was"):
        training.train(segmenters.make_job(run, log=lambda _: None, segment__lr=0.5))


def test_the_package_says_how_images_are_seen(run):
    manifest = load_segmenter(run / "segmenter.gxs").manifest
    assert (manifest.patch.size, manifest.patch.stride) == (16, 12)
    assert (manifest.patch.image_height, manifest.patch.channels) == (64, 1)
    assert manifest.class_names == ("background", "stomach")
    assert manifest.training["steps"] == STEPS
    assert manifest.cohort.splits.train.images == 4


def test_masks_of_more_classes_than_are_named_are_refused(tmp_path):
    job = segmenters.make_job(tmp_path, log=lambda _: None)
    data = Labelled(job)
    object.__setattr__(job.cohorts.train, "masks", job.cohorts.train.masks * 2)
    with pytest.raises(UserError, match=r"A mask holds class 2, and data\.mask_classes names 2"):
        data.train  # noqa: B018  # It is read here.


def test_the_loss_is_over_all_supervised_levels():
    job = segmenters.make_job(
        "unused", log=lambda _: None, network__options={"width": 2, "depth": 2, "levels": 2}
    )
    data = Labelled(job)
    source = data.batches(2)
    batch = jax.jit(source.draw)(next(source.stream(None, 0)), jax.random.key(0))
    params = data.network.init(jax.random.key(1))
    fine, coarse = jax.jit(data.network.apply_levels)(params, batch.images)
    first = losses.segmentation_loss(fine, batch.targets)
    second = losses.segmentation_loss(coarse, batch.targets[:, ::2, ::2])
    loss = jax.jit(training.make_loss(data.network, "image"))(params, batch)
    np.testing.assert_allclose(loss, (first + jnp.float32(0.5) * second) / 1.5, rtol=1e-5)
