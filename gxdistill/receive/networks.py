"""The receiving side: networks from a package alone, with no access to the private data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gxdistill import models, package, storage
from gxdistill.distill import inner, replay
from gxdistill.distill.views import View, as_learned
from gxdistill.errors import UserError
from gxdistill.models.cached import cached_network
from gxdistill.package import cost, proof, shared_values
from gxdistill.package.seeds import Use
from gxdistill.package.seeds import key as job_key
from gxdistill.pytrees import Metadata, Network, Params
from gxdistill.receive.budget import DEFAULT, Budget, check
from gxdistill.runtime.console import Log, Progress, hush
from gxdistill.runtime.environment import pinned

_FRESH = 5  # Networks that are trained where no number is asked for.


class Trained(NamedTuple):
    """Networks that were trained on a package.

    Attributes:
      network: what they are.
      params: weights, each leaf with a leading axis R.
      record: how they came to be, as JSON can hold it.
    """

    network: Network
    params: Params
    record: Metadata


def network_of(
    about: package.About, name: str | None = None
) -> tuple[Network, package.NetworkChoice]:
    """Creates the network that a manifest names, or another one of the zoo for its patches.

    Returns:
      The network, and its name and options.

    Raises:
      UserError: the name is unknown or the network does not fit the patches.
    """
    chosen = about.network
    if name is not None and name != chosen.name:
        if name not in models.NAMES:
            raise UserError(f"network: {name!r}; it must be one of {', '.join(models.NAMES)}.")
        chosen = package.NetworkChoice(name, {})
    classes = len(about.class_names)
    return cached_network(chosen.name, chosen.options, about.patch.shape, classes), chosen


@pinned()
def train_networks(
    path: Path,
    *,
    count: int | None = None,
    fresh: int | None = None,
    seed: int | None = None,
    name: str | None = None,
    may_diverge: bool = False,
    budget: Budget = DEFAULT,
    log: Log = hush,
) -> Trained:
    """Trains the networks of a package.

    A package with a known init gives its one network, unless a number, a seed or a network is asked
    for; then, as for any other package, fresh networks are trained: by replaying it, or, if they
    are of another kind than it was made with and its rates are not `inner.SCALE_FREE`, as
    `replay.ordinary` does.

    Args:
      path: file of the package.
      count: R, number of fresh networks; None is one of a known init, and else `fresh`.
      fresh: see `count`; None is 5.
      seed: of their initial weights; None is 0.
      name: network of the zoo; None takes the package's own.
      may_diverge: also returns weights that are not finite.
      budget: the most that it may take, by an estimate.
      log: told the progress.

    Returns:
      The trained networks.

    Raises:
      UserError: the package cannot be read, would take more than the budget, or a network diverged.
    """
    content = package.load(path)
    start = _chosen_start(content, count, fresh, seed, others=name is not None)
    return _trained(content, name, start, may_diverge=may_diverge, budget=budget, log=log)


def _trained(
    content: package.Package,
    name: str | None,
    start: Metadata,
    *,
    may_diverge: bool,
    budget: Budget,
    log: Log,
) -> Trained:
    manifest = content.manifest
    network, chosen = network_of(manifest, name)
    record: dict[str, Any] = {"network": package.to_json(chosen), "package": content.sha256}
    record |= start
    how = manifest.distillation.inner["name"]
    ordinary = chosen.name != manifest.network.name and how not in inner.SCALE_FREE
    what = f"training {record['count']} network(s) {chosen.name} on {manifest.name[:60]}"
    check(what, cost.of_training(manifest, network, record["count"], ordinary=ordinary), budget)
    train = _as_any_data if ordinary else replay_package
    log(what)
    clock = Progress(log, what)
    params = train(content, network, record, may_diverge=may_diverge, progress=clock)
    if record["init"] == "known" and manifest.proof is not None:
        known = jax.tree.map(lambda leaf: leaf[0], params)
        record["proof"] = proof.check(manifest.proof, network, known, manifest.patch.shape)
    return Trained(network, params, record)


def _chosen_start(
    content: package.Package,
    count: int | None,
    fresh: int | None,
    seed: int | None,
    *,
    others: bool,
) -> Metadata:
    """Chooses initial weights, as `Trained.record` tells them; `others`: networks are named."""
    if count is not None and count < 1:
        raise UserError(f"{count} networks cannot be trained; ask for 1 or more.")
    if content.manifest.init.is_known and count is None and seed is None and not others:
        return {"init": "known", "count": 1, "seed": None}
    return {"init": "fresh", "count": count or fresh or _FRESH, "seed": seed or 0}


def replay_package(
    content: package.Package,
    network: Network,
    record: Metadata,
    *,
    view: View = as_learned,
    rule: str | None = None,
    may_diverge: bool = True,
    progress: Progress | None = None,
) -> Params:
    """Trains networks as a package says, from the starts that a record names.

    Args:
      content: of the package.
      network: what is trained.
      record: `init` ("known" or "fresh"), `count` and `seed`, as `Trained` holds them.
      view: what of the distilled data is trained on, see `distill.views`.
      rule: how its labels are read, see `distill.init.from_images`; None is as the package says.
      may_diverge: also returns weights that are not finite: what a receiver would get.
      progress: called between networks with the number of them done and of all.

    Returns:
      Weights, each leaf with a leading axis R.

    Raises:
      UserError: a network diverged.
    """
    keys = _keys(record)
    known = record["init"] == "known"
    loop = content.manifest.distillation
    method = {"rule": rule or loop.label_rule, "inner": inner.create(**loop.inner)}
    method["augmentations"] = loop.augmentations
    distilled = jax.tree.map(jnp.asarray, content.distilled)
    trained: list[Params] = []
    for key in keys:
        start = known_start(content, network) if known else network.init(key)
        seen, draws = view(distilled, key), replay.draws_of(key)
        if progress is not None and trained:
            jax.block_until_ready(trained[-1])
            progress(len(trained), len(keys))
        trained.append(replay.replay(network, start, seen, draws, **method))
    return _checked(trained, may_diverge)


def _keys(record: Metadata) -> jax.Array:
    # Under a number of their own: `split(key, n)[i]` is `fold_in(key, i)`, which for the sender's
    # seed would be the key of another use, as that of the known start.
    root = jax.random.fold_in(jax.random.key(record["seed"] or 0), int(Use.FRESH))
    return jax.random.split(root, record["count"])


def _as_any_data(
    content: package.Package,
    network: Network,
    record: Metadata,
    *,
    may_diverge: bool,
    progress: Progress,
) -> Params:
    """Trains networks that a package's rates do not suit; arguments as of `replay_package`.

    `progress` is called with the number of steps done and of all.
    """
    distilled = jax.tree.map(jnp.asarray, content.distilled)
    rule = content.manifest.distillation.label_rule
    keys = _keys(record)
    trained: list[Params] = []

    def step(done: int) -> None:
        progress(len(trained) * replay.STEPS + done, len(keys) * replay.STEPS)

    for key in keys:
        start, draws = network.init(key), replay.draws_of(key)
        trained.append(replay.ordinary(network, start, distilled, draws, rule=rule, progress=step))
    return _checked(trained, may_diverge)


def _checked(trained: list[Params], may_diverge: bool) -> Params:
    if not may_diverge:
        replay.check_finite(trained)
    return replay.stacked(trained)


@pinned()
def from_weights(path: Path, *, budget: Budget = DEFAULT) -> Trained:
    """Restores the one network of a file of essential weights.

    Raises:
      UserError: the file cannot be read, is not of the network that it names, or would take more
        than the budget.
    """
    manifest, codes, digest = package.load_weights(path)
    network, chosen = network_of(manifest)
    check(f"restoring the network of {path}", cost.of_restoring(network), budget)
    key = _known_key(manifest.init)
    try:
        coded = shared_values.unpack(codes, jax.eval_shape(network.init, key))
    except ValueError as error:
        raise UserError(f"{path}: {error}. Get a fresh copy.") from error
    params = shared_values.restored(network.init(key), coded)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise UserError(f"{path} gives weights that are not finite. Ask for another file.")
    record: dict[str, Any] = {"network": package.to_json(chosen), "package": digest}
    record |= {"init": "weights", "count": 1, "seed": manifest.init.seed}
    if manifest.proof is not None:
        record["proof"] = proof.check(manifest.proof, network, params, manifest.patch.shape)
    return Trained(network, jax.tree.map(lambda leaf: leaf[None], params), record)


def known_start(content: package.Package, network: Network) -> Params:
    """Returns the initial weights of a known or seeded init: out of the package, or drawn anew.

    Raises:
      ValueError: the init is random.
    """
    if content.start is not None:
        return content.start
    return network.init(_known_key(content.manifest.init))


def _known_key(init: package.Init) -> jax.Array:
    if init.seed is None:
        raise ValueError("Random initial weights have no seed: draw fresh ones instead.")
    return job_key(init.seed, Use.KNOWN)


@pinned()
def train_each(
    path: Path,
    names: Sequence[str],
    *,
    count: int | None = None,
    fresh: int | None = None,
    seed: int | None = None,
    budget: Budget = DEFAULT,
    log: Log = hush,
) -> list[Trained]:
    """Replays a package into networks it was distilled with and others, to be compared.

    Diverged networks are not left out: they are what a receiver would get.

    Args:
      path: folder of the package.
      names: networks of the zoo; none for the package's own alone.
      count: see `train_networks`.
      fresh: see `train_networks`.
      seed: see `train_networks`.
      budget: the most that each kind may take, by an estimate.
      log: told the progress.

    Returns:
      The trained networks, the package's own first, if it is among them.

    Raises:
      UserError: the package cannot be read, or a network does not fit it.
    """
    content = package.load(path)
    first = content.manifest.network.name
    order = sorted(dict.fromkeys(names or [first]), key=lambda name: name != first)
    start = _chosen_start(content, count, fresh, seed, others=True)
    return [
        _trained(content, name, start, may_diverge=True, budget=budget, log=log) for name in order
    ]


def save_networks(folder: Path, trained: Trained) -> None:
    """Writes trained networks: their arrays by Orbax, and `networks.json`."""
    with storage.fresh_folder(folder) as fresh:
        arrays = storage.save_arrays(fresh / "arrays", trained.params)
        record = storage.seal({**trained.record, "arrays": arrays})
        storage.write_json(fresh / "networks.json", record)


def load_networks(folder: Path, path: Path) -> Trained:
    """Reads what `save_networks` wrote.

    Args:
      folder: of the networks.
      path: file of the package that they should come from.

    Raises:
      UserError: they cannot be read, or come from another package.
    """
    folder = storage.find_folder(folder)
    record = storage.read_json(folder / "networks.json")
    storage.check_seal(record, folder / "networks.json")
    content = package.load(path)
    if record.get("package") != content.sha256:
        raise UserError(
            f"The networks in {folder} were not trained on {path}. Run `gxdistill train` again."
        )
    network, _ = network_of(content.manifest, record["network"]["name"])
    params = storage.load_arrays(folder / "arrays", record.pop("arrays"))
    del record["sha256"]
    return Trained(network, params, record)


def log_networks(trained: Trained, log: Log) -> None:
    """Tells people what was trained."""
    record = trained.record
    start = "the known start" if record["init"] == "known" else f"seed {record['seed']}"
    done = "restored" if record["init"] == "weights" else "trained"
    log(f"{done} {record['count']} {record['network']['name']} network(s) from {start}")
    if "proof" in record:
        log(proof.describe(record["proof"]))
