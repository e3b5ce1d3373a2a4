"""The method in eager PyTorch: what `benchmarks.against_torch` compares ours with.

    python -m benchmarks.torch_peer --network=lenet --steps=10 --epochs=3 --networks=1 --images=10 \
        --batch=1024 --repeats=25

Written for this comparison from Wang et al. 2018, https://arxiv.org/abs/1811.10959, and as good as
eager PyTorch allows: no graph spans the inner loop. The forward pass keeps each step's weights and
the graph of its gradient; a hand-written backward pass goes through the steps from the last to the
first with one vector-Jacobian product each, and frees their graphs as it goes. Flags and figures
are those of `benchmarks.outer_step`. Neither JAX nor the package is imported, for their memory
would count.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own abbreviation.

from benchmarks.peak_memory import peak_rss_mb

Weights = list[torch.Tensor]
Apply = Callable[[Weights, torch.Tensor], torch.Tensor]


class Distilled(NamedTuple):
    """The compressed data set.

    Attributes:
      images: `[S, B, C, H, W]` float32.
      labels: `[S, B, K]` float32.
      log_lr: `[T]` float32, natural log of the inner learning rates.
    """

    images: torch.Tensor
    labels: torch.Tensor
    log_lr: torch.Tensor


class Network(NamedTuple):
    """A network as two functions.

    Attributes:
      shapes: of the weights, in pairs: kernel (or scale) and bias.
      apply: `(weights, images [N, C, H, W]) -> logits [N, K]`.
    """

    shapes: list[tuple[int, ...]]
    apply: Apply

    def init(self, generator: torch.Generator) -> Weights:
        """Draws kernels as Glorot & Bengio 2010; scales are 1 and biases 0."""
        weights = []
        for kernel, bias in zip(self.shapes[::2], self.shapes[1::2], strict=True):
            if len(kernel) == 1:
                weights += [torch.ones(kernel), torch.zeros(bias)]
                continue
            area = math.prod(kernel[2:])
            scale = math.sqrt(2 / (area * (kernel[0] + kernel[1])))
            weights += [scale * torch.randn(kernel, generator=generator), torch.zeros(bias)]
        return weights


def lenet(shape: tuple[int, int, int], classes: int) -> Network:
    """LeNet-5 with ReLU and max pooling, for images of `shape` `[C, H, W]`."""
    channels, height, width = shape
    flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    shapes: list[tuple[int, ...]] = [(6, channels, 5, 5), (6,), (16, 6, 5, 5), (16,)]
    for fan_in, fan_out in ((flat, 120), (120, 84), (84, classes)):
        shapes += [(fan_out, fan_in), (fan_out,)]

    def apply(w: Weights, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(F.conv2d(x, w[0], w[1], padding=2), 2))
        x = F.relu(F.max_pool2d(F.conv2d(x, w[2], w[3]), 2)).flatten(1)
        x = F.relu(F.linear(x, w[4], w[5]))
        x = F.relu(F.linear(x, w[6], w[7]))
        return F.linear(x, w[8], w[9])

    return Network(shapes, apply)


def convnet(shape: tuple[int, int, int], classes: int, width: int = 128, depth: int = 3) -> Network:
    """ConvNet with instance norm and average pooling, for images of `shape` `[C, H, W]`."""
    channels, high, wide = shape
    shapes: list[tuple[int, ...]] = []
    for block in range(depth):
        fan_in = width if block else channels
        shapes += [(width, fan_in, 3, 3), (width,), (width,), (width,)]
    shapes += [(classes, width * (high >> depth) * (wide >> depth)), (classes,)]

    def apply(w: Weights, x: torch.Tensor) -> torch.Tensor:
        for i in range(0, 4 * depth, 4):
            x = F.conv2d(x, w[i], w[i + 1], padding=1)
            x = F.avg_pool2d(F.relu(F.group_norm(x, width, w[i + 2], w[i + 3])), 2)
        return F.linear(x.flatten(1), w[-2], w[-1])

    return Network(shapes, apply)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Means - sum_k y_k log softmax(z)_k over the images, for labels of any kind."""
    return -(labels * F.log_softmax(logits, dim=1)).sum() / len(logits)


def meta_gradient(
    apply: Apply,
    weights: Weights,
    data: Distilled,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    window: int = 0,
) -> tuple[torch.Tensor, Distilled]:
    """Differentiates the loss on a real batch through the T steps of the inner training.

    Args:
      apply: of the network.
      weights: the initial ones.
      data: S batches, T rates.
      images: real, `[N, C, H, W]`.
      labels: of them, `[N]` integer.
      window: last steps that are differentiated; 0 for all.

    Returns:
      The loss, and the gradients by the fields of `data`.
    """
    rates = data.log_lr.exp()
    first = len(rates) - window if window else 0
    w, steps = [one.detach().requires_grad_() for one in weights], []
    for t, rate in enumerate(rates):
        x = data.images[t % len(data.images)].detach().requires_grad_()
        y = data.labels[t % len(data.images)].detach().requires_grad_()
        kept = t >= first
        grads = torch.autograd.grad(cross_entropy(apply(w, x), y), w, create_graph=kept)
        if kept:
            steps.append((x, y, w, grads))
        with torch.no_grad():
            moved = torch._foreach_sub(w, torch._foreach_mul(grads, rate))
        w = [one.requires_grad_() for one in moved]
    loss = F.cross_entropy(apply(w, images), labels)
    # dw is the loss's gradient by the weights after step t: w[t+1] = w[t] - rate[t] * grads[t].
    dw = list(torch.autograd.grad(loss, w))
    found = Distilled(*(torch.zeros_like(field) for field in data))
    for t in range(len(rates) - 1, first - 1, -1):
        x, y, w, grads = steps.pop()
        dots = [
            torch.dot(a.flatten(), b.detach().flatten()) for a, b in zip(dw, grads, strict=True)
        ]
        found.log_lr[t] = -rates[t] * torch.stack(dots).sum()
        dgrads = torch._foreach_mul(dw, -rates[t])
        dx, dy, *through = torch.autograd.grad(grads, [x, y, *w], dgrads)
        found.images[t % len(data.images)] += dx
        found.labels[t % len(data.images)] += dy
        torch._foreach_add_(dw, through)
    return loss.detach(), found


def _start(setting: argparse.Namespace, shape: tuple[int, int, int]) -> Distilled:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(setting.steps, setting.images, *shape, generator=generator)
    turns = torch.arange(setting.steps * setting.images).reshape(setting.steps, -1) % CLASSES
    rates = torch.full((setting.steps * setting.epochs,), math.log(0.02))
    return Distilled(images, F.one_hot(turns, CLASSES).float(), rates)


CLASSES = 10


def measure(setting: argparse.Namespace) -> dict[str, float]:
    """Times outer steps, Adam's update and fresh initial weights included; the first is left out.

    Returns:
      The figures, by the names of `benchmarks.outer_step`.
    """
    shape = (1, setting.image_size, setting.image_size)
    make = {"lenet": lenet, "convnet": convnet}[setting.network]
    network = make(shape, CLASSES, **({"width": setting.width} if setting.width else {}))
    generator = torch.Generator().manual_seed(1)
    real = torch.randn(setting.batch, *shape, generator=generator)
    labels = torch.arange(setting.batch) % CLASSES
    data = _start(setting, shape)
    adam = torch.optim.Adam(list(data), lr=0.01, betas=(0.5, 0.999))
    processor, clock = [], []
    for _ in range(setting.repeats + 1):
        began = time.process_time(), time.perf_counter()
        total = [torch.zeros_like(field) for field in data]
        for _ in range(setting.networks):
            weights = network.init(generator)
            _, grads = meta_gradient(
                network.apply, weights, data, real, labels, window=setting.window
            )
            torch._foreach_add_(total, list(grads), alpha=1 / setting.networks)
        for field, grad in zip(data, total, strict=True):
            field.grad = grad
        adam.step()
        processor.append(time.process_time() - began[0])
        clock.append(time.perf_counter() - began[1])
    return {
        "median_cpu_s": round(statistics.median(processor[1:]), 4),
        "median_s": round(statistics.median(clock[1:]), 4),
        "peak_rss_mb": peak_rss_mb(),
    }


def main() -> None:
    """Measures and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=("lenet", "convnet"), default="lenet")
    usual = {"steps": 10, "epochs": 3, "networks": 1, "images": 10, "batch": 1024}
    for name, value in (
        usual | {"image-size": 28, "width": 0, "threads": 0, "window": 0, "repeats": 25}
    ).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    setting = parser.parse_args()
    torch.set_num_threads(setting.threads or len(os.sched_getaffinity(0)))
    print(json.dumps(measure(setting)))


if __name__ == "__main__":
    main()
