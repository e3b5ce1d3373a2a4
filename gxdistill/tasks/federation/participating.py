"""A site of a federation: it trains on its own patients when it is asked, and sends an update."""

import hashlib
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill import models
from gxdistill.errors import UserError
from gxdistill.federated import exchange, rounds
from gxdistill.federated.exchange import Assignment, Packet
from gxdistill.federated.flower import supernode
from gxdistill.federated.flower.supernode import Connection
from gxdistill.federated.rounds import Upload
from gxdistill.jobs.cohorts import check_patch_fits
from gxdistill.jobs.job import Job
from gxdistill.jobs.segmenter_manifest import PACKAGE, manifest_of
from gxdistill.package.seeds import Use
from gxdistill.package.segmenter import Segmenter, SegmenterManifest, save_segmenter
from gxdistill.pytrees import Network, Params
from gxdistill.storage import checkpoint
from gxdistill.tasks.federation import agreement, hospitals, promises, training
from gxdistill.tasks.federation.hospitals import Feed, Hospitals
from gxdistill.tasks.federation.promises import Promise


def take_part(job: Job, name: str, connection: Connection) -> Path:
    """Takes part as a site until the server says that it is over, resuming where it was killed.

    Args:
      job: of the site.
      name: of the site.
      connection: to the server.

    Returns:
      The path of the segmenter, `segmenter.gxs`.

    Raises:
      UserError: a setting, the cohort or the connection does not do, or the working folder is in
        use.
    """
    with job.workdir.locked("gxdistill federate client"):
        site = Participant(job, name)
        supernode.take_part(connection, site, job.log)
        assert site.params is not None  # Else it were not over.
        path = job.workdir / PACKAGE
        manifest = _manifest(job, site.data, site.promise)
        save_segmenter(path, Segmenter(manifest, site.params))
        return path


def _manifest(job: Job, data: Hospitals, promise: Promise) -> SegmenterManifest:
    """Says what the segmenter is; its cohort is that of this site, for the others' is not known."""
    federation = job.config.federation
    return manifest_of(
        job,
        federation,
        privacy=f"Trained together with other sites. {promise.words}",
        normalisation=hospitals.normalisation(job.cohorts.geometry.channels),
        class_names=data.classes,
        overlap=min(federation.overlap, job.config.patch.size - 1),
        flips=False,
    )


class Participant:
    """Answers what a server asks of a site.

    A site that protects its update draws the noise anew for each answer, from the system's own
    source, and counts its answers across restarts: it gives no more than the promise is of. The
    very same question is given the very same answer again.

    Attributes:
      params: the weights at the end; None before the server sends them.
    """

    def __init__(self, job: Job, name: str):
        """Reads the site's patients; nothing is computed yet.

        Args:
          job: of the site.
          name: of the site.

        Raises:
          UserError: the cohort or a setting does not do.
        """
        agreement.check(job.config)
        self._job, self._data = job, hospitals.of_site(job, name)
        check_patch_fits(job.config, *self._data.train.images.shape[1:3])
        self._network = agreement.network_of(job.config)
        self._like = jax.eval_shape(self._network.init, job.key(Use.KNOWN))
        self._digest = agreement.digest_of(job.config)
        self._protection = agreement.protection_of(job.config)
        self._feed = hospitals.place(self._data, (name,), job.config)
        self._upload = _upload(job, self._network)
        self.params: Params | None = None

    @property
    def data(self) -> Hospitals:
        """The site's patients."""
        return self._data

    @property
    def promise(self) -> promises.Promise:
        """What the site's updates promise."""
        if self._protection is None:
            return promises.NONE
        return promises.of_site(self._job.config.federation)

    def __call__(self, packet: Packet) -> tuple[Packet, bool]:
        """Answers a packet of the server.

        Raises:
          RefusedError: it is not what the settings say.
          UserError: the promise is used up.
        """
        if packet.fields.get("kind") == "end":
            self.params = exchange.read_tree(packet, self._like)
            return Packet((), {"kind": "end"}), True
        count = self._job.config.federation.rounds
        asked = exchange.read_assignment(packet, self._like, self._digest, count)
        upload = self._plain(asked) if self._protection is None else self._protected(asked)
        images = len(self._data.train.patients)
        has_loss = self._protection is None
        self._job.log(f"round {asked.number + 1} of {count}: answered")
        return exchange.answer(asked.number, upload, images, loss=has_loss), False

    def _plain(self, asked: Assignment) -> Upload:
        return self._upload(asked, agreement.key_of(self._job.config), self._feed)

    def _protected(self, asked: Assignment) -> Upload:
        folder, question = self._job.workdir / "answers", _digest(asked)
        zero = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self._like)
        kept = checkpoint.restore(folder, Upload(zero, *np.zeros(2, np.float32)))
        given, upload, told = kept or (0, None, {})
        if upload is not None and told["question"] == question:
            return upload
        if given >= self._job.config.federation.rounds:
            raise UserError(
                f"This site answered {given} times, which is what its promise is of; an answer "
                f"more would cost more than that. Agree on another federation with the server."
            )
        # Secret, and never used twice: of two answers with the same noise the difference has none.
        bits = np.frombuffer(secrets.token_bytes(8), np.uint32)
        upload = self._upload(asked, jax.random.wrap_key_data(jnp.asarray(bits)), self._feed)
        # Before it leaves: a site that is killed right after has given it.
        checkpoint.save(folder, given + 1, upload, metadata={"question": question}, keep=1)
        return upload


def _upload(job: Job, network: Network) -> Callable[[Assignment, jax.Array, Feed], Upload]:
    config = job.config
    local, protection = training.site_training(config, network), agreement.protection_of(config)
    rate = training.SCHEDULES[config.federation.schedule](config.federation.rounds)
    draw = partial(hospitals.draw, config=config)

    @partial(jax.jit, compiler_options=models.compiler_options())
    def compute(
        params: Params, log_bound: jax.Array, number: jax.Array, site: jax.Array,
        key: jax.Array, feed: Feed,
    ) -> Upload:  # fmt: skip
        return rounds.site_round(
            local,
            protection,
            params,
            log_bound,
            lambda draw_key: draw(feed, jnp.int32(0), draw_key),
            key=rounds.site_key(key, number, site),
            scale=rate(number),
        )

    def upload(asked: Assignment, key: jax.Array, feed: Feed) -> Upload:
        number, site = jnp.int32(asked.number), jnp.int32(asked.site)
        return compute(asked.params, asked.log_bound, number, site, key, feed)

    return upload


def _digest(asked: Assignment) -> str:
    content = hashlib.sha256(f"{asked.number} {asked.site} {asked.log_bound!r}".encode())
    for leaf in jax.tree.leaves(asked.params):
        content.update(np.ascontiguousarray(leaf).tobytes())
    return content.hexdigest()
