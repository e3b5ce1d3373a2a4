"""Trains the default ConvNet on a package in PyTorch alone; neither JAX nor gxdistill is needed.

gxdistill export FILE.gxd --to=pytorch-folder --out=FOLDER
python docs/train_in_pytorch.py FOLDER weights.npz
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own abbreviation.

folder = Path(sys.argv[1])
arrays = {file.stem: torch.from_numpy(np.load(file)) for file in folder.glob("*.npy")}
weights = {file.stem: torch.from_numpy(np.load(file)) for file in folder.glob("start/*.npy")}
inner = json.loads((folder / "manifest.json").read_text())["distillation"]["inner"]
decay = {"sgd": 0, "momentum": inner.get("decay")}[inner["name"]]  # Adam would be more lines
moves = {}


def network(w, x):  # three blocks; our last layer reads height, width, channels
    for i in range(3):
        x = F.conv2d(x, w[f"Conv_{i}.weight"], w[f"Conv_{i}.bias"], padding=1)
        x = F.instance_norm(x, weight=w[f"Norm_{i}.weight"], bias=w[f"Norm_{i}.bias"])
        x = F.avg_pool2d(F.relu(x), 2)
    return F.linear(x.permute(0, 2, 3, 1).flatten(1), w["Dense_0.weight"], w["Dense_0.bias"])


for step, rate in enumerate(arrays["learning_rates"]):
    batch = step % len(arrays["images"])
    weights = {name: weight.requires_grad_() for name, weight in weights.items()}
    loss = F.cross_entropy(network(weights, arrays["images"][batch]), arrays["labels"][batch])
    grads = zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True)
    moves = {name: decay * moves.get(name, 0) + grad for name, grad in grads}
    weights = {name: (weight - rate * moves[name]).detach() for name, weight in weights.items()}

np.savez(sys.argv[2], **{name: weight.numpy() for name, weight in weights.items()})
