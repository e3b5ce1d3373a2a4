import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import package
from gxdistill.distill import inner, replay
from gxdistill.distill.losses import inner_loss
from gxdistill.errors import UserError
from gxdistill.package.seeds import Use
from gxdistill.receive import networks
from gxdistill.tasks.distillation import compressing, distilling, method
from tests import small_jobs


def test_a_job_says_what_memory_its_gradient_takes(tmp_path):
    said = []
    job = small_jobs.make(tmp_path, distill__memory="nested")
    method.build(job.problem, job.config.distill, said.append)
    assert said[-1].startswith("memory of a gradient through 2 inner steps: store ")
    assert said[-1].endswith("MiB; taking nested")


def test_a_job_names_its_optimiser_with_all_constants(tmp_path):
    for name, constants in (
        ("sgd", {}),
        ("momentum", {"decay": 0.5}),
        ("adam", {"b1": 0.9, "b2": 0.999, "eps": 1e-8}),
    ):
        job = small_jobs.make(tmp_path, distill__inner=name, distill__momentum=0.5)
        assert method.inner_optimizer(job.config.distill) == {"name": name, **constants}


@pytest.mark.slow
def test_a_job_with_momentum_is_packaged_with_it_and_replays_as_it_was_learned(tmp_path):
    job = small_jobs.make(tmp_path, distill__inner="momentum", distill__momentum=0.5)
    path = distilling.distil(job)
    content = package.load(path)
    assert content.manifest.distillation.inner == {"name": "momentum", "decay": 0.5}
    loss, data, params = inner_loss(job.problem.network, "raw"), content.distilled, content.start
    trace = jax.tree.map(jnp.zeros_like, params)
    for t, log_lr in enumerate(data.log_lr):
        batch = t % len(data.images)
        grads = jax.grad(loss)(params, data.images[batch], data.labels[batch])
        trace = jax.tree.map(lambda m, g: 0.5 * m + g, trace, grads)
        lr = np.exp(log_lr)
        params = jax.tree.map(lambda p, m, lr=lr: p - lr * m, params, trace)
    trained = jax.tree.map(lambda leaf: leaf[0], networks.train_networks(path).params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), trained, params)


def test_a_shared_rate_is_packaged_as_a_rate_for_each_step(tmp_path):
    job = small_jobs.make(tmp_path, distill__rates="shared")
    problem, settings = job.problem, job.config.distill
    loop, state = method.build(problem, settings, job.log)
    batch = job.cohorts.sample("train", 12, job.key(method.Use.POOL))
    for _ in range(2):
        state, _ = loop.update(state, batch)
    rates = np.asarray(method.to_distilled(problem, settings, state.learned).log_lr)
    assert rates.shape == (2,)
    assert rates[0] == rates[1] != np.float32(np.log(job.config.distill.start_lr))


def test_a_package_is_replayed_for_more_epochs_than_were_learned_through(tmp_path):
    settings = {"distill__rates": "order_free", "distill__epochs": 2}
    job = small_jobs.make(tmp_path, distill__replay_epochs=5, **settings)
    content = package.load(distilling.distil(job))
    steps = job.config.distill.steps
    start = method.initial_distilled(job.problem, job.config.distill)
    assert start.log_lr.shape == (2 * steps,)
    assert content.manifest.distillation.epochs == 5
    assert content.distilled.log_lr.shape == (5 * steps,)
    assert len({*np.asarray(content.distilled.log_lr)}) == 1
    compressed = package.load(compressing.compress(job, 100, ("uint8",)))
    assert compressed.distilled.log_lr.shape == (5 * steps,)


def test_receivers_train_under_the_augmentations_that_the_sender_measured(tmp_path):
    job = small_jobs.make(
        tmp_path, distill__init="random", distill__replay_augmentations=("shift", "noise")
    )
    path = distilling.distil(job)
    content = package.load(path)
    assert content.manifest.distillation.augmentations == ("shift", "noise")
    received = networks.train_networks(path, count=2, seed=3).params
    key = jax.random.fold_in(jax.random.key(3), Use.FRESH)
    sent = distilling.replay_networks(job, content.distilled, 2, key)
    jax.tree.map(np.testing.assert_array_equal, received, sent)
    told = {"rule": content.manifest.distillation.label_rule, "inner": inner.create("sgd")}
    unchanged = replay.replay_many(
        job.problem.network, jax.random.split(key, 2), content.distilled, **told
    )
    gaps = [
        np.abs(a - b).max()
        for a, b in zip(jax.tree.leaves(sent), jax.tree.leaves(unchanged), strict=True)
    ]
    assert max(gaps) > 1e-3


def test_augmentations_are_refused_where_a_proof_is_promised(tmp_path):
    changed = {"distill__init": "known", "distill__replay_augmentations": ("flip",)}
    with pytest.raises(UserError, match=r"^distill\.replay_augmentations is \('flip',\), and a"):
        distilling.distil(small_jobs.make(tmp_path, **changed))
    assert not [*tmp_path.glob("**/package.gxd")]


def test_more_epochs_than_have_rates_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"replay_epochs is 5, and a rate is learned for"):
        distilling.distil(small_jobs.make(tmp_path, distill__replay_epochs=5))
    assert not [*tmp_path.glob("**/package.gxd")]
