import importlib.util
import time

import jax
import jax.numpy as jnp
import pytest

from configs import demo, gastric, mnist, radiograph
from gxdistill import plan
from gxdistill.distill.memory import STRATEGIES
from gxdistill.errors import UserError
from gxdistill.jobs import kinds
from gxdistill.plan import compiling, program, targets
from gxdistill.plan.compiling import Compiled
from gxdistill.plan.program import Program
from gxdistill.tasks.distillation import method


def _program(size):
    arguments = (jax.ShapeDtypeStruct((size, size), jnp.float32),) * 2
    return Program(jax.jit(lambda a, b: jnp.sin(a @ b)), arguments, "store", {}, 1.0, 1.0)


def test_the_size_of_a_cohort_is_told_without_its_images():
    assert kinds.size_of(demo.get_config(), None) == (100, (256, 256, 1), 3)
    assert kinds.size_of(mnist.get_config(), None) == (60_000, (28, 28, 1), 10)
    assert kinds.size_of(gastric.get_config(), 500) == (500, (2048, 2048, 1), 3)
    with pytest.raises(UserError, match="how large the images are"):
        kinds.size_of(radiograph.get_config(), None)


def test_a_job_without_outer_steps_has_nothing_to_plan():
    config = demo.get_config()
    config.distill.outer_steps = 0
    with pytest.raises(UserError, match=r"outer_steps is 0: .*no outer step to plan"):
        plan.make(config, "cpu", log=print)


@pytest.mark.parametrize(
    ("mechanism", "says"),
    [
        ("meta_gradient", r"a private step takes up to twice"),
        ("statistics", "no outer step to plan"),
    ],
)
def test_a_private_job_is_not_planned_as_if_it_were_none(mechanism, says):
    config = demo.get_config()
    config.privacy.mechanism = mechanism
    with pytest.raises(UserError, match=rf"mechanism is '{mechanism}': .*{says}"):
        plan.make(config, "cpu", log=print)


def test_what_a_compiler_found_is_kept_by_program(tmp_path):
    cpu, said = targets.load("cpu"), []
    first = compiling.compiled(_program(64), cpu, log=said.append, folder=tmp_path)
    assert first.arguments == 2 * 64 * 64 * 4
    assert first.outputs == 64 * 64 * 4
    assert first.peak >= 3 * 64 * 64 * 4
    assert compiling.compiled(_program(64), cpu, log=said.append, folder=tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 1
    (kept,) = tmp_path.iterdir()
    kept.write_text("{")  # a plan that was killed
    again = compiling.compiled(_program(64), cpu, log=said.append, folder=tmp_path)
    assert again._replace(compile_s=0) == first._replace(compile_s=0)
    compiling.compiled(_program(32), cpu, log=said.append, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_long_work_shows_that_it_lives(monkeypatch):
    monkeypatch.setattr(compiling, "_EVERY", 0.01)
    said = []
    with compiling._signs_of_life("compiling for h100", said.append):
        time.sleep(0.1)
    assert said[0].startswith("compiling for h100: 0 s so far")


def _plan(**changes):
    target = targets.load("h100")
    compiled = Compiled(10**9, 5 * 10**9, 0, 2e12, 0.0, 70.0)
    fields = {
        "name": "gastric",
        "target": target,
        "devices": 1,
        "mesh": {"network": 1, "data": 1},
        "dtype": "bfloat16",
        "networks": 4,
        "batch": 256,
        "inner_steps": 30,
        "outer_steps": 10_000,
        "strategy": "nested",
        "compiled": compiled,
        "peaks": {"store": 200 * 10**9, "recompute": 7 * 10**9, "nested": 6 * 10**9},
        "flops": 9.89e13,
        "moved": 6.704e11,
        "sent": 0.0,
        "largest_batch": 2048,
        "largest_at_once": 12,
    }
    return plan.Plan(**(fields | changes))


def test_a_step_takes_at_least_what_binds_it():
    job_plan = _plan()
    assert job_plan.seconds == pytest.approx({"products": 0.1, "memory": 0.2, "links": 0.0})
    assert job_plan.fits
    assert job_plan.best == "recompute"
    text = plan.as_text(job_plan, price=2.0)
    assert "at least 0.556 h, 1.111 at 2 a device-hour" in text
    assert "memory bound" in text
    assert not _plan(target=job_plan.target._replace(memory=10**9)).fits


def test_a_plan_expects_what_measured_steps_make_likely():
    job_plan = _plan()
    assert job_plan.expected_s is None
    assert "expected" not in plan.as_text(job_plan)
    target = job_plan.target._replace(efficiency={"memory": 0.5, "products": 0.2})
    job_plan = _plan(target=target)
    assert job_plan.expected_s == pytest.approx(max(0.1 / 0.2, 0.2 / 0.5))
    text = plan.as_text(job_plan)
    assert "expected          0.5 s by steps measured on h100; whole run 1.39 h" in text
    assert "at least 0.556 h" in text


def test_room_of_a_gradient_goes_by_the_card_where_it_is_asked():
    config = demo.get_config("smoke")
    config.distill.update(memory_budget_mb=0, epochs=8, init="random")

    def choose(memory, **changes):
        config.distill.update(changes)
        problem = program.problem_of(config, kinds.size_of(config, None), None, memory)
        settings = program.settings_of(config)
        data = method.initial_distilled(problem, settings)
        return method.memory_sizes(problem, settings, data)

    taken, sizes = choose(None)
    assert taken == "store"  # Of 256 MiB.
    a_quarter = 4 * sizes["store"]
    assert choose(a_quarter)[0] == "store"
    assert choose(a_quarter - 4)[0] != "store"
    assert choose(a_quarter, networks=2)[0] != "store"  # Side by side.
    assert choose(a_quarter, networks_at_once=1)[0] == "store"
    assert choose(a_quarter - 4, memory_budget_mb=1)[0] == "store"


def test_the_phantoms_of_the_papers_sizes_are_as_many():
    for variant in ("phantom_known", "phantom_random"):
        assert kinds.size_of(gastric.get_config(variant), None) == (200, (2048, 2048, 1), 3)


@pytest.mark.slow
@pytest.mark.parametrize("target", plan.NAMES)
def test_a_small_job_is_planned_for_every_target(target, tmp_path):
    package = {"gpu": "jax_plugins.xla_cuda12", "tpu": "libtpu"}.get(targets.load(target).platform)
    try:
        if package and importlib.util.find_spec(package) is None:
            pytest.skip(f"needs the compiler of {target}: pip install -e '.[plan]'")
    except ModuleNotFoundError:
        pytest.skip(f"needs the compiler of {target}: pip install -e '.[plan]'")
    config = gastric.get_config("smoke")
    config.distill.networks = 8
    job_plan = plan.make(config, target, log=print, folder=tmp_path)
    assert job_plan.fits
    assert tuple(job_plan.peaks) == STRATEGIES
    assert job_plan.flops > 1e6
    assert job_plan.moved > 1e5
    learned = 3 * 16 * 16 * 4  # the distilled images, of which the gradient is added up
    assert (job_plan.sent > learned) == (job_plan.devices > 1)
    assert job_plan.sent < 2 * learned
    assert job_plan.largest_batch > job_plan.batch
