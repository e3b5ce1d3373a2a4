"""The patient-level step beside a loop over patients, and its noise."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from gxdistill.tasks.federation import hospitals, simulating, training
from tests.tasks.federation import small_federations


def _job(tmp_path, **changes):
    job = small_federations.make(tmp_path, federation__secure=False, **changes)
    data = hospitals.of_job(job)
    return job, hospitals.place(data, data.names, job.config), simulating.sites_of(job, data)


def test_a_patient_level_step_sums_clipped_gradients_over_poisson_samples(tmp_path):
    """Without noise, beside a loop in Python over the patients that the sampler draws."""
    job, feed, sites = _job(tmp_path, federation__patient__clip=0.05)
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
            batch = hospitals.draw_of_patient(
                feed, site, patient, jax.random.fold_in(crop_key, i), config=job.config
            )
            grads = jax.tree.map(np.asarray, jax.grad(loss)(params, batch))
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
