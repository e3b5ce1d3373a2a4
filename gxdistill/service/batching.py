"""Requests of several clients in one call of the network.

While a batch is computed, the requests that come meanwhile wait, and make up the next one: under
load batches fill by themselves, and a lone request waits for nobody.
"""

import asyncio
import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gxdistill.service.model import CompiledModel
from gxdistill.service.usage import Served

_FULL = 0.75  # Share of a batch from which on it is filled up.


@dataclasses.dataclass(frozen=True)
class Request:
    """Images that wait to be mapped.

    Attributes:
      model: that is to map them.
      images: `[N, H, W, C]` float32, N at most the model's largest size.
      served: what is to be counted of it.
      answer: gets `[N, H, W, K]`, or what went wrong.
    """

    model: CompiledModel
    images: np.ndarray
    served: Served
    answer: asyncio.Future[np.ndarray]


def worth_computing(counts: Sequence[int], sizes: Sequence[int]) -> int:
    """Chooses how many of the requests that wait are computed now, the first of them.

    Empty images that fill a batch up take as long as others. Where they would be more than a
    quarter, as many requests as fill the next smaller size are computed, and the rest goes next.

    Args:
      counts: images of each request, in their order; their sum is at most the largest size.
      sizes: that a batch may have, in ascending order.

    Returns:
      Number of requests: all, or fewer, but at least one where there is one.
    """
    total = sum(counts)
    if len(counts) < 2 or total >= _FULL * min(size for size in sizes if size >= total):
        return len(counts)
    enough = max((size for size in sizes if size < total), default=0)
    ends = list(itertools.accumulate(counts))
    return max(1, sum(end <= enough for end in ends))


class Batcher:
    """Runs what waits, batch after batch, in a thread of its own."""

    def __init__(
        self,
        count: Callable[[Sequence[Served]], None],
        computed: Callable[[int, int], None],
        *,
        together: bool = True,
    ):
        """Starts nothing yet.

        Args:
          count: writes down what was served, before it is answered.
          computed: told the images and the padding of each batch.
          together: whether several requests share a batch.
        """
        self._count, self._computed, self._together = count, computed, together
        self._waiting: collections.deque[Request] = collections.deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "network")

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    def submit(self, request: Request) -> None:
        """Has a request wait for its turn."""
        self._waiting.append(request)
        self._arrived.set()

    async def run(self) -> None:
        """Answers requests until it is cancelled; what waits then gets no answer."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                batch = self._next()
                if not batch:
                    self._arrived.clear()
                    continue
                try:
                    results = await loop.run_in_executor(self._thread, self._compute, batch)
                except Exception as error:  # of the network: the server goes on with the next
                    for request in batch:
                        if not request.answer.done():
                            request.answer.set_exception(error)
                    continue
                for request, result in zip(batch, results, strict=True):
                    if not request.answer.done():
                        request.answer.set_result(result)
        finally:
            self._thread.shutdown()

    def _next(self) -> list[Request]:
        """Takes the requests of one batch: of one model, in their order, as many as fit."""
        batch: list[Request] = []
        free = 0
        while self._waiting:
            request = self._waiting[0]
            if request.answer.done():  # Given up.
                self._waiting.popleft()
                continue
            if not batch:
                free = request.model.sizes[-1]
            is_next = not batch or (self._together and request.model is batch[0].model)
            if not is_next or len(request.images) > free:
                break
            batch.append(self._waiting.popleft())
            free -= len(request.images)
        if not batch:
            return batch
        counts = [len(request.images) for request in batch]
        kept = worth_computing(counts, batch[0].model.sizes)
        self._waiting.extendleft(reversed(batch[kept:]))
        return batch[:kept]

    def _compute(self, batch: list[Request]) -> list[np.ndarray]:
        images = np.concatenate([request.images for request in batch])
        result, padding = batch[0].model.run(images)
        self._count([request.served for request in batch])
        self._computed(len(images), padding)
        ends = np.cumsum([len(request.images) for request in batch])[:-1]
        return np.split(result, ends)
