import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from gxdistill.data.batches.resident import Normalisation
from gxdistill.privacy.sampling import PatientSampler, draw_patients, patient_feed, stream
from gxdistill.pytrees import PatchTable

KEY = jax.random.key(3)


def _drawn(sampler, count):
    """`[count, P]`: who is in which step's sample."""
    keys = jax.vmap(lambda step: jax.random.fold_in(KEY, step))(jnp.arange(count))
    chosen, present = jax.jit(jax.vmap(sampler.draw))(keys)
    taken = np.zeros((count, sampler.patients), bool)
    for step, (rows, here) in enumerate(zip(np.asarray(chosen), np.asarray(present), strict=True)):
        assert not here[np.argmin(here) :].any() or here.all()  # Those who were drawn come first.
        taken[step, rows[here]] = True
        assert taken[step].sum() == here.sum()
    return taken


def test_each_patient_comes_by_a_coin_of_its_own():
    taken = _drawn(PatientSampler(40, 0.15), 4000)
    sizes = np.bincount(taken.sum(axis=1), minlength=41)
    expected = 4000 * scipy.stats.binom.pmf(np.arange(41), 40, 0.15)
    frequent = expected > 8
    test = scipy.stats.chisquare(
        [*sizes[frequent], sizes[~frequent].sum()],
        [*expected[frequent], expected[~frequent].sum()],
    )
    assert test.pvalue > 1e-3  # A sample of a fixed size would fail, and one of balanced classes.
    correlation = np.corrcoef(taken.T)[np.triu_indices(40, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)
    assert np.abs(taken.mean(axis=0) - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / 4000)


def test_a_step_has_room_for_all_whom_chance_may_bring():
    assert PatientSampler(7, 0.5).capacity == 7
    sampler = PatientSampler(60_000, 0.01)
    assert 600 < sampler.capacity < 1000
    assert scipy.stats.binom.sf(sampler.capacity, 60_000, 0.01) < 1e-24
    assert _drawn(PatientSampler(5, 1.0), 3).all()


def test_draws_are_a_pure_function_of_key_and_step():
    sampler = PatientSampler(30, 0.3)
    taken = _drawn(sampler, 50)
    assert len({row.tobytes() for row in taken}) == 50
    for step in (0, 49):
        chosen, present = sampler.draw(jax.random.fold_in(KEY, step))
        np.testing.assert_array_equal(chosen[present], np.flatnonzero(taken[step]))


def test_a_stream_is_named_by_its_key_and_does_not_tell_it():
    assert stream(KEY) == stream(jax.random.key(3)) != stream(jax.random.key(4))
    assert len(stream(KEY)) == 16
    assert int(stream(KEY), 16) != int.from_bytes(jax.random.key_data(KEY).tobytes(), "little")
    draws = PatientSampler(30, 0.3).draws(KEY, 4, 2)
    assert (draws.stream, draws.probability, draws.first, draws.count) == (stream(KEY), 0.3, 4, 2)


@pytest.mark.parametrize(
    ("patients", "probability", "name"),
    [(0, 0.5, "patients"), (3, 0.0, "probability"), (3, 1.1, "probability")],
)
def test_numbers_out_of_range_are_refused(patients, probability, name):
    with pytest.raises(ValueError, match=f"`{name}` is"):
        PatientSampler(patients, probability)


def _cohort():
    """Images that hold their own number; patient p has images p and p + 4, patient 2 no patch."""
    images = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    rows = [(i, r, c) for i in range(8) for r in (0, 2) for c in (0, 2) if i % 4 != 2]
    image, row, col = np.array(rows, np.int32).T
    label = (image >= 4).astype(np.int32)
    return images, PatchTable(image, row, col, label, image % 4)


@pytest.fixture(scope="module")
def batches():
    images, table = _cohort()
    sampler = PatientSampler(4, 0.7)
    draw = jax.jit(
        lambda feed, key: draw_patients(
            feed,
            key,
            sampler=sampler,
            patches=6,
            size=2,
            normalise=Normalisation((0.0,), (1 / 255,)),
        )
    )
    feed = patient_feed(jnp.asarray(images), table, 4)
    keys = [jax.random.fold_in(KEY, step) for step in range(40)]
    return [(sampler.draw(key), draw(feed, key)) for key in keys]


def test_patches_are_of_the_patients_who_were_drawn(batches):
    seen = set()
    for (chosen, present), batch in batches:
        shown = np.asarray(batch.images).reshape(4, 6, -1)
        assert (shown == shown[..., :1]).all()
        image = shown[..., 0].astype(int)
        counted = np.asarray(batch.counted)
        np.testing.assert_array_equal(counted, np.asarray(present & (chosen != 2)))
        np.testing.assert_array_equal(
            (image % 4)[counted], np.asarray(chosen)[counted, None] + 0 * image[counted]
        )
        np.testing.assert_array_equal(np.asarray(batch.targets)[counted], (image >= 4)[counted])
        seen |= {*image[counted].ravel().tolist()}
    assert seen == {0, 1, 3, 4, 5, 7}


def test_each_class_of_a_patient_is_drawn_as_often(batches):
    labels = np.concatenate(
        [np.asarray(b.targets)[np.asarray(b.counted)].ravel() for _, b in batches]
    )
    assert abs(labels.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(labels))
