"""Trained networks for programs that know nothing of this one: safetensors and ONNX."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gxdistill import package, storage
from gxdistill.errors import UserError
from gxdistill.models.layers import NORM_EPSILON, groups_of
from gxdistill.package.start_weights import leaves
from gxdistill.pytrees import Params
from gxdistill.receive.networks import Trained

_OPSET, _IR = 17, 8  # Of 2022: what runs ONNX today runs these.


class _Graph:
    """Nodes and constants of an ONNX graph under construction; images are `[N, C, H, W]`."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        whole = np.ascontiguousarray(array)
        self.constants.append(self._numpy_helper.from_array(whole, name))
        return name

    def floats(self, array: Any, shape: tuple[int, ...] | None = None) -> str:
        values = np.asarray(array, np.float32)
        return self.constant(values if shape is None else values.reshape(shape))

    def apply(self, operator: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        name = to or f"value_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operator, inputs, [name], **attributes))
        return name


def _conv(graph: _Graph, x: str, of: Params, *, stride: int = 1, padding: str = "SAME") -> str:
    kernel = np.asarray(of["kernel"], np.float32).transpose(3, 2, 0, 1)
    inputs = [x, graph.floats(kernel)]
    if "bias" in of:
        inputs.append(graph.floats(of["bias"]))
    # SAME_UPPER puts an odd pixel of padding behind, as XLA does.
    pads = "SAME_UPPER" if padding == "SAME" else "VALID"
    return graph.apply(
        "Conv", *inputs, strides=[stride] * 2, kernel_shape=list(kernel.shape[2:]), auto_pad=pads
    )


def _norm(graph: _Graph, x: str, of: Params, groups: Callable[[int], int]) -> str:
    channels = len(of["scale"])
    count = groups(channels)
    by_group = graph.constant(np.array([0, count, -1], np.int64))
    ones, zeros = graph.floats(np.ones(count)), graph.floats(np.zeros(count))
    flat = graph.apply("Reshape", x, by_group)
    normal = graph.apply("InstanceNormalization", flat, ones, zeros, epsilon=NORM_EPSILON)
    whole = graph.apply("Reshape", normal, graph.apply("Shape", x))
    scaled = graph.apply("Mul", whole, graph.floats(of["scale"], (1, channels, 1, 1)))
    return graph.apply("Add", scaled, graph.floats(of["bias"], (1, channels, 1, 1)))


def _pool(graph: _Graph, x: str, kind: str) -> str:
    return graph.apply(kind, x, kernel_shape=[2, 2], strides=[2, 2])


def _dense(graph: _Graph, x: str, of: Params) -> str:
    return graph.apply("Gemm", x, graph.floats(of["kernel"]), graph.floats(of["bias"]))


def _flatten(graph: _Graph, x: str) -> str:
    # Pixels before channels, as the weights of the dense layer know them.
    return graph.apply("Flatten", graph.apply("Transpose", x, perm=[0, 2, 3, 1]))


def _lenet(graph: _Graph, x: str, params: Params, _: Mapping[str, Any], __: int) -> str:
    for name, padding in (("Conv_0", "SAME"), ("Conv_1", "VALID")):
        x = _pool(graph, _conv(graph, x, params[name], padding=padding), "MaxPool")
        x = graph.apply("Relu", x)
    x = _flatten(graph, x)
    for name in ("Dense_0", "Dense_1"):
        x = graph.apply("Relu", _dense(graph, x, params[name]))
    return _dense(graph, x, params["Dense_2"])


def _convnet(graph: _Graph, x: str, params: Params, options: Mapping[str, Any], _: int) -> str:
    kind = options.get("norm", "instance")
    groups = groups_of if kind == "group" else lambda channels: channels
    for block in range(options.get("depth", 3)):
        x = _conv(graph, x, params[f"Conv_{block}"])
        x = x if kind == "none" else _norm(graph, x, params[f"Norm_{block}"], groups)
        x = _pool(graph, graph.apply("Relu", x), "AveragePool")
    return _dense(graph, _flatten(graph, x), params["Dense_0"])


def _block(graph: _Graph, x: str, params: Params, stride: int) -> str:
    y = _norm(graph, _conv(graph, x, params["Conv_0"], stride=stride), params["Norm_0"], groups_of)
    y = _conv(graph, graph.apply("Relu", y), params["Conv_1"])
    y = _norm(graph, y, params["Norm_1"], groups_of)
    if "Conv_2" in params:
        x = _conv(graph, x, params["Conv_2"], stride=stride)
        x = _norm(graph, x, params["Norm_2"], groups_of)
    return graph.apply("Relu", graph.apply("Add", x, y))


def _resnet(graph: _Graph, x: str, params: Params, options: Mapping[str, Any], side: int) -> str:
    x = _conv(graph, x, params["Conv_0"], stride=1 if side < 64 else 2)
    x = graph.apply("Relu", _norm(graph, x, params["Norm_0"], groups_of))
    x = x if side < 64 else _pool(graph, x, "MaxPool")
    block = 0
    for stage, count in enumerate(options.get("stages", (2, 2, 2, 2))):
        for place in range(count):
            stride = 2 if stage > 0 and place == 0 else 1
            x = _block(graph, x, params[f"Block_{block}"], stride)
            block += 1
    return _dense(
        graph, graph.apply("Flatten", graph.apply("GlobalAveragePool", x)), params["Dense_0"]
    )


_BODIES = {"lenet": _lenet, "convnet": _convnet, "resnet18": _resnet}


def _metadata(about: package.About, network: Mapping[str, Any]) -> dict[str, str]:
    scale = about.normalisation
    return {
        "input": "pixels, float32 [N, C, H, W], 0 black to 255 white",
        "normalisation": "inside: (pixels / 255 - mean) / std",
        "mean": storage.json_text(list(scale.mean)).strip(),
        "std": storage.json_text(list(scale.std)).strip(),
        "softmax": "inside: the output probabilities, [N, K], sums to 1",
        "class_names": storage.json_text(list(about.class_names)).strip(),
        "network": storage.json_text(dict(network)).strip(),
        "note": package.WARNING,
    }


def to_onnx(about: package.About, network: Mapping[str, Any], params: Params) -> bytes:
    """Writes one network as an ONNX model, computed in float32.

    Its input is `pixels`, float32 `[N, C, H, W]` from 0 to 255; its outputs are `logits` and
    `probabilities`, `[N, K]`. Normalisation and softmax are inside; the metadata says so.

    Args:
      about: the manifest of the package it was trained on.
      network: its `name` and `options`.
      params: its weights, as the zoo's `init` has them.

    Raises:
      UserError: the library is not installed, or the network is not of the zoo.

    References:
      https://onnx.ai/onnx/operators
    """
    try:
        import onnx
        from onnx import helper
    except ImportError as error:
        raise UserError(
            "The library onnx is not installed. Install it by `pip install onnx`, or export to "
            "safetensors."
        ) from error
    if network["name"] not in _BODIES:
        raise UserError(f"{network['name']!r} has no ONNX form; choose {', '.join(_BODIES)}.")
    height, width, channels = about.patch.shape
    scale, graph = about.normalisation, _Graph()
    factor = 1 / (255 * np.asarray(scale.std, np.float64))
    shift = -np.asarray(scale.mean, np.float64) / scale.std
    each = (1, -1, 1, 1)
    x = graph.apply("Mul", "pixels", graph.floats(factor, each))
    x = graph.apply("Add", x, graph.floats(shift, each))
    body = _BODIES[network["name"]]
    logits = body(graph, x, params, network["options"], min(height, width))
    graph.apply("Identity", logits, to="logits")
    graph.apply("Softmax", "logits", to="probabilities", axis=1)
    classes = len(about.class_names)
    kind = onnx.TensorProto.FLOAT
    whole = helper.make_graph(
        graph.nodes,
        str(network["name"]),
        [helper.make_tensor_value_info("pixels", kind, ["N", channels, height, width])],
        [
            helper.make_tensor_value_info(name, kind, ["N", classes])
            for name in ("probabilities", "logits")
        ],
        graph.constants,
    )
    model = helper.make_model(
        whole,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="gxdistill",
    )
    helper.set_model_props(model, _metadata(about, network))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def to_safetensors(about: package.About, network: Mapping[str, Any], params: Params) -> bytes:
    """Writes one network's weights, by their names and in the layouts of the zoo.

    The metadata says how pixels are normalised before the network; softmax is not part of it.

    Raises:
      UserError: the library is not installed.
    """
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError(
            "The library safetensors is not installed. Install it by `pip install safetensors`."
        ) from error
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in leaves(params).items()}
    said = _metadata(about, network) | {
        "input": "images, float32 [N, H, W, C], normalised",
        "normalisation": "before the network: (pixels / 255 - mean) / std",
        "softmax": "after the network: its outputs are logits",
    }
    content: bytes = safetensors.numpy.save(arrays, metadata=said)
    return content


_WRITERS = {"onnx": to_onnx, "safetensors": to_safetensors}
FORMATS = tuple(_WRITERS)


def export_networks(about: package.About, trained: Trained, folder: Path, to: str) -> list[Path]:
    """Writes each of some trained networks as a file of its own, `network_0.onnx` and so on.

    The probabilities of `gxdistill predict` are the mean over the networks.

    Args:
      about: the manifest of the package they were trained on.
      trained: R networks.
      folder: to write, which must not exist.
      to: one of `FORMATS`.

    Returns:
      The files.

    Raises:
      UserError: the form is unknown, a library is missing, or `folder` exists.
    """
    if to not in _WRITERS:
        raise UserError(f"Networks cannot be exported to {to!r}; choose {' or '.join(FORMATS)}.")
    if folder.exists():
        raise UserError(f"{folder} exists already. Remove it, or choose another --out.")
    count = len(jax.tree.leaves(trained.params)[0])
    names = [f"network_{i}.{to}" for i in range(count)]
    with storage.fresh_folder(folder) as fresh:
        for i, name in enumerate(names):
            params = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), trained.params)
            content = _WRITERS[to](about, trained.record["network"], params)
            (fresh / name).write_bytes(content)
    return [folder / name for name in names]
