"""A cohort of a hospital's size: how fast it is prepared, what its feeds give and hold in memory.

    python -m benchmarks.data_scale --record    # 200 phantoms of 2048 px

Made under --workdir: files of PNG and a prepared set (1.5 GB in all), kept for the next start; and,
for its memory, a set that has each record four times. Each
measurement is a process of its own. Rates are per second of processor time, so that they mean the
same on a busy machine: "on 2 cores" is two processors' seconds each second.
"""

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.peak_memory import peak_rss_mb
from benchmarks.record import ROOT, Measured, Recorder
from configs import gastric
from gxdistill import models, storage
from gxdistill.data import phantom
from gxdistill.data.prepared import reader
from gxdistill.errors import UserError
from gxdistill.jobs.job import Job
from gxdistill.jobs.workdir import Workdir
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Params
from gxdistill.runtime.console import log
from gxdistill.tasks.cohort import preparing
from gxdistill.training.losses import cross_entropy

_SIDE, _BATCH, _SMALL_BATCH = 2048, 256, 16
_FILLS, _STEPS = 40, 12


def write_phantoms(folder: Path, patients: int) -> None:
    """Writes phantoms and their masks as PNG, with a manifest."""
    if (folder / "manifest.csv").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    cohort = phantom.phantom_cohort(0, patients=patients, size=_SIDE)
    rows = []
    assert cohort.masks is not None
    for one, mask, name in zip(cohort.images, cohort.masks, cohort.names, strict=True):
        Image.fromarray(one[..., 0]).save(folder / f"{name}.png")
        Image.fromarray(mask).save(folder / f"{name}_mask.png")
    columns = {"label": "labels", "patient": "patients", "site": "sites", "split": "splits"}
    for i, name in enumerate(cohort.names):
        known = {field: getattr(cohort, column)[i] for field, column in columns.items()}
        rows.append({"image": f"{name}.png", "mask": f"{name}_mask.png", **known})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def repeat_set(place: Path, out: Path, times: int) -> None:
    """Makes a prepared set of `times` as many records, each of which is one of another set."""
    about, info = (
        storage.read_json(place / name) for name in ("metadata.json", "dataset_info.json")
    )
    with storage.fresh_folder(out) as fresh:
        for name in ("features.json", "label.labels.txt"):
            shutil.copy(place / name, fresh)
        files = {}
        for split in info["splits"]:
            shards = sorted(place.glob(f"*-{split['name']}.*")) * times
            for i, shard in enumerate(shards):
                stem = shard.name.partition(".")[0]
                name = f"{stem}.array_record-{i:05d}-of-{len(shards):05d}"
                os.link(shard, fresh / name)
                files[name] = about["files"][shard.name]
            split["shardLengths"] *= times
            split["numBytes"] = str(times * int(split["numBytes"]))
        for column in about["columns"].values():
            for split, values in column.items():
                column[split] = values * times
        (fresh / "dataset_info.json").write_text(storage.json_text(info))
        sealed = storage.seal(about | {"files": files})
        (fresh / "metadata.json").write_text(storage.json_text(sealed))


def _job(workdir: Path, path: Path, **data: Any) -> Job:
    config = gastric.get_config()
    config.data.update({"path": str(path), **data})
    return Job(config, Workdir(workdir), log)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def measure_prepare(workdir: Path, files: Path) -> dict[str, float]:
    """Prepares a cohort anew."""
    job = _job(workdir, files)
    wall, cpu = time.monotonic(), _cpu_s()
    preparing.prepare(job)
    wall, cpu = time.monotonic() - wall, _cpu_s() - cpu
    summary = json.loads((workdir / "cohort.json").read_text())
    patches: Counter[str] = Counter()
    for of in summary["patches"].values():
        patches.update(of)
    counts = {f"{name.replace('-', '_')}_patches": n for name, n in patches.items()}
    n = summary["images"]
    rates = {"images_per_s_of_2_cores": 2 * n / cpu, "images_per_s_by_the_clock": n / wall}
    return {"images": n, **rates, **counts}


def measure_feed(workdir: Path, place: Path, feed: str) -> dict[str, float]:
    """Fills batches of normalised patches, and holds what a feed holds."""
    job = _job(workdir, place, kind="prepared", feed=feed)
    draw, given, _ = job.cohorts.batches(_BATCH)
    batches, key = given(job.key(Use.LOOP), 0), job.key(Use.LOOP)
    # Each in the memory of the last, as the steps of one program: to ask the system for 90 MB anew
    # takes longer than to fill them.
    fill = jax.jit(lambda _, *feed: draw(*feed), donate_argnums=0, keep_unused=True)
    first = next(batches)
    shapes = jax.eval_shape(draw, first, key)
    batch = jax.tree.map(lambda of: jnp.zeros(of.shape, of.dtype), shapes)
    batch = jax.block_until_ready(fill(batch, first, key))
    del first  # would be held beside what the feed holds
    # Over all batches, not their median: images are read now and then, and ahead.
    begin = time.process_time()
    for step in range(_FILLS):
        batch = jax.block_until_ready(fill(batch, next(batches), jax.random.fold_in(key, step)))
    cpu = time.process_time() - begin
    batch_mb = _BATCH * job.config.patch.size**2 * 4 / 2**20
    return {
        "patches_per_cpu_s": _FILLS * _BATCH / cpu,
        "held_mb": round(peak_rss_mb() - batch_mb, 1),
    }


def measure_step(workdir: Path, place: Path, feed: str) -> dict[str, float]:
    """Trains a network on a feed and, in turn, on one batch again and again."""
    job = _job(workdir, place, kind="prepared", feed=feed)
    network = models.create(
        "convnet", shape=job.cohorts.shape, classes=job.cohorts.classes, width=32
    )
    draw, given, _ = job.cohorts.batches(_SMALL_BATCH)
    batches, key = given(job.key(Use.LOOP), 0), job.key(Use.LOOP)

    def loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        return cross_entropy(
            network.apply(params, images), jax.nn.one_hot(labels, job.cohorts.classes)
        )

    @jax.jit
    def update(params: Params, one: Any, key: jax.Array) -> Params:
        batch = draw(one, key)
        grads = jax.grad(loss)(params, batch.images, batch.targets)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)

    @jax.jit
    def update_same(params: Params, images: jax.Array, labels: jax.Array) -> Params:
        grads = jax.grad(loss)(params, images, labels)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads)

    params = network.init(key)
    same = jax.jit(draw)(next(batches), key)
    times: dict[str, list[float]] = {"fed": [], "reused": []}
    steps = {
        "fed": lambda params, i: update(params, next(batches), jax.random.fold_in(key, i)),
        "reused": lambda params, _: update_same(params, same.images, same.labels),
    }
    for step in steps.values():
        jax.block_until_ready(step(params, jnp.int32(0)))
    for i in range(_STEPS):
        for name, step in steps.items():
            begin = time.process_time()
            params = jax.block_until_ready(step(params, i))
            times[name].append(time.process_time() - begin)
    fed, reused = (float(np.mean(times[name])) for name in steps)
    return {"step_cpu_s": fed, "reused_step_cpu_s": reused, "step_ratio": fed / reused}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "prepare": measure_prepare,
    "feed": measure_feed,
    "step": measure_step,
}
STAGES = ("prepare", "resident", "streaming", "repeated")
_UNITS = {"_mb": "MiB", "_patches": "patches", "images": "images", "ratio": "1"}


def _apart(name: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.data_scale", "--only", name, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _unit(metric: str) -> str:
    if "_per_" in metric:
        return "1/s"
    return next((unit for end, unit in _UNITS.items() if metric.endswith(end)), "s")


def measure(stage: str, workdir: Path, patients: int) -> Iterator[tuple[str, float]]:
    """Measures one of `STAGES`; tells a figure as soon as it is known."""
    own, more = workdir / f"work_{patients}", workdir / f"repeated_{patients}"
    place = own / "prepared"
    if stage == "prepare":
        if own.exists():
            shutil.rmtree(own)
        yield from _named(stage, _apart("prepare", own, workdir / f"files_{patients}"))
    elif stage == "repeated":
        latest = reader.find_version(place)
        if latest is None:
            raise UserError(f"{place} holds no set yet. Measure `prepare` first.")
        if not more.exists():
            repeat_set(latest, more, 4)
        figures = _apart("feed", workdir, more, "streaming")
        yield "streaming_of_4_times_the_images_held_mb", figures["held_mb"]
    else:
        yield from _named(stage, _apart("feed", workdir, place, stage))
        yield from _named(stage, _apart("step", workdir, place, stage))


def _named(kind: str, figures: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    return ((f"{kind}_{metric}", value) for metric, value in figures.items())


def main() -> None:
    """Measures one thing or all; prints, and records where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/data_scale"))
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    Recorder.add_flags(parser)
    parser.add_argument("--measure", nargs="+", choices=STAGES, default=STAGES)
    arguments = parser.parse_args()
    if arguments.only:
        name, workdir, path, *rest = arguments.only
        print(json.dumps(MEASURES[name](Path(workdir).absolute(), Path(path).absolute(), *rest)))
        return
    workdir = arguments.workdir.absolute()
    write_phantoms(workdir / f"files_{arguments.patients}", arguments.patients)
    for stage in arguments.measure:
        recorder = Recorder("data_scale", arguments)
        for metric, value in measure(stage, workdir, arguments.patients):
            print(json.dumps({"case": "data_scale", "metric": metric, "value": value}), flush=True)
            recorder.add("data_scale", Measured(metric, value, unit=_unit(metric)))


if __name__ == "__main__":
    main()
