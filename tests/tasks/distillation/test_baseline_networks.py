import jax
import numpy as np

from gxdistill.distill import baselines, init, replay
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Distilled
from gxdistill.tasks.distillation import baseline_networks, real_training
from tests import small_jobs


def test_as_many_real_patches_differ_as_the_set_has_images(tmp_path, monkeypatch):
    """And rates go on from the first as the set's start does."""
    monkeypatch.setattr(baseline_networks, "_POOL_PER_CLASS", 4)
    tried, with_best_rate = [], baselines.with_best_rate

    def spied(*args, **options):
        tried.append(with_best_rate(*args, **options))
        return tried[-1]

    monkeypatch.setattr(baselines, "with_best_rate", spied)
    changes = {"distill__start_schedule": "cosine", "evaluate__baseline_networks": 1}
    job = small_jobs.make(tmp_path, distill__init="random", distill__epochs=1, **changes)
    shape, classes = job.problem.shape, job.problem.classes
    like = Distilled(
        np.zeros((10, 6, *shape), np.float32),
        np.zeros((10, 6, classes), np.float32),
        np.zeros(10, np.float32),
    )
    teachers = replay.stacked([job.problem.network.init(jax.random.key(0))])
    trained = dict(baseline_networks.trained(job, like, teachers))
    chosen = dict(zip(trained, tried, strict=True))
    assert set(chosen) == {"random_real", "random_real_soft", "class_means", "kmeans_centres"}
    for name in ("random_real", "random_real_soft"):
        images = np.asarray(chosen[name].images).reshape(60, -1)
        assert len(np.unique(images, axis=0)) == 60, name
    for data in chosen.values():
        first = float(np.exp(data.log_lr[0]))
        np.testing.assert_array_equal(data.log_lr, init.log_rates(10, first, "cosine"))
    # The weights are those that the chosen data train a fresh network to.
    (key,) = jax.random.split(job.key(Use.BASELINE), 1)
    start = real_training.initial_weights(job, key)
    expected = replay.replay(job.problem.network, start, chosen["random_real"], rule="raw")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-5),
        trained["random_real"],
        expected,
    )
