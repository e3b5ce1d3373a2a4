import jax
import numpy as np
import pytest
import scipy.stats

from gxdistill.data.batches import sampling
from gxdistill.pytrees import Cohort, PatchTable

# Patches of each patient (row) and class (column): some have hundreds of one, others a handful.
COUNTS = np.array([[90, 0, 8], [10, 5, 0], [40, 0, 60], [3, 30, 0], [0, 1, 2]])
SITES = np.array(["north", "north", "south", "south", "south"])
NAMES = ("irrelevant", "negative", "positive")
CELLS = np.argwhere(COUNTS)
DRAWN = np.array([True, True, False, True, True])


@pytest.fixture(scope="module")
def cohort():
    n = len(COUNTS)
    return Cohort(
        images=np.zeros((n, 4, 4, 1), np.uint8),
        masks=None,
        labels=np.array([1, 0, 1, 0, 1], np.int32),
        patients=np.array([f"p{i}" for i in range(n)]),
        sites=SITES,
        splits=np.full(n, "train"),
        names=np.array([f"{i}.png" for i in range(n)]),
        class_names=NAMES,
    )


@pytest.fixture(scope="module")
def table():
    patient, label = np.repeat(CELLS, COUNTS[tuple(CELLS.T)], axis=0).T
    order = np.random.default_rng(0).permutation(len(label))
    columns = patient, order, order, label, patient  # of each patient one image
    return PatchTable(*(column[order].astype(np.int32) for column in columns))


_ONE = jax.jit(sampling.draw_rows, static_argnames="batch")


def _draw(sampler, draws=400, batch=30):
    """The rows of many batches, `[draws, batch]`."""
    return np.array([_ONE(sampler, jax.random.key(seed), batch) for seed in range(draws)])


def _count(sampler, rows):
    """How often each patient (row) and class (column) was drawn."""
    seen = np.zeros_like(COUNTS)
    chosen = (np.asarray(column)[rows.ravel()] for column in sampler.table[3:])
    label, patient = chosen
    np.add.at(seen, (patient, label), 1)
    return seen


def _fits(seen, chances):
    """Whether counts are those of draws with these chances, each class apart."""
    for column, chance in zip(seen.T, chances.T, strict=True):
        assert not column[chance == 0].any()
        likely = chance > 0
        expected = column.sum() * chance[likely] / chance.sum()
        assert scipy.stats.chisquare(column[likely], expected).pvalue > 0.001


PRESENT = (COUNTS > 0).astype(float)


@pytest.mark.parametrize(
    ("settings", "chances"),
    [
        ({}, PRESENT),
        ({"patients": "patches"}, COUNTS),
        (
            # Half as many draws from the north, whatever the patients of either.
            {"sites": {"north": 1, "south": 2}},
            np.array([[0.5, 0, 1], [0.5, 1, 0], [1, 0, 1], [1, 1, 0], [0, 1, 1]]),
        ),
        (
            {"sites": {"north": 1, "south": 1}, "patients": "patches"},
            # Within a site by patches: 8 of 8 | 60 and 2 of 62 for the third class, and so on.
            np.array(
                [
                    [90 / 100, 0, 1],
                    [10 / 100, 1, 0],
                    [40 / 43, 0, 60 / 62],
                    [3 / 43, 30 / 31, 0],
                    [0, 1 / 31, 2 / 62],
                ]
            ),
        ),
        ({"sites": {"north": 0, "south": 1}}, PRESENT * (SITES == "south")[:, None]),
        ({"drawn": DRAWN}, PRESENT * DRAWN[:, None]),
        ({"drawn": DRAWN, "patients": "patches"}, COUNTS * DRAWN[:, None]),
    ],
    ids=["equal", "patches", "sites", "sites-patches", "one-site", "drawn", "drawn-patches"],
)
def test_patients_are_drawn_by_their_weights(settings, chances, cohort, table):
    sampler = sampling.sampler(cohort, table, **settings)
    seen = _count(sampler, _draw(sampler))
    np.testing.assert_array_equal(seen.sum(axis=0), 4000)  # each class as often
    if settings.get("sites") == {"north": 1, "south": 2}:
        # Of a class, a third from the north: each present patient an equal part of that.
        chances = np.array([[1, 0, 2], [1, 2, 0], [2, 0, 2], [2, 2, 0], [0, 2, 2]])
    _fits(seen, chances)


def test_each_patch_of_a_patient_and_class_is_as_likely(cohort, table):
    sampler = sampling.sampler(cohort, table)
    seen = np.bincount(_draw(sampler).ravel(), minlength=COUNTS.sum())
    label, patient = (np.asarray(column) for column in sampler.table[3:])
    for own in ((label == 0) & (patient == 2), (label == 1) & (patient == 3)):
        assert scipy.stats.chisquare(seen[own]).pvalue > 0.001


def test_the_table_keeps_its_rows_whole(cohort, table):
    sampled = sampling.sampler(cohort, table).table
    assert set(zip(*map(np.ndarray.tolist, table), strict=True)) == set(
        zip(*(np.asarray(column).tolist() for column in sampled), strict=True)
    )


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((), (10, 10, 10)),
        ((2, 1, 1), (15, 8, 7)),
        ((1, 0, 4), (6, 0, 24)),
        ((6, 3, 1), (18, 9, 3)),
    ],
)
def test_every_batch_has_each_class_by_its_weight(weights, counts, cohort, table):
    sampler = sampling.sampler(cohort, table, classes=weights)
    for rows in _draw(sampler, 5):
        labels = np.asarray(sampler.table.label)[rows]
        np.testing.assert_array_equal(np.bincount(labels, minlength=3), counts)


def test_classes_are_drawn_in_turn_whatever_the_batch(cohort, table):
    sampler = sampling.sampler(cohort, table)
    for batch in (30, 32):
        labels = np.asarray(sampler.table.label)[_draw(sampler, 1, batch)[0]]
        np.testing.assert_array_equal(labels, np.arange(batch) % 3)


def test_a_class_without_patches_leaves_its_share_to_the_others(cohort, table):
    sampler = sampling.sampler(cohort, table.select(table.label != 1))
    labels = np.asarray(sampler.table.label)[_draw(sampler, 3)]
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=3), [45, 0, 45])


def test_sixty_thousand_patients_are_all_drawn_alike():
    n = 60_000
    patient = np.arange(n, dtype=np.int32)
    table = PatchTable(patient, patient, patient, patient % 10, patient)
    many = Cohort(
        images=np.zeros((n, 1, 1, 1), np.uint8),
        masks=None,
        labels=patient % 10,
        patients=np.array([f"{i:05d}" for i in patient]),
        sites=np.full(n, "here"),
        splits=np.full(n, "train"),
        names=np.full(n, ""),
        class_names=tuple("0123456789"),
    )
    sampler = sampling.sampler(many, table)
    widths = np.diff(np.r_[0, np.asarray(sampler.ends, np.int64)])
    np.testing.assert_allclose(widths, (2**31 - 1) / n, rtol=1e-4)
    assert int(sampler.ends[-1]) == int(sampler.highs[-1]) == 2**31 - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patients": "all"}, r"`patients` is 'all'; it must be one of 'equal', 'patches'"),
        ({"classes": (1, 2)}, r"`classes` has no weight for each of irrelevant, negative, pos"),
        ({"classes": (1, -2, 1)}, r"`classes` holds \(1, -2, 1\); .* not negative"),
        ({"classes": (0, 0, 0)}, r"leave no patch any chance"),
        ({"sites": {"north": 1}}, r"`sites` has no weight for each of north, south"),
        ({"sites": {"north": 0, "south": 0}}, r"leave no patch any chance"),
    ],
)
def test_weights_that_mean_nothing_are_refused(settings, message, cohort, table):
    with pytest.raises(ValueError, match=message):
        sampling.sampler(cohort, table, **settings)


@pytest.mark.parametrize("bound", [1, 2, 65_535, 65_537, 2**24 + 1, 2**31 - 1])
def test_bits_are_scaled_below_a_bound_as_whole_numbers_are(bound):
    edges = [0, 1, 65_535, 65_536, 2**31, 2**32 - 1]
    drawn = np.random.default_rng(bound).integers(0, 2**32, 200).tolist()
    bits = np.array(edges + drawn, np.uint32)
    expected = [int(b) * bound >> 32 for b in bits]
    np.testing.assert_array_equal(sampling._below(bits, np.int32(bound)), expected)
