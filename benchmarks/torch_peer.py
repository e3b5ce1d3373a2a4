"""The method in PyTorch: what `benchmarks.against_torch` and `benchmarks.gpu` compare ours with.

    python -m benchmarks.torch_peer --network=lenet --steps=10 --epochs=3 --networks=1 --images=10 \
        --batch=1024 --repeats=25

Written for this comparison from Wang et al. 2018, https://arxiv.org/abs/1811.10959, and as good as
eager PyTorch allows: no graph spans the inner loop. The forward pass keeps each step's weights and
the graph of its gradient; a hand-written backward pass goes through the steps from the last to the
first with one vector-Jacobian product each, and frees their graphs as it goes.

`--compiled=default` compiles one inner step, the way back through it and the loss on real images by
`torch.compile`; the way back takes the step once more, for a compiled function keeps no graph.
`--compiled=reduce-overhead` replays them as CUDA graphs. On a GPU (`--device=cuda`) products of
float32 are those of TF32, as XLA's are by default, unless `--tf32=0`; clocks wait for the device.
Flags and figures are those of `benchmarks.outer_step`. Neither JAX nor the package is imported, for
their memory would count.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
        weights, device = [], generator.device
        for kernel, bias in zip(self.shapes[::2], self.shapes[1::2], strict=True):
            if len(kernel) == 1:
                weights += [torch.ones(kernel, device=device), torch.zeros(bias, device=device)]
                continue
            area = math.prod(kernel[2:])
            scale = math.sqrt(2 / (area * (kernel[0] + kernel[1])))
            drawn = torch.randn(kernel, generator=generator, device=device)
            weights += [scale * drawn, torch.zeros(bias, device=device)]
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
    w, steps = [leaf.detach().requires_grad_() for leaf in weights], []
    for t, rate in enumerate(rates):
        x = data.images[t % len(data.images)].detach().requires_grad_()
        y = data.labels[t % len(data.images)].detach().requires_grad_()
        kept = t >= first
        grads = torch.autograd.grad(cross_entropy(apply(w, x), y), w, create_graph=kept)
        if kept:
            steps.append((x, y, w, grads))
        with torch.no_grad():
            moved = torch._foreach_sub(w, torch._foreach_mul(grads, rate))
        w = [leaf.requires_grad_() for leaf in moved]
    loss = F.cross_entropy(apply(w, images), labels)
    # dw is the loss's gradient by the weights after step t: w[t+1] = w[t] - rate[t] * grads[t].
    dw = list(torch.autograd.grad(loss, w))
    gradient = Distilled(*(torch.zeros_like(field) for field in data))
    for t in range(len(rates) - 1, first - 1, -1):
        x, y, w, grads = steps.pop()
        dots = [
            torch.dot(a.flatten(), b.detach().flatten()) for a, b in zip(dw, grads, strict=True)
        ]
        gradient.log_lr[t] = -rates[t] * torch.stack(dots).sum()
        dgrads = torch._foreach_mul(dw, -rates[t])
        dx, dy, *through = torch.autograd.grad(grads, [x, y, *w], dgrads)
        gradient.images[t % len(data.images)] += dx
        gradient.labels[t % len(data.images)] += dy
        torch._foreach_add_(dw, through)
    return loss.detach(), gradient


MetaGradient = Callable[
    [Weights, Distilled, torch.Tensor, torch.Tensor], tuple[torch.Tensor, Distilled]
]


def compiled_meta_gradient(apply: Apply, *, window: int = 0, mode: str = "default") -> MetaGradient:
    """Makes `meta_gradient` of compiled functions: of a step, of the way back, of the real loss.

    Args:
      apply: of the network.
      window: last steps that are differentiated; 0 for all.
      mode: of `torch.compile`.

    Returns:
      `(weights, data, images, labels) -> (loss, gradients)`.
    """
    compile_ = partial(torch.compile, mode=mode, fullgraph=True, dynamic=False)

    def inner_loss(w: Weights, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(apply(w, x), y)

    def step(w: Weights, x: torch.Tensor, y: torch.Tensor, log_rate: torch.Tensor) -> Weights:
        grads = torch.func.grad(inner_loss)(w, x, y)
        return [a - log_rate.exp() * g for a, g in zip(w, grads, strict=True)]

    def back(dw: Weights, *inputs: Any) -> Any:
        return torch.func.vjp(step, *inputs)[1](dw)

    def real(w: Weights, x: torch.Tensor, labels: torch.Tensor) -> Any:
        return torch.func.grad_and_value(lambda w: F.cross_entropy(apply(w, x), labels))(w)

    ahead, through, judge = (compile_(function) for function in (step, back, real))

    def kept(tensors: Weights) -> Weights:  # A CUDA graph writes its next results over these.
        return [x.clone() for x in tensors] if mode == "reduce-overhead" else list(tensors)

    @torch.no_grad()
    def gradient(
        weights: Weights, data: Distilled, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, Distilled]:
        count, sets = len(data.log_lr), len(data.images)
        inputs = [
            (data.images[t % sets], data.labels[t % sets], data.log_lr[t]) for t in range(count)
        ]
        before, w = [], weights
        for batch in inputs:
            before.append(w)
            w = kept(ahead(w, *batch))
        dw, loss = judge(w, images, labels)
        dw, loss = kept(dw), loss.clone()
        gradients = Distilled(*(torch.zeros_like(field) for field in data))
        for t in range(count - 1, count - (window or count) - 1, -1):
            dw, dx, dy, dlog_rate = through(dw, before[t], *inputs[t])
            dw = kept(dw)
            gradients.images[t % sets] += dx
            gradients.labels[t % sets] += dy
            gradients.log_lr[t] = dlog_rate
        return loss, gradients

    return gradient


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
    device = torch.device(setting.device)
    real = torch.randn(setting.batch, *shape, generator=torch.Generator().manual_seed(1)).to(device)
    generator = torch.Generator(device).manual_seed(1)
    labels = torch.arange(setting.batch, device=device) % CLASSES
    data = Distilled(*(field.to(device) for field in _start(setting, shape)))
    if setting.compiled:
        gradient = compiled_meta_gradient(
            network.apply, window=setting.window, mode=setting.compiled
        )
    else:
        gradient = partial(meta_gradient, network.apply, window=setting.window)
    adam = torch.optim.Adam(list(data), lr=0.01, betas=(0.5, 0.999))
    processor, clock = [], []
    for _ in range(setting.repeats + 1):
        began = time.process_time(), time.perf_counter()
        total = [torch.zeros_like(field) for field in data]
        for _ in range(setting.networks):
            weights = network.init(generator)
            _, grads = gradient(weights, data, real, labels)
            torch._foreach_add_(total, list(grads), alpha=1 / setting.networks)
        for field, grad in zip(data, total, strict=True):
            field.grad = grad
        adam.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        processor.append(time.process_time() - began[0])
        clock.append(time.perf_counter() - began[1])
    on_device = {}
    if device.type == "cuda":
        on_device["device_peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
    return {
        "median_cpu_s": round(statistics.median(processor[1:]), 4),
        "median_s": round(statistics.median(clock[1:]), 6),
        "peak_rss_mb": peak_rss_mb(),
        **on_device,
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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compiled", choices=("default", "reduce-overhead"))
    parser.add_argument("--tf32", type=int, default=1)
    setting = parser.parse_args()
    torch.set_float32_matmul_precision("high" if setting.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = bool(setting.tf32)
    torch.set_num_threads(setting.threads or len(os.sched_getaffinity(0)))
    print(json.dumps(measure(setting)))


if __name__ == "__main__":
    main()
