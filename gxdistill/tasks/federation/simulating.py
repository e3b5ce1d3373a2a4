"""A federation on one machine: each site alone, all in one place, and together, side by side."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import storage
from gxdistill.evaluation import overlap
from gxdistill.jobs.cohorts import check_patch_fits
from gxdistill.jobs.devices import Stepper
from gxdistill.jobs.history import History
from gxdistill.jobs.job import Job
from gxdistill.jobs.loop import Run, Schedule
from gxdistill.jobs.problem import BatchSource
from gxdistill.models.cached import cached_network
from gxdistill.package.seeds import Use
from gxdistill.pytrees import Cohort, Metadata, Network, Params
from gxdistill.segmentation import tiling
from gxdistill.tasks.federation import hospitals, promises, starting, training
from gxdistill.tasks.federation.hospitals import Feed, Hospitals
from gxdistill.tasks.federation.promises import Promise
from gxdistill.tasks.federation.sharing import check_threshold
from gxdistill.tasks.federation.training import Sites
from gxdistill.training.steps import Loop

_OVERLAPS = {"dice": overlap.dice, "jaccard": overlap.jaccard}
_METRICS = (*_OVERLAPS, "accuracy")


class Contender(NamedTuple):
    """A training of the table.

    Attributes:
      name: of its folder.
      title: for people.
      loop: of its steps or rounds.
      feed: what it draws from.
      steps: how many.
      promise: to whom.
      sends: bytes that a site sends in a round; 0 where none is sent.
    """

    name: str
    title: str
    loop: Loop
    feed: Feed
    steps: int
    promise: Promise = promises.NONE
    sends: int = 0


def identity(job: Job) -> Metadata:
    """Tells all that the weights depend on."""
    return {**job.identity("federation"), **starting.identity_of(job.config)}


def simulate(job: Job) -> Metadata:
    """Trains all contenders, resuming where it was interrupted, and measures them on test patients.

    Args:
      job: whose cohort has sites and masks.

    Returns:
      The table, which `federation.json` in the working folder holds, too.

    Raises:
      UserError: the cohort does not do, the working folder is in use or of another job, or a
        training diverged.
    """
    with job.workdir.locked("gxdistill federate simulate"):
        job.workdir.check_same(identity(job))
        data = hospitals.of_job(job)
        settings = job.config.federation
        check_threshold("federation", settings, len(data.names))
        network = network_of(job, data)
        job.workdir.write_settings(identity(job))
        start = starting.start_of(job.config, network)
        rows = {}
        for contender in contenders(job, data, network, start):
            params = _train(job, contender, start)
            rows[contender.name] = {
                "title": contender.title,
                **_measured(job, network, params, data),
                **_promised(contender.promise),
                "bytes_a_round": contender.sends,
            }
        sites = {
            name: _counts(data, data.train.sites == name, data.test.sites == name)
            for name in data.names
        }
        result = {
            "sites": sites,
            "classes": list(data.classes),
            "rounds": settings.rounds,
            "contenders": rows,
        }
        storage.write_json(job.workdir / "federation.json", result)
        return result


def network_of(job: Job, data: Hospitals) -> Network:
    """Makes the network that is trained.

    Raises:
      UserError: it does not fit the crops, or these not the images.
    """
    config = job.config
    check_patch_fits(config, *data.train.images.shape[1:3])
    shape = (*(config.patch.size,) * 2, data.train.images.shape[-1])
    return cached_network(config.network.name, config.network.options, shape, len(data.classes))


def sites_of(job: Job, data: Hospitals) -> Sites:
    """Counts what a federation must know of its sites."""
    of_site = [data.train.sites == name for name in data.names]
    patients = [len(set(data.train.patients[rows].tolist())) for rows in of_site]
    images = np.array([rows.sum() for rows in of_site], float)
    weights = images if job.config.federation.weights == "images" else np.ones(len(of_site))
    return Sites(len(of_site), weights, max(patients), sum(patients))


def contenders(job: Job, data: Hospitals, network: Network, start: Params) -> Iterator[Contender]:
    """Lists the trainings, each site alone first."""
    config, settings = job.config, job.config.federation
    sites, sends = sites_of(job, data), training.upload_bytes(start)
    count = settings.rounds * settings.local_steps
    if settings.alone:
        for i, name in enumerate(data.names):
            feed = hospitals.place(data, (name,), config)
            loop = training.central(config, network, count)
            yield Contender(f"alone/{i}", f"{name} alone", loop, feed, count)
    if settings.central:
        feed = hospitals.place(data, ("",), config)
        # As many samples as all sites see together.
        loop = training.central(config, network, count * sites.count)
        yield Contender("central", "Central: all in one place", loop, feed, count * sites.count)
    feed = hospitals.place(data, data.names, config)
    loop = training.federated(config, network, sites, job.log)
    title = f"Federation of {sites.count} sites"
    yield Contender("federated", title, loop, feed, settings.rounds, sends=sends)
    if "site" in settings.protect:
        loop = training.federated(config, network, sites, job.log, protected=True)
        promise = promises.of_site(settings)
        noised = f"{title}, noise {settings.site.noise:g} on each site's update"
        yield Contender("site", noised, loop, feed, settings.rounds, promise, sends)
    if "patient" in settings.protect:
        promise, noise = promises.of_patient(settings, sites, job.key(Use.LOOP))
        loop = training.patient_level(config, network, sites, noise, job.log)
        parts = "gradients" if settings.patient.steps == 1 else "updates"
        noised = f"{title}, noise {noise:.3g} on the sum of patients' {parts}"
        yield Contender("patient", noised, loop, feed, settings.patient.rounds, promise, sends)


def _train(job: Job, contender: Contender, start: Params) -> Params:
    """Trains one contender, or goes on with it."""
    folder = job.workdir / "trainings" / contender.name
    feed, every = contender.feed, job.config.federation.checkpoint_every
    # A step is a round's part: their checkpoints are as far apart in time.
    is_rounds = contender.sends > 0
    source = BatchSource(lambda feed, _: feed, lambda *_: repeat(feed), reusable=True)
    run = Run(
        what=contender.title,
        stepper=Stepper(contender.loop, source, 1),
        schedule=Schedule(
            contender.steps, every if is_rounds else every * job.config.federation.local_steps
        ),
        checkpoints=folder / "checkpoints",
        log=job.log,
        history=History(folder / "history.jsonl"),
        identity=json.dumps(identity(job), sort_keys=True),
        advice="Lower federation.lr or federation.server_lr, and start in another --workdir.",
    )
    return run(contender.loop.init(start, job.key(Use.LOOP))).learned


def _measured(job: Job, network: Network, params: Params, data: Hospitals) -> Metadata:
    """Measures weights on the test patients, each as a whole, and on those of each site."""
    cohort, classes = data.test, len(data.classes)
    predicted = _predict(job, network, params, cohort)
    truth = np.asarray(cohort.masks).astype(np.uint8)
    patients = np.unique(cohort.patients)
    scores: dict[str, list[float]] = {name: [] for name in _METRICS}
    for patient in patients:
        rows = cohort.patients == patient
        # The slices of a patient are one volume.
        told, true = (masks[rows].reshape(1, -1, masks.shape[2]) for masks in (predicted, truth))
        for name, metric in _OVERLAPS.items():
            scores[name].append(float(metric(told, true, classes)[0, 1:].mean()))
        scores["accuracy"].append(float(overlap.pixel_accuracy(told, true)[0]))
    sites = np.array([cohort.sites[cohort.patients == patient][0] for patient in patients])
    dice = np.array(scores["dice"])
    return {
        **{name: float(np.mean(values)) for name, values in scores.items()},
        "patients": len(patients),
        "dice_by_site": {str(name): float(dice[sites == name].mean()) for name in np.unique(sites)},
    }


def _predict(job: Job, network: Network, params: Params, cohort: Cohort) -> np.ndarray:
    """Segments whole images, `[N, H, W]` uint8."""
    size = job.config.patch.size
    overlap = min(job.config.federation.overlap, size - 1)
    scale = hospitals.normalisation(cohort.images.shape[-1])
    return np.stack(
        [
            np.asarray(_segment(network.apply, size, overlap, params, scale(jnp.asarray(image))))
            for image in np.asarray(cohort.images)
        ]
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _segment(
    apply: Callable[[Params, jax.Array], jax.Array],
    size: int,
    overlap: int,
    params: Params,
    image: jax.Array,
) -> jax.Array:
    def seen(tiles: jax.Array) -> jax.Array:
        return jax.nn.softmax(apply(params, tiles), axis=-1)

    values = tiling.predict(seen, image, size=size, overlap=overlap)
    return values.argmax(-1).astype(jnp.uint8)


def _promised(promise: Promise) -> dict[str, Any]:
    if promise.account is None:
        return {"unit": None, "epsilon": None, "delta": None, "promise": promise.words}
    account = promise.account.to_dict()
    return {
        "unit": account["unit"],
        "epsilon": account["epsilon"],
        "delta": account["delta"],
        "promise": promise.words,
        "ledger": account,
    }


def _counts(data: Hospitals, train: np.ndarray, test: np.ndarray) -> dict[str, int]:
    return {
        "train_images": int(train.sum()),
        "train_patients": len(set(data.train.patients[train].tolist())),
        "test_images": int(test.sum()),
    }


def as_text(result: Metadata) -> str:
    """Writes the table for people: Dice beside unit, epsilon and delta."""
    rows = result["contenders"]
    width = max(len(row["title"]) for row in rows.values())
    head = f"{'':<{width}}   Dice  Jacc.   acc.  unit     epsilon    delta  sent a round"
    lines = [head]
    for row in rows.values():
        unit = row["unit"] or "-"
        spent = "-" if row["unit"] is None else _number(row["epsilon"])
        delta = "-" if row["delta"] is None else f"{row['delta']:g}"
        sent = f"{row['bytes_a_round'] / 1e6:.3g} MB" if row["bytes_a_round"] else "-"
        figures = "  ".join(f"{row[name]:.3f}" for name in _METRICS)
        lines.append(f"{row['title']:<{width}}  {figures}  {unit:<7} {spent:>8} {delta:>8}  {sent}")
    said = [row for row in rows.values() if row["unit"]]
    return "\n".join([*lines, *(f"{row['title']}: {row['promise']}" for row in said)])


def _number(epsilon: float | None) -> str:
    return "above 100" if epsilon is None else f"{epsilon:.3g}"
