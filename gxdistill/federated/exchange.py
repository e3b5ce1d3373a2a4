"""What a server and its sites say to each other in a round, and what is taken of an answer.

The network is a `Link`; all that comes from it is a stranger's, and is checked here against what
the settings say it must be: number, shapes and dtypes of its arrays, finite values, the round.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from gxdistill.federated.rounds import ServerState, Upload
from gxdistill.pytrees import Params
from gxdistill.training.steps import LoopState

MOST_IMAGES = 10**7  # That a site may weigh by.

_CLASS = re.compile(r"[A-Za-z_]\w{0,60}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Fields = Mapping[str, int | float | str]


class RefusedError(ValueError):
    """What came over the network is not what was asked for; the text is safe to show and to log."""


class Packet(NamedTuple):
    """A message.

    Attributes:
      arrays: the leaves of a pytree, in its order.
      fields: what stands beside them.
    """

    arrays: Sequence[np.ndarray]
    fields: Fields


class Assignment(NamedTuple):
    """What a server asks of a site.

    Attributes:
      number: of the round, from 0 on.
      site: number of the site among all, which its random draws depend on.
      params: the server's weights.
      log_bound: see `rounds.ServerState`.
    """

    number: int
    site: int
    params: Params
    log_bound: jax.Array


class Answer(NamedTuple):
    """What a site answers.

    Attributes:
      upload: see `rounds.site_round`.
      images: how many it has, for its weight in the mean.
    """

    upload: Upload
    images: int


class Link(Protocol):
    """A connection of a server with the sites that are registered, by their names."""

    def present(self) -> frozenset[str]:
        """Tells which sites can be reached at the moment."""
        ...

    def exchange(
        self, packets: Mapping[str, Packet], timeout: float
    ) -> Mapping[str, "Packet | RefusedError"]:
        """Sends packets and waits for their answers, `timeout` seconds at most.

        Returns:
          The answer of each site that gave one in time, or why it cannot be read.
        """
        ...


def assign(state: LoopState, site: int, settings: str) -> Packet:
    """Packs what a site needs for a round.

    Args:
      state: the server's.
      site: number of the site.
      settings: SHA-256 of what both sides must agree on.
    """
    bound: ServerState = state.opt_state
    fields: Fields = {
        "kind": "round",
        "round": int(state.step),
        "site": site,
        "log_bound": float(bound.log_bound),
        "settings": settings,
    }
    return Packet(_leaves(state.learned), fields)


def end(params: Params) -> Packet:
    """Packs the last message to a site: the weights at the end."""
    return Packet(_leaves(params), {"kind": "end"})


def read_assignment(packet: Packet, like: Params, settings: str, rounds: int) -> Assignment:
    """Reads what a server asks for.

    Args:
      packet: of the network.
      like: weights of the shapes and dtypes that are expected; values do not matter.
      settings: SHA-256 of the site's own.
      rounds: of the federation.

    Raises:
      RefusedError: it is not what the settings say.
    """
    theirs = packet.fields.get("settings")
    if theirs != settings:
        digest = theirs if isinstance(theirs, str) and _DIGEST.fullmatch(theirs) else "none"
        raise RefusedError(f"the server's settings are others (digest {digest[:12]})")
    number = _whole(packet, "round", 0, rounds - 1)
    site = _whole(packet, "site", 0, 2**16)
    log_bound = jnp.float32(_finite(packet, "log_bound"))
    return Assignment(number, site, read_tree(packet, like), log_bound)


def answer(number: int, upload: Upload, images: int, *, loss: bool) -> Packet:
    """Packs what a site sends.

    Args:
      number: of the round.
      upload: of the site.
      images: how many the site has.
      loss: whether the loss is told, which no noise protects.
    """
    fields: Fields = {
        "kind": "upload",
        "round": number,
        "images": images,
        "bit": float(upload.bit),
        "loss": float(upload.loss) if loss else 0.0,
    }
    return Packet(_leaves(upload.update), fields)


def fault(error: BaseException) -> Packet:
    """Packs what a site says of its own failure: the class of the exception and nothing else.

    Its text may name files and patients.
    """
    return Packet((), {"kind": "fault", "class": type(error).__name__})


def read_answer(packet: Packet, like: Params, number: int) -> Answer:
    """Reads what a site sent.

    Args:
      packet: of the network.
      like: weights of the shapes and dtypes that are expected.
      number: of the round that it was asked for.

    Raises:
      RefusedError: it is not what was asked for.
    """
    kind = packet.fields.get("kind")
    if kind == "fault":
        name = packet.fields.get("class")
        shown = name if isinstance(name, str) and _CLASS.fullmatch(name) else "an error"
        raise RefusedError(f"it failed with {shown}")
    if kind != "upload":
        raise RefusedError("its answer is no upload")
    stale = packet.fields.get("round")
    if stale != number or isinstance(stale, bool):
        shown = (
            f"round {stale + 1}" if isinstance(stale, int) and abs(stale) < 2**31 else "no round"
        )
        raise RefusedError(f"its answer is for {shown}, not for round {number + 1}")
    images = _whole(packet, "images", 1, MOST_IMAGES)
    bit, loss = (jnp.float32(_finite(packet, name)) for name in ("bit", "loss"))
    return Answer(Upload(read_tree(packet, like), bit, loss), images)


def read_tree(packet: Packet, like: Params) -> Params:
    """Reads the arrays of a packet as a pytree of finite numbers.

    Raises:
      RefusedError: they are too many or too few, of other shapes or dtypes, or not finite.
    """
    leaves, structure = jax.tree.flatten(like)
    if len(packet.arrays) != len(leaves):
        raise RefusedError(f"{len(packet.arrays)} arrays came, not {len(leaves)}")
    for i, (array, leaf) in enumerate(zip(packet.arrays, leaves, strict=True)):
        if array.shape != leaf.shape:
            raise RefusedError(f"array {i} is of shape {list(array.shape)}, not {list(leaf.shape)}")
        if array.dtype != leaf.dtype:
            raise RefusedError(f"array {i} is of {array.dtype}, not {leaf.dtype}")
        if not np.isfinite(array).all():
            raise RefusedError(f"array {i} holds a number that is not finite")
    return jax.tree.unflatten(structure, packet.arrays)


def gather(
    link: Link,
    packets: Mapping[str, Packet],
    read: Callable[[Packet], Any],
    timeout: float,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Sends packets, and sorts out the answers.

    Args:
      link: to the sites.
      packets: for each site that is asked.
      read: reads an answer, or raises `RefusedError`.
      timeout: seconds.

    Returns:
      What was read, by site, in the order of `packets`; and why each other one is left out.
    """
    came = link.exchange(packets, timeout)
    answers, left_out = {}, {}
    for name in packets:
        try:
            if name not in came:
                raise RefusedError(f"it did not answer within {timeout:g} s")
            packet = came[name]
            if isinstance(packet, RefusedError):
                raise packet
            answers[name] = read(packet)
        except RefusedError as refused:
            left_out[name] = str(refused)
    return answers, left_out


def _leaves(tree: Params) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _whole(packet: Packet, name: str, low: int, high: int) -> int:
    value = packet.fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RefusedError(f"its `{name}` is no whole number from {low} to {high}")
    return value


def _finite(packet: Packet, name: str) -> float:
    value = packet.fields.get(name)
    if not isinstance(value, float) or not abs(value) <= float(np.finfo(np.float32).max):
        raise RefusedError(f"its `{name}` is no finite number")
    return value
