"""Each site draws of its own patients, and a patient is at one site alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gxdistill.errors import UserError
from gxdistill.tasks.federation import hospitals
from tests.tasks.federation import small_federations


def _marked(tmp_path, **changes):
    """A job whose images are flat: the pixel tells the image's number."""
    job = small_federations.make(tmp_path, **changes)
    data = hospitals.of_job(job)
    number = np.arange(len(data.train.labels), dtype=np.uint8)
    images = np.broadcast_to(number[:, None, None, None], data.train.images.shape)
    return job, data._replace(train=dataclasses.replace(data.train, images=images))


def _number(batch):
    return np.rint((np.asarray(batch.images)[:, 0, 0, 0] * 0.25 + 0.5) * 255).astype(int)


def test_a_site_draws_of_its_own_images_alone_and_of_all_of_them(tmp_path):
    job, data = _marked(tmp_path)
    feed = hospitals.place(data, data.names, job.config)
    for site, name in enumerate(data.names):
        seen = set()
        for key in jax.random.split(jax.random.key(0), 20):
            batch = hospitals.draw(feed, jnp.int32(site), key, config=job.config)
            assert batch.targets.shape == (4, 16, 16)
            seen |= set(_number(batch).tolist())
        assert seen == set(np.flatnonzero(data.train.sites == name).tolist())


def test_the_images_of_a_patient_are_drawn_and_no_others(tmp_path):
    job, data = _marked(tmp_path)
    feed = hospitals.place(data, data.names, job.config)
    site = 1
    names = np.unique(data.train.patients[data.train.sites == data.names[site]])
    assert int(feed.patients[site]) == len(names)
    for i, name in enumerate(names):
        batch = hospitals.draw_of_patient(
            feed, jnp.int32(site), jnp.int32(i), jax.random.key(i), config=job.config
        )
        assert set(_number(batch)) <= set(np.flatnonzero(data.train.patients == name))


@pytest.mark.parametrize("augmented", [True, False])
def test_crops_of_a_patient_are_augmented_where_that_is_asked(tmp_path, augmented):
    changes = {"federation__augment": ("intensity",), "federation__patient__augmented": augmented}
    job, data = _marked(tmp_path, **changes)
    feed = hospitals.place(data, data.names, job.config)
    batch = hospitals.draw_of_patient(
        feed, jnp.int32(0), jnp.int32(0), jax.random.key(0), config=job.config
    )
    numbers = (np.asarray(batch.images) * 0.25 + 0.5) * 255
    is_whole = np.abs(numbers - np.rint(numbers)).max() < 1e-3
    assert is_whole != augmented


def test_crops_show_a_structure_as_often_as_asked(tmp_path):
    """Of patients with several images, of which every third is empty, and one that has no other."""
    crops = {"federation__patient__crops": 400, "federation__patient__shown": 0.75}
    job, data = _marked(tmp_path, **crops)
    n = len(data.train.labels)
    masks = np.array([mask * (row % 3 > 0) for row, mask in enumerate(data.train.masks)])
    patients = np.array(["alone", *(f"p{row // 5}" for row in range(1, n))])
    train = dataclasses.replace(
        data.train, masks=masks, patients=patients, sites=np.full(n, "here")
    )
    feed = hospitals.place(data._replace(train=train), ("here",), job.config)
    for i, name in enumerate(np.unique(patients)):
        batch = hospitals.draw_of_patient(
            feed, jnp.int32(0), jnp.int32(i), jax.random.key(i), config=job.config
        )
        rows = np.flatnonzero(patients == name)
        shows = rows[rows % 3 > 0]
        assert int(feed.structured[0, i]) == len(shows)
        drawn = _number(batch)
        assert set(drawn) == set(rows)
        if len(shows):
            chance = 0.75 + 0.25 * len(shows) / len(rows)
            found = np.isin(drawn, shows).sum()
            assert stats.binomtest(int(found), 400, chance).pvalue > 1e-3


def test_label_maps_move_with_their_images(tmp_path):
    job = small_federations.make(tmp_path, federation__augment=("dihedral",))
    data = hospitals.of_job(job)
    train = dataclasses.replace(
        data.train, images=np.where(data.train.masks, 255, 0).astype(np.uint8)[..., None]
    )
    feed = hospitals.place(data._replace(train=train), ("",), job.config)
    for key in jax.random.split(jax.random.key(0), 5):
        batch = hospitals.draw(feed, jnp.int32(0), key, config=job.config)
        np.testing.assert_array_equal(batch.images[..., 0] > 0, batch.targets == 1)


def test_patients_are_dealt_out_whole_and_evenly(tmp_path):
    job = small_federations.make(tmp_path, federation__deal=3)
    data = hospitals.of_job(job)
    assert data.names == ("site-0", "site-1", "site-2")
    for name in np.unique(data.train.patients):
        assert len(set(data.train.sites[data.train.patients == name])) == 1
    counts = [int((data.train.sites == name).sum()) for name in data.names]
    assert max(counts) - min(counts) <= 1


def test_small_sites_are_gathered(tmp_path):
    job = small_federations.make(tmp_path, federation__deal=5, federation__least=2)
    names = hospitals.of_job(job).names
    assert names[0] == "others"
    assert len(names) == 4  # Of 8 patients, three sites have two, and two have one.


def test_a_cohort_of_one_site_or_without_masks_is_refused(tmp_path):
    with pytest.raises(UserError, match="All training images are of one site, 'site-0'"):
        hospitals.of_job(small_federations.make(tmp_path, federation__deal=1))
    job = small_federations.make(tmp_path)
    whole = job.cohorts.source
    bare = dataclasses.replace(whole.cohort, masks=None, class_names=("a", "b"))
    job.cohorts.__dict__["source"] = dataclasses.replace(whole, cohort=bare)
    with pytest.raises(UserError, match="has no masks"):
        hospitals.of_job(job)
