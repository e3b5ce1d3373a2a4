import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.special

from gxdistill import package
from gxdistill.errors import UserError
from gxdistill.pytrees import Learned
from gxdistill.receive import networks
from gxdistill.storage import checkpoint
from gxdistill.tasks.distillation import distilling, real_training
from tests import small_jobs
from tests.stderr import without_jax_start

ROOT = Path(__file__).parents[3]


def test_a_run_interrupted_after_each_checkpoint_ends_as_an_uninterrupted_one(
    run, tmp_path, monkeypatch
):
    said, save = [], checkpoint.save

    def save_and_interrupt(folder, step, *args, **options):
        save(folder, step, *args, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        job = small_jobs.make(tmp_path, said.append)
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                distilling.distil(job)
            assert not (tmp_path / "package.gxd").exists()
    distilling.distil(job)
    assert [line for line in said if "resuming" in line or "already" in line] == [
        *(f"distilling: resuming at step {step}" for step in (2, 4, 6)),
        "distilling: done already",
    ]
    assert (tmp_path / "package.gxd").read_bytes() == (run / "package.gxd").read_bytes()
    for name in ("history.jsonl", "cohort.json", "settings.json", "quarantine.csv"):
        assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_a_stream_that_is_interrupted_goes_on_as_an_uninterrupted_one(tmp_path, monkeypatch):
    make = functools.partial(small_jobs.make, data__feed="streaming")
    job = make(tmp_path / "whole")
    whole, _ = distilling._outer_loop(job, job.problem, force=False)
    save = checkpoint.save

    def save_and_interrupt(folder, step, *args, **options):
        save(folder, step, *args, **options)
        raise KeyboardInterrupt

    job = make(tmp_path / "parts")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                distilling._outer_loop(job, job.problem, force=False)
    parts, _ = distilling._outer_loop(job, job.problem, force=False)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    job = small_jobs.make(tmp_path / "resident")
    resident, _ = distilling._outer_loop(job, job.problem, force=False)
    assert not np.array_equal(resident.images, whole.images)  # another order


def test_the_history_holds_each_call_and_each_evaluation(run):
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if "accuracy" in line] == [4, 8]
    assert all(0 < line["loss"] < 5 for line in lines if "loss" in line)
    assert all(0 <= line["accuracy"] <= 1 for line in lines if "accuracy" in line)


def test_the_summary_counts_the_patches_of_each_split(run):
    summary, job = json.loads((run / "cohort.json").read_text()), small_jobs.make(run)
    for split, table in job.cohorts.tables.items():
        assert summary["patches"][split] == {
            name: (table.label == i).sum()
            for i, name in enumerate(("irrelevant", "non-gastritis", "gastritis"))
        }
    assert summary["patch"]["size"] == 16


def test_the_manifest_tells_what_the_config_asked_for(run):
    content = package.load(run / "package.gxd")
    manifest, job = content.manifest, small_jobs.make(run)
    assert manifest.network == package.NetworkChoice("convnet", {"width": 4, "depth": 1})
    assert manifest.init == package.Init("known", 0)
    assert manifest.patch == job.cohorts.geometry
    assert manifest.distillation.settings["optimizer"]["clip"] == 1.0
    assert manifest.normalisation == job.cohorts.normalisation
    assert manifest.class_names == ("irrelevant", "non-gastritis", "gastritis")
    assert 0 <= manifest.decision.tau <= 1
    assert "No guarantee" in manifest.privacy
    start = job.problem.network.init(job.key(distilling.Use.KNOWN))
    np.testing.assert_array_equal(content.start["Dense_0"]["kernel"], start["Dense_0"]["kernel"])


def test_other_settings_touch_nothing_and_are_named_even_where_shapes_differ(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = small_jobs.content(tmp_path / "run")
    job = small_jobs.make(tmp_path / "run", distill__steps=3, seed=4)
    with pytest.raises(
        UserError, match=r"distill\.steps \(was 2, is 3\), seed \(was 0, is 4\).*another --workdir"
    ):
        distilling.distil(job)
    assert small_jobs.content(tmp_path / "run") == before


def test_settings_may_change_as_long_as_nothing_was_learned(tmp_path):
    with pytest.raises(UserError, match=r"distill\.outer_steps is 7, not a multiple"):
        distilling.distil(small_jobs.make(tmp_path, distill__outer_steps=7))
    with pytest.raises(UserError, match="`networks` is 2 with a known init"):
        distilling.distil(small_jobs.make(tmp_path, distill__networks=2))
    with pytest.raises(UserError, match="`warmup` is 8"):
        distilling.distil(small_jobs.make(tmp_path, distill__optimizer__warmup=8))
    with pytest.raises(UserError, match="`window_steps` is 20, more than the 2 inner steps"):
        distilling.distil(small_jobs.make(tmp_path, distill__window="last"))
    with pytest.raises(UserError, match="6 images are fewer than the 16 bases"):
        distilling.distil(small_jobs.make(tmp_path, distill__synthesis="bases"))
    with pytest.raises(UserError, match="cannot be made of tiles 17 times smaller"):
        distilling.distil(
            small_jobs.make(tmp_path, distill__synthesis="tiles", distill__tile_factor=17)
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cohort.json", "quarantine.csv"]


def test_a_run_of_which_each_step_diverges_makes_no_package(tmp_path):
    job = small_jobs.make(tmp_path, distill__start_lr=1e9)
    for _ in range(2):  # started again, it says so again
        with pytest.raises(UserError, match=r"Each of the 8 steps diverged.*start_lr"):
            distilling.distil(job)
    assert not (tmp_path / "package.gxd").exists()


def test_twenty_steps_that_diverge_in_a_row_end_a_run_and_leave_its_last_checkpoint(tmp_path):
    changes = {"outer_steps": 40, "checkpoint_every": 10, "evaluate_every": 40, "start_lr": 1e9}
    job = small_jobs.make(
        tmp_path, **{f"distill__{name}": value for name, value in changes.items()}
    )
    with pytest.raises(UserError, match="The last 20 steps, up to step 20, diverged"):
        distilling.distil(job)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000010"]
    assert not (tmp_path / "package.gxd").exists()


def test_a_network_that_diverges_on_the_way_is_told_and_does_not_end_the_run(run, tmp_path):
    said = []
    measure = distilling._monitor(small_jobs.make(tmp_path, said.append))
    data = package.load(run / "package.gxd").distilled
    learned = Learned(data.images, data.labels, data.log_lr)
    assert 0 <= measure(learned, 8)["accuracy"] <= 1
    assert measure(learned.replace(log_lr=data.log_lr + 80), 8) == {}
    assert "diverged" in said[-1]


def test_a_disk_that_fills_while_the_package_is_written_leaves_the_former_one(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = small_jobs.content(tmp_path / "run")
    largest = len(before["package.gxd"])
    code = (  # The kernel lets no file grow past the limit, as a full disk does.
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest - 1},) * 2); "
        "from gxdistill.cli.main import main; main()"
    )
    arguments = ("distill", "--config=configs/demo.py:smoke", f"--workdir={tmp_path / 'run'}")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith(
        f"gxdistill distill: {tmp_path / 'run/package.gxd'} could not be written"
    )
    assert "Traceback" not in without_jax_start(done.stderr)
    assert small_jobs.content(tmp_path / "run") == before


@pytest.mark.parametrize(("kind", "levels"), [("uint8", 256), ("uint4", 16), ("bfloat16", None)])
def test_images_are_packaged_in_as_many_bits_as_the_config_says(run, tmp_path, kind, levels):
    content = package.load(distilling.distil(small_jobs.make(tmp_path, distill__precision=kind)))
    assert content.manifest.precision == kind
    whole, data = package.load(run / "package.gxd").distilled, content.distilled
    for image, exact in zip(*(np.concatenate(d.images) for d in (data, whole)), strict=True):
        if levels:
            grid = np.linspace(exact.min(), exact.max(), levels)
            nearest = grid[abs(exact[..., None] - grid).argmin(-1)]
            np.testing.assert_allclose(image, nearest, atol=np.ptp(exact) / levels / 50)
        else:
            np.testing.assert_allclose(image, exact, rtol=2**-8)
    np.testing.assert_array_equal(data.labels, whole.labels)
    assert networks.train_networks(tmp_path / "package.gxd").record["proof"]["equal"]


@pytest.mark.parametrize(("rule", "temperature"), [("raw", 1.0), ("softmax", 1.0), ("raw", 0.5)])
def test_a_start_may_be_packaged_with_the_labels_of_networks_trained_on_real_patches(
    rule, temperature, tmp_path
):
    changes = {"distill__started_from": "mixture", "distill__started_labels": "networks"}
    changes |= {"distill__outer_steps": 0, "distill__start_schedule": "cosine"}
    changes |= {"data__patients": 80, "evaluate__ceiling__networks": 2, "distill__label_rule": rule}
    changes["distill__label_temperature"] = temperature
    job = small_jobs.make(tmp_path, **changes)
    content = package.load(distilling.distil(job))
    assert content.manifest.distillation.started_from == "mixture"
    assert content.manifest.distillation.outer_steps == 0
    data, teachers = content.distilled, real_training.ceiling(job)
    images = data.images.reshape(-1, *job.problem.shape)
    each = [
        scipy.special.softmax(job.problem.network.apply(params, images), axis=-1)
        for params in (jax.tree.map(lambda leaf, i=i: leaf[i], teachers) for i in range(2))
    ]
    labels = scipy.special.softmax(data.labels, axis=-1) if rule == "softmax" else data.labels
    expected = np.mean(each, axis=0) ** (1 / temperature)
    np.testing.assert_allclose(
        labels.reshape(-1, job.problem.classes),
        expected / expected.sum(-1, keepdims=True),
        atol=1e-5,
    )
    assert (np.diff(data.log_lr) < 0).all()
    with pytest.raises(UserError, match=r"other settings: distill\.outer_steps"):
        distilling.distil(small_jobs.make(tmp_path, **{**changes, "distill__outer_steps": 4}))


def test_networks_that_label_the_start_are_trained_once(tmp_path, monkeypatch):
    said, save = [], checkpoint.save

    def save_and_interrupt(folder, step, *args, **options):
        save(folder, step, *args, **options)
        if folder.name == "checkpoints":
            raise KeyboardInterrupt

    changes = {"distill__started_labels": "networks", "distill__outer_steps": 4}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            distilling.distil(small_jobs.make(tmp_path / "some", said.append, **changes))
    path = distilling.distil(small_jobs.make(tmp_path / "some", said.append, **changes))
    assert sum("for their labels" in line for line in said) == 1
    whole = distilling.distil(small_jobs.make(tmp_path / "whole", **changes))
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"started_from": "mixture"}, "started_from: Class 0 has patches of 8 patients"),
        ({"synthesis": "bases", "bases": 99}, "distill: 6 images are fewer than the 99 bases"),
    ],
)
def test_a_start_that_cannot_be_made_is_refused_and_leaves_the_folder_free(
    steps, changes, refusal, tmp_path
):
    changes = {f"distill__{name}": value for name, value in changes.items()}
    with pytest.raises(UserError, match=refusal):
        distilling.distil(small_jobs.make(tmp_path, distill__outer_steps=steps, **changes))
    free = small_jobs.make(tmp_path)
    free.workdir.check_same(distilling.identity(free))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"distill__started_from": "mixture", "data__patients": 80},
        {"distill__init": "random", "distill__networks": 2},
        {"distill__started_from": "real", "distill__images_per_step": 1, "distill__steps": 1},
        {"distill__label_rule": "softmax", "distill__optimizer__images_lr": 1e-3},
        {"distill__optimizer__labels_lr": 0.0, "distill__optimizer__rates_lr": 0.0},
        {"patch__border": True, "patch__stride": 24, "decision__rule": "soft"},
        {"distill__window": "random", "distill__window_steps": 1, "distill__memory": "nested"},
        {"distill__window": "adaptive", "distill__window_steps": 1, "distill__init": "random"},
        {"distill__rates": "order_free", "distill__augmentations": ("turn", "contrast")},
        {"distill__rates": "shared", "distill__synthesis": "tiles"},
        {"distill__synthesis": "bases", "distill__bases": 2, "distill__optimizer__ema_clip": 2.0},
        {"distill__inner": "adam", "distill__start_lr": 1e-3},
        {"distill__label_rule": "clipped", "distill__window": "last", "distill__window_steps": 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_way_to_distil_makes_a_package(changes, tmp_path):
    folder = distilling.distil(small_jobs.make(tmp_path, **changes))
    content = package.load(folder)
    assert (content.start is None) == ("distill__init" in changes)
    accuracy = content.manifest.results["balanced_patch_accuracy"]
    assert accuracy["n"] == (2 if content.start is None else 1)


def test_a_loss_that_explodes_and_stays_finite_is_told_and_packaged_by_force_alone(tmp_path):
    said = []
    make = functools.partial(small_jobs.make, tmp_path, said.append, distill__start_lr=1e4)
    for _ in range(2):  # started again, it says so again
        with pytest.raises(UserError, match=r"e\+\d\d after .* guessing costs 1\.1: .* --force"):
            distilling.distil(make())
        assert not (tmp_path / "package.gxd").exists()
    path = distilling.distil(make(), force=True)
    assert any("It is packaged nevertheless." in line for line in said)
    assert np.isfinite(package.load(path).distilled.images).all()


def test_a_workdir_in_use_is_refused_and_not_disturbed(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = small_jobs.content(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from gxdistill.jobs.workdir import Workdir\n"
        "with Workdir(Path(sys.argv[1])).locked('gxdistill distill'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"in use by process {other.pid}, gxdistill distill"):
            distilling.distil(small_jobs.make(tmp_path / "run"))
        other.stdin.close()
        assert other.wait() == 0
    assert small_jobs.content(tmp_path / "run") == before
    distilling.distil(small_jobs.make(tmp_path / "run"))
    assert small_jobs.content(tmp_path / "run") == before
