import jax
import numpy as np
import pytest

from gxdistill.jobs.cohorts import by_area
from gxdistill.jobs.shadows import ShadowCohorts
from gxdistill.package.seeds import Use
from tests import small_jobs


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return small_jobs.make(tmp_path_factory.mktemp("job"))


def _shadow(job, members):
    pool = job.cohorts.source.cohort
    return ShadowCohorts(
        job.config,
        job.log,
        whole=job.cohorts,
        pool=pool,
        table=by_area(job.config, pool),
        members=members,
    )


def test_batches_and_samples_are_of_members_alone(job):
    members = np.arange(16) % 3 == 0
    cohorts = _shadow(job, members)
    draw, stream, _ = cohorts.batches(60)
    feed = next(stream(job.key(Use.LOOP), 0))
    batches = [jax.jit(draw)(feed, jax.random.key(i)) for i in range(5)]
    batches.append(cohorts.sample("train", 60, jax.random.key(9)))
    seen = set(np.concatenate([batch.patients for batch in batches]).tolist())
    assert seen == set(np.flatnonzero(members).tolist())
    for batch in batches:
        assert (np.bincount(batch.targets) == 20).all()
    of_test = cohorts.sample("test", 60, jax.random.key(9))
    expected = job.cohorts.sample("test", 60, jax.random.key(9))
    np.testing.assert_array_equal(of_test.images, expected.images)


def test_shadows_have_feeds_of_the_same_shapes_and_names_of_their_own(job):
    shadows = [_shadow(job, np.arange(16) % count == 0) for count in (2, 3)]
    feeds = [next(s.batches(30).stream(job.key(Use.LOOP), 0)) for s in shadows]
    first, second = (jax.tree.map(lambda x: (x.shape, x.dtype), feed) for feed in feeds)
    assert first == second
    assert len({s.digest for s in (*shadows, job.cohorts)}) == 3
    for shadow in shadows:
        assert shadow.normalisation == job.cohorts.normalisation
        assert shadow.classes == job.cohorts.classes
        assert shadow.shape == job.cohorts.shape


def test_one_program_takes_the_steps_of_all_shadows(job):
    from gxdistill.tasks.distillation import method

    settings = job.config.distill
    loop, state = method.build(job.problem, settings, job.log)
    first = method.stepper(job.problem, settings, loop)
    losses = []
    for members in (np.arange(16) % 2 == 0, np.arange(16) % 2 == 1):
        source = _shadow(job, members).batches(settings.batch)
        stepper = first.fed_by(source)
        copied = jax.tree.map(lambda x: x.copy(), state)
        _, loss = stepper(copied, stepper.stream(state.key, 0))
        losses.append(loss)
    assert len(first._compiled) == 1
    assert not np.array_equal(*losses)
