"""One step of a U-Net's training in eager PyTorch: what `benchmarks.unet_step` is compared with.

    python -m benchmarks.torch_unet --width=16 --depth=3 --batch=8 --image-size=128 --repeats=9

Written for this comparison: the same layers, norms, loss and optimiser, as PyTorch has them.
Neither JAX nor the package is imported, for their memory would count.
"""

import argparse
import json
import os
import statistics
import time

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own abbreviation.
from torch import nn

from benchmarks.peak_memory import peak_rss_mb

CHANNELS, CLASSES = 3, 2
_GROUPS = 32  # Or as many as divide the channels.
_SMOOTH = 1.0


class Block(nn.Sequential):
    """Two 3x3 convolutions, each followed by group norm and ReLU."""

    def __init__(self, before: int, after: int):
        layers: list[nn.Module] = []
        groups = next(g for g in range(min(_GROUPS, after), 0, -1) if after % g == 0)
        for channels in (before, after):
            layers += [
                nn.Conv2d(channels, after, 3, padding=1, bias=False),
                nn.GroupNorm(groups, after),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """The U-Net of `gxdistill.models.unet`: `[N, C, H, W]` -> logits `[N, K, H, W]`."""

    def __init__(self, channels: int, classes: int, width: int, depth: int):
        super().__init__()
        features = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(Block, [channels, *features[:-1]], features))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * n, n, 2, stride=2) for n in features[:-1])
        self.joined = nn.ModuleList(Block(2 * n, n) for n in features[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gives each pixel its logits."""
        skipped = []
        for block in self.down[:-1]:
            skipped.append(block(x))
            x = F.max_pool2d(skipped[-1], 2)
        x = self.down[-1](x)
        for level in reversed(range(len(skipped))):
            x = self.joined[level](torch.cat([skipped[level], self.up[level](x)], 1))
        return self.head(x)


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Computes .5 (1 - soft Dice) + .5 cross-entropy, as `gxdistill.segmentation.losses`."""
    p = logits.softmax(1)[:, 1:]
    t = F.one_hot(labels, logits.shape[1]).permute(0, 3, 1, 2)[:, 1:].to(p.dtype)
    both, sizes = (p * t).sum((2, 3)), p.sum((2, 3)) + t.sum((2, 3))
    dice = ((2 * both + _SMOOTH) / (sizes + _SMOOTH)).mean()
    return (1 - dice + F.cross_entropy(logits, labels)) / 2


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Times steps, the first left out; figures as those of `benchmarks.unet_step`."""
    torch.manual_seed(0)
    network = UNet(CHANNELS, CLASSES, given.width, given.depth)
    side = given.image_size
    images = torch.randn(given.batch, CHANNELS, side, side)
    labels = torch.randint(0, CLASSES, (given.batch, side, side))
    if given.channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(network.parameters(), lr=0.002, weight_decay=0)
    processor, clock = [], []
    for _ in range(given.repeats + 1):
        began = time.process_time(), time.perf_counter()
        adam.zero_grad()
        segmentation_loss(network(images), labels).backward()
        adam.step()
        processor.append(time.process_time() - began[0])
        clock.append(time.perf_counter() - began[1])
    return {
        "median_cpu_s": round(statistics.median(processor[1:]), 4),
        "median_s": round(statistics.median(clock[1:]), 6),
        "peak_rss_mb": peak_rss_mb(),
    }


def main() -> None:
    """Measures and prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    usual = {"width": 16, "depth": 3, "batch": 8, "image-size": 128, "threads": 0, "repeats": 9}
    for name, value in usual.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--channels-last", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads or len(os.sched_getaffinity(0)))
    print(json.dumps(measure(given)))


if __name__ == "__main__":
    main()
