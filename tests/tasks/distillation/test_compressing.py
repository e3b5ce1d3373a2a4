import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gxdistill import package
from gxdistill.cli import main
from gxdistill.distill import replay
from gxdistill.receive import networks
from gxdistill.tasks.distillation import compressing, distilling
from tests import small_jobs


@pytest.fixture
def workdir(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def _job(workdir, said=print):
    return small_jobs.make(workdir, said, compress__steps=4, compress__patches=60)


@pytest.mark.parametrize("max_loss", [100.0, 0.0])
def test_a_package_is_written_in_the_fewest_bits_that_lose_no_more(workdir, max_loss):
    said, before = [], (workdir / "package.gxd").read_bytes()
    path = compressing.compress(_job(workdir, said.append), max_loss)
    content = package.load(path)
    losses = {
        line.split()[2].rstrip(":"): float(line.split()[3]) for line in said if "points" in line
    }
    kind = content.manifest.precision
    assert list(losses) == ["uint4", "uint8", "bfloat16", "float32"][: len(losses)]
    assert [name for name, loss in losses.items() if loss <= max_loss][:1] in ([kind], [])
    assert kind == "uint4" if max_loss else losses[kind] <= 0
    assert content.start is None
    assert content.manifest.init == package.Init("seeded", 0)
    assert (workdir / "package.gxd").read_bytes() == before
    if max_loss:
        assert package.size_bytes(path) < 0.8 * len(before)


def test_a_seeded_package_gives_the_senders_network_bit_for_bit(workdir):
    path = compressing.compress(_job(workdir), 100.0)
    trained = networks.train_networks(path)
    assert trained.record["proof"]["equal"]
    content, job = package.load(path), _job(workdir)
    start = job.problem.network.init(job.key(compressing.Use.KNOWN))
    expected = replay.replay(job.problem.network, start, content.distilled, rule="raw")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), trained.params, expected)
    said = []
    networks.log_networks(trained, said.append)
    assert said[-1] == "the sender's network, bit for bit"


@pytest.mark.slow
def test_fine_tuning_through_the_rounding_learns(workdir):
    """With 16 levels, a few outer steps find better images than rounding alone."""
    job = small_jobs.make(workdir, compress__steps=40, compress__patches=60, compress__rate=1.0)
    data = package.load(workdir / "package.gxd").distilled
    batch = job.cohorts.sample("train", 600, job.key(compressing.Use.POOL))

    def loss(data):
        params = jax.tree.map(lambda leaf: leaf[0], distilling.replay_networks(job, data, 1, None))
        logits = jax.nn.log_softmax(job.problem.network.apply(params, batch.images))
        return -float(jnp.mean(jnp.take_along_axis(logits, batch.targets[:, None], 1)))

    grid = package.precision.spanning(np.asarray(data.images), "uint4")
    plain = package.precision.round_to(np.asarray(data.images), "uint4", grid)
    tuned, _ = compressing.round_images(job, data, "uint4")
    assert loss(tuned) < loss(data.replace(images=jnp.asarray(plain)))


def test_the_command_wants_a_bound_and_a_package(workdir, tmp_path):
    config = f"--config={small_jobs.ROOT}/configs/demo.py:smoke"
    for arguments, reason in (
        ([], "--max-loss must say how many points"),
        (["--max-loss=-1"], "is not a non-negative number"),
        (["--max-loss=nan"], "is not a non-negative number"),
        (["--max-loss=x"], "max-loss"),
        (["--max-loss=1", "--config.seed=9"], "holds a run with other settings"),
    ):
        with pytest.raises(SystemExit, match=reason):
            main.main(["compress", config, f"--workdir={workdir}", *arguments])
    with pytest.raises(SystemExit, match=r"package\.gxd could not be read"):
        main.main(["compress", config, f"--workdir={tmp_path / 'none'}", "--max-loss=1"])
    assert not (workdir / "compressed.gxd").exists()
