"""What a running server holds: its models, who may ask, what was answered."""

import asyncio
import dataclasses
import hashlib
from collections.abc import Sequence

from gxdistill.service import protocol
from gxdistill.service.admission import Admission
from gxdistill.service.answers import Answers
from gxdistill.service.batching import Batcher, Request
from gxdistill.service.metrics import Metrics
from gxdistill.service.model import CompiledModel
from gxdistill.service.protocol import Limits, RefusedError
from gxdistill.service.tokens import Token, TokenFile
from gxdistill.service.usage import Served, Usage


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that was read.

    Attributes:
      token: of whoever asks.
      request: its identity.
      digest: of the model that is expected; None takes the present one.
      content: its body.
    """

    token: Token
    request: str
    digest: str | None
    content: bytes


class State:
    """All that requests share. Lives on the event loop; the network in the batcher's thread."""

    def __init__(self, tokens: TokenFile, usage: Usage, limits: Limits, *, together: bool = True):
        """Begins without a model, not ready.

        Args:
          tokens: who may ask.
          usage: journal of what was served.
          limits: see `Limits`.
          together: whether requests of several clients share a batch.
        """
        self.tokens, self.limits, self.metrics = tokens, limits, Metrics()
        self.admission, self.answers = Admission(limits), Answers(limits)
        self.batcher = Batcher(usage.count, self.metrics.computed, together=together)
        self.is_draining = False
        self._models: list[CompiledModel] = []  # The present one first.
        self.metrics.gauges |= {
            "requests_active": lambda: self.admission.active,
            "requests_waiting": lambda: self.batcher.waiting,
            "answers_remembered_bytes": lambda: self.answers.bytes,
            "ready": lambda: self.is_ready,
        }

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return bool(self._models) and not self.is_draining

    @property
    def model(self) -> CompiledModel:
        """The present model.

        Raises:
          RefusedError: 503, there is none yet.
        """
        if not self._models:
            raise RefusedError(503, "starting", "The server is starting. Ask later.", retry_after=1)
        return self._models[0]

    def take(self, model: CompiledModel) -> None:
        """Answers with a model from now on.

        The one before stays for requests that expect it, so that none under way is lost.
        """
        self._models = [model, *self._models[:1]]

    def _expected(self, digest: str | None) -> CompiledModel:
        if digest is None:
            return self.model
        for model in (self.model, *self._models[1:]):
            if model.model.digest == digest:
                return model
        raise RefusedError(
            412,
            "model",
            "The server has another model than the one that is expected. Ask its operator for "
            "the digest, and on another way.",
        )

    def check(self, digest: str | None, request: str) -> int:
        """Refuses a request by its header alone, before its body is read.

        Returns:
          Bytes that its body may take.
        """
        protocol.read_request_id(request)
        model = self._expected(digest)
        enough = protocol.body_bytes(model.model.shape, self._most(model))
        return min(self.limits.body_bytes, enough)

    def _most(self, model: CompiledModel) -> int:
        return min(self.limits.images, model.sizes[-1])

    async def answer(self, asked: Asked) -> tuple[bytes, str]:
        """Answers a request with the probabilities of its pixels' labels.

        Returns:
          The encoded array, and the digest of the model that made it.

        Raises:
          RefusedError: see there.
        """
        model = self._expected(asked.digest)
        digest = model.model.digest
        most = self._most(model)
        asked_for = hashlib.sha256(f"{asked.digest}\n".encode() + asked.content).digest()

        async def make() -> bytes:
            images = protocol.decode(asked.content, protocol.IMAGES, model.model.shape, most)
            served = Served(asked.token.id, asked.request, len(images))
            future = asyncio.get_running_loop().create_future()
            self.batcher.submit(Request(model, images, served, future))
            try:
                async with asyncio.timeout(self.limits.answer_s):
                    result = await future
            except TimeoutError as error:
                raise RefusedError(
                    504, "late", "The answer took too long. Ask later.", retry_after=1
                ) from error
            return digest.encode() + protocol.encode(protocol.PROBABILITIES, result)

        # With the digest: what is remembered may be of a model that has been replaced since.
        whole = await self.answers.get((asked.token.id, asked.request), asked_for, make)
        return whole[64:], whole[:64].decode()

    def describe(self) -> dict[str, object]:
        """Tells clients what they may send."""
        model = self.model
        return {
            "digest": model.model.digest,
            "shape": list(model.model.shape),
            "classes": list(model.model.classes),
            "images": self._most(model),
        }

    def digests(self) -> Sequence[str]:
        """Names the models that answer, the present one first."""
        return [model.model.digest for model in self._models]
