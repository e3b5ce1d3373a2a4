"""One distilled set of several sites: their mean beside one batch of all, and what they send."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs import sharing as config
from gxdistill import package
from gxdistill.cli import main
from gxdistill.distill import init, meta_gradient
from gxdistill.errors import UserError
from gxdistill.federated import aggregation
from gxdistill.privacy import meta_gradient as private
from gxdistill.privacy.sampling import PatientBatch, PatientSampler
from gxdistill.pytrees import Batch
from gxdistill.tasks.federation import sharing
from tests import small_jobs, toy
from tests.tasks.federation import small_federations


def test_the_sites_mean_is_the_meta_gradient_of_one_batch_of_all():
    """Sites that weigh as their batches: the loss is a mean over patches, its gradient linear."""
    network, rng = toy.network(), np.random.default_rng(0)
    data = _start()
    step = meta_gradient.after_training(network, rule="raw")
    batches = [toy.batch(rng, 12) for _ in range(3)]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *batches)
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)

    def draw(site):
        return jax.tree.map(lambda leaf: leaf[site], stacked)

    shared = sharing.shared(step, weights=np.ones(3), sum_sites=aggregation.in_sequence)
    loss, grads = shared(data, jax.random.key(1), draw)
    expected_loss, expected = step(data, jax.random.key(1), Batch(*vars(whole).values()))
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def _samples(rng):
    """A sample of 4 patients of 2 patches, of which the last is not drawn."""
    images, targets, _ = vars(toy.batch(rng, 8)).values()
    present = jnp.array([True, True, True, False])
    shape = (4, 2)
    return PatientBatch(
        images.reshape(*shape, *toy.SHAPE), targets.reshape(shape), present, present
    )


def _start():
    return init.noise(
        jax.random.key(0),
        steps=2,
        images_per_step=3,
        shape=toy.SHAPE,
        num_classes=toy.CLASSES,
        epochs=2,
        lr=0.5,
        rule="raw",
    )


def _shared_privately(noise, honest=2, **how):
    """Two sites: the patients 0 and 2, and 1 and 3."""
    alone = partial(private.after_training, clip=0.05, divisor=10.0, **how)
    build = sharing.shared_privately(
        alone, noise, sites=2, honest=honest, sum_sites=aggregation.in_sequence
    )
    batch, site_of = _samples(np.random.default_rng(0)), jnp.array([0, 1, 0, 1])

    def draw(site):
        return batch.replace(counted=batch.counted & (site_of == site))

    return build(toy.network(), rule="raw"), draw, batch


@pytest.mark.parametrize("place", private.PLACES)
def test_without_noise_the_sites_sum_is_that_of_all_patients(place):
    shared, draw, batch = _shared_privately(0.0, place=place)
    _, grads = jax.jit(lambda data, key: shared(data, key, draw))(_start(), jax.random.key(1))
    alone = private.after_training(
        toy.network(), rule="raw", clip=0.05, divisor=10.0, noise_multiplier=0.0, place=place
    )
    _, expected = jax.jit(alone)(_start(), jax.random.key(1), batch)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("honest", [1, 2])
def test_the_noise_of_the_sites_adds_up_to_what_was_asked(honest):
    """At the distilled data, where the noise is seen as it is: by Kolmogorov-Smirnov."""
    shared, draw, _ = _shared_privately(40.0, honest, place="distilled")
    quiet, _, _ = _shared_privately(0.0, honest, place="distilled")

    @jax.jit
    def drawn(key):
        _, noisy = shared(_start(), key, draw)
        _, plain = quiet(_start(), key, draw)
        return jax.tree.map(jnp.subtract, noisy, plain)

    parts = [jax.tree.leaves(drawn(jax.random.key(i))) for i in range(6)]
    draws = np.concatenate([np.ravel(leaf) for leaves in parts for leaf in leaves])
    std = 40.0 * 0.05 * np.sqrt(2 / honest) / 10.0
    assert stats.kstest(draws / std, "norm").pvalue > 1e-3


def test_a_sample_of_all_is_parted_by_site(tmp_path):
    job = small_federations.make(tmp_path, configs=config, data__levels="fixed")
    source = job.cohorts.patient_batches(PatientSampler(8, 0.7), 2)
    own = sharing.problem_of(job).sharing.patients(source)
    feed, key = next(source.stream()), jax.random.key(3)
    whole, draw = source.draw(feed, key), own.draw(feed, key)
    parts = [np.asarray(draw(jnp.int32(site)).counted) for site in (0, 1)]
    np.testing.assert_array_equal(parts[0] | parts[1], whole.counted)
    assert not (parts[0] & parts[1]).any()
    chosen, present = PatientSampler(8, 0.7).draw(key)
    names = np.unique(job.cohorts.train.patients)[np.asarray(chosen)]
    for site, part in enumerate(parts):
        ids = set(names[part].tolist())
        at_site = job.cohorts.train.sites == f"site-{site}"
        assert ids == set(names[np.asarray(present)]) & set(job.cohorts.train.patients[at_site])


def test_each_site_draws_of_its_own_patients(tmp_path):
    job = small_federations.make(tmp_path, configs=config)
    source = sharing.problem_of(job).batches(12)
    draw = source.draw(next(source.stream()), jax.random.key(0))
    train = job.cohorts.train
    names, patient = np.unique(train.patients), []
    for site, name in enumerate(("site-0", "site-1")):
        batch = draw(jnp.int32(site))
        patient = names[np.asarray(batch.patients)]
        assert set(patient) <= set(train.patients[train.sites == name])
        assert len(set(patient.tolist())) > 1
        assert set(np.asarray(batch.targets).tolist()) == {0, 1, 2}


def test_sites_weigh_as_their_patients(tmp_path):
    job = small_federations.make(tmp_path, configs=config)
    job.cohorts.train.sites[:] = np.where(np.arange(8) < 6, "a", "b")
    np.testing.assert_array_equal(sharing.weights_of(job), [6, 2])
    job.config.sharing.weights = "equal"
    np.testing.assert_array_equal(sharing.weights_of(job), [1, 1])


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("shared")
    flag = f"--config={small_jobs.ROOT}/configs/sharing.py:smoke"
    with toy.quick_compilation():
        main.main(["federate", "distill", flag, f"--workdir={workdir}"])
    return workdir


def test_the_command_packages_what_the_sites_learned_and_tells_what_they_sent(shared_run):
    content = package.load(shared_run / "package.gxd")
    data = content.distilled
    told = json.loads((shared_run / "sharing.json").read_text())
    assert told["sites"] == ["site-0", "site-1"]
    assert told["sends"] == sum(leaf.nbytes for leaf in jax.tree.leaves(data))
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(content.start))
    assert told["network_sends"] == weights
    assert told["ratio"] == pytest.approx(weights / told["sends"])
    lines = (shared_run / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 8


def test_a_job_of_one_site_a_stream_or_too_low_a_threshold_is_refused(tmp_path):
    job = small_federations.make(tmp_path, configs=config, data__feed="streaming")
    with pytest.raises(UserError, match=r"data\.feed is streaming"):
        sharing.problem_of(job)
    job = small_federations.make(tmp_path, configs=config, sharing__threshold=1)
    with pytest.raises(UserError, match=r"sharing\.threshold is 1; of 2 sites more than half"):
        sharing.problem_of(job)
    job = small_federations.make(tmp_path, configs=config)
    job.cohorts.train.sites[:] = "alone"
    with pytest.raises(UserError, match="All training images are of one site, 'alone'"):
        sharing.problem_of(job)
