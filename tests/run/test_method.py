import numpy as np

from gxdistill.run import limits, method
from tests import jobs


def test_every_choice_is_known_on_both_sides(tmp_path):
    assert tuple(method.WINDOWS) == limits._CHOICES["distill.window"]
    assert tuple(method.RATES) == limits._CHOICES["distill.rates"]
    for name in limits._CHOICES["distill.synthesis"]:
        job = jobs.make(tmp_path, distill__synthesis=name, distill__bases=2)
        assert method.finished(job, method.build(job)[1].distilled).images.shape[2:] == job.shape


def test_a_job_says_what_memory_its_gradient_takes(tmp_path):
    said = []
    method.build(jobs.make(tmp_path, said.append, distill__memory="nested"))
    assert said[-1].startswith("memory of a gradient through 2 inner steps: store ")
    assert said[-1].endswith("MiB; taking nested")


def test_a_shared_rate_is_packaged_as_a_rate_for_each_step(tmp_path):
    job = jobs.make(tmp_path, distill__rates="shared")
    loop, state = method.build(job)
    batch = job.draw(12)(job.feed, job.key(method.Use.POOL))
    for _ in range(2):
        state, _ = loop.update(state, batch)
    rates = np.asarray(method.finished(job, state.distilled).log_lr)
    assert rates.shape == (2,)
    assert rates[0] == rates[1] != np.float32(np.log(job.config.distill.start_lr))
