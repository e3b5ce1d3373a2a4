"""The patient-level step beside a loop over patients, and its noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gxdistill.tasks.federation import hospitals, simulating, training
from tests.tasks.federation import small_federations


def _job(tmp_path, **changes):
    job = small_federations.make(tmp_path, federation__secure=False, **changes)
    data = hospitals.of_job(job)
    return job, hospitals.place(data, data.names, job.config), simulating.sites_of(job, data)


def _change(loss, params, draw, key):
    """What three steps of SGD with momentum .9 on one patient take off the weights, in NumPy."""
    weights, trace = params, jax.tree.map(np.zeros_like, params)
    for i in range(3):
        draw_key, _ = jax.random.split(jax.random.fold_in(key, i))
        grads = jax.grad(loss)(weights, draw(draw_key))
        trace = {k: 0.9 * trace[k] + np.asarray(grads[k]) for k in grads}
        weights = {k: weights[k] - 0.2 * trace[k] for k in grads}
    return {k: np.asarray(params[k] - weights[k]) for k in weights}


@pytest.mark.parametrize("steps", [1, 3])
def test_a_patient_level_step_sums_clipped_parts_over_poisson_samples(tmp_path, steps):
    """Without noise, beside a loop in Python over the patients that the sampler draws."""
    changes = {"federation__patient__steps": steps, "federation__patient__steps_lr": 0.2}
    job, feed, sites = _job(tmp_path, federation__patient__clip=0.05, **changes)
    settings, network = job.config.federation, small_federations.pixelwise()
    params, key = network.init(jax.random.key(0)), jax.random.key(1)
    of_site = training._patients_sum(job.config, network, training.patient_sampler(settings, sites))
    loss = training.network_loss(network, settings.dice_over)
    for site in range(sites.count):
        _, total = jax.jit(of_site)(params, key, feed, jnp.int32(site))
        draw_key, crop_key = jax.random.split(key)
        chosen, drawn = training.patient_sampler(settings, sites).draw(draw_key)
        expected, clipped = {"w": 0.0, "b": 0.0}, 0
        for i, (patient, is_drawn) in enumerate(zip(chosen, drawn, strict=True)):
            if not is_drawn or patient >= feed.patients[site]:
                continue
            draw = partial(hospitals.draw_of_patient, feed, site, patient, config=job.config)
            own = jax.random.fold_in(crop_key, i)
            if steps == 1:
                grads = jax.tree.map(np.asarray, jax.grad(loss)(params, draw(own)))
            else:
                grads = _change(loss, params, draw, own)
            norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
            clipped += norm > 0.05
            expected = {k: expected[k] + grads[k] * min(1, 0.05 / norm) for k in grads}
        assert clipped
        for name, value in expected.items():
            np.testing.assert_allclose(total[name], value, rtol=1e-4, atol=1e-7)


def test_the_noise_of_a_round_is_that_of_the_sum_over_the_sites(tmp_path):
    """The gradient of a round without a patient: noise sigma C over the expected number."""
    job, feed, sites = _job(tmp_path, federation__patient__sampling=1e-6)
    settings, network = job.config.federation, small_federations.pixelwise(classes=600)
    noise = 2.0
    loop = training.patient_level(job.config, network, sites, noise, print)
    start = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0)))
    state, _ = jax.jit(loop.update)(loop.init(start, jax.random.key(0)), feed)
    (adam, *_) = jax.tree.leaves(state.opt_state, is_leaf=lambda x: hasattr(x, "mu"))
    draws = np.concatenate([np.ravel(leaf) / 0.1 for leaf in jax.tree.leaves(adam.mu)])
    std = noise * settings.patient.clip / (settings.patient.sampling * sites.patients)
    assert stats.kstest(draws / std, "norm").pvalue > 1e-3


def test_central_training_takes_all_sites_for_one(tmp_path):
    job, _, _ = _job(tmp_path)
    data = hospitals.of_job(job)
    feed = hospitals.place(data, ("",), job.config)
    assert int(feed.patients[0]) == len(set(data.train.patients.tolist()))
    network = small_federations.pixelwise()
    loop = training.central(job.config, network, 30)
    state, update = loop.init(network.init(jax.random.key(0)), jax.random.key(0)), None
    update = jax.jit(loop.update)
    losses = []
    for _ in range(30):
        state, loss = update(state, feed)
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
