import jax
import numpy as np
import pytest

from gxdistill.package.seeds import Use
from gxdistill.storage import checkpoint
from gxdistill.tasks.distillation import real_training
from gxdistill.training.steps import draws_key
from gxdistill.training.supervised import classification_loss, supervised
from tests import small_jobs

_CEILING = {"evaluate__ceiling__networks": 2, "evaluate__ceiling__steps": 6}


def test_the_ceiling_is_ordinary_training_step_by_step(tmp_path):
    # Before a normalisation a bias has no gradient but rounding, which Adam makes as large as any.
    options = {"width": 4, "depth": 1, "norm": "none"}
    job = small_jobs.make(tmp_path, network__options=options, **_CEILING)
    trained = real_training.ceiling(job)
    source, network = job.problem.batches(16), job.problem.network
    loop = supervised(classification_loss(network), count=6, lr=job.config.evaluate.ceiling.lr)
    update, draw = jax.jit(loop.update), jax.jit(source.draw)
    for i, key in enumerate(jax.random.split(job.key(Use.CEILING), 2)):
        state = loop.init(network.init(job.key(Use.KNOWN)), key)
        feeds = source.stream(draws_key(key), 0)
        for step in range(6):
            state, _ = update(state, draw(next(feeds), jax.random.fold_in(draws_key(key), step)))
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6),
            trained,
            state.learned,
        )


def test_an_interrupted_ceiling_goes_on_and_a_finished_one_is_not_trained_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(real_training, "_CHECKPOINT_EVERY", 2)
    whole = real_training.ceiling(small_jobs.make(tmp_path / "whole", **_CEILING))
    said, save = [], checkpoint.save

    def save_and_interrupt(folder, step, *args, **options):
        save(folder, step, *args, **options)
        if (folder.name, step) == ("network1", 4):
            raise KeyboardInterrupt

    job = small_jobs.make(tmp_path / "parts", said.append, **_CEILING)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            real_training.ceiling(job)
    for expected in ("network 2 of 2 on all real patches: resuming at step 4", "done already"):
        said.clear()
        parts = real_training.ceiling(job)
        jax.tree.map(np.testing.assert_array_equal, whole, parts)
        assert "network 1 of 2 on all real patches: done already" in said[0]
        assert expected in said[1]


def test_another_setting_trains_the_ceiling_anew(tmp_path):
    first = real_training.ceiling(small_jobs.make(tmp_path, **_CEILING))
    said = []
    changed = {**_CEILING, "evaluate__ceiling__lr": 0.1}
    again = real_training.ceiling(small_jobs.make(tmp_path, said.append, **changed))
    assert not any("already" in line or "resuming" in line for line in said)
    gaps = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), first, again)
    assert max(jax.tree.leaves(gaps)) > 1e-3
