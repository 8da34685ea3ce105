"""The small convolutional network: forward pass and training in jax, and the same network as ONNX.

The only file that needs jax.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from broker.scores.stamps import SIDE
from broker.training.stamps.sample import StampSample

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Parameters = list[tuple[Any, Any]]
"""(weights, biases) of three convolutions (3, 3, in, out) and two full layers (in, out)."""

CHANNELS = 3
KERNEL = 3
HIDDEN = 32
BATCH = 64
OPSET = 17
DECAY = 1e-3
"""Of the weights at each step, relative to the learning rate (AdamW: Loshchilov & Hutter 2019, ICLR)."""
_BETAS = (0.9, 0.999)
_AT_ONCE = 256
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters.  widths : channels of the three convolutions;  epochs : passes over the sample."""

    widths: tuple[int, int, int]
    rate: float
    epochs: int


def on_one_thread() -> None:
    """Let jax compute in one thread of the processor: the same seed then gives the same bits.

    To be called before jax computes anything in this process; later it changes nothing.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ONE_THREAD}".strip()
    jax.config.update("jax_platforms", "cpu")


def start(settings: Settings, rng: np.random.Generator) -> Parameters:
    """Random weights (He et al. 2015, ICCV, 1026), biases 0."""
    a, b, c = settings.widths
    last = _pooled(_pooled(SIDE)) - KERNEL + 1
    shapes = [
        (KERNEL, KERNEL, CHANNELS, a),
        (KERNEL, KERNEL, a, b),
        (KERNEL, KERNEL, b, c),
        (last * last * c, HIDDEN),
        (HIDDEN, 1),
    ]
    return [
        (
            (rng.normal(size=shape) * np.sqrt(2.0 / np.prod(shape[:-1]))).astype(np.float32),
            np.zeros(shape[-1], dtype=np.float32),
        )
        for shape in shapes
    ]


def _pooled(side: int) -> int:
    """Pixels each way after a convolution and a pooling."""
    return (side - KERNEL + 1) // 2


def forward(parameters: Parameters, images: Any) -> Any:
    """(n,) raw answers, positive = real.  images : (n, SIDE, SIDE, 3), the channels last."""
    x = images
    for layer, (weights, bias) in enumerate(parameters[:3]):
        x = jax.lax.conv_general_dilated(
            x, weights, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + bias)
        if layer < 2:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)
    x = jax.nn.relu(x @ parameters[3][0] + parameters[3][1])
    return (x @ parameters[4][0] + parameters[4][1])[:, 0]


def _loss(parameters: Parameters, images: Any, real: Any, weight: Any) -> Any:
    raw = forward(parameters, images)
    return jnp.mean(weight * (jnp.logaddexp(0.0, raw) - real * raw))


@partial(jax.jit, donate_argnums=(0, 1))
def _step(
    parameters: Any, moments: Any, images: Any, real: Any, weight: Any, rate: Any, number: Any
) -> tuple[Any, Any]:
    """One step of AdamW."""
    slope = jax.grad(_loss)(parameters, images, real, weight)
    first, second = moments
    first = jax.tree.map(lambda m, g: _BETAS[0] * m + (1.0 - _BETAS[0]) * g, first, slope)
    second = jax.tree.map(lambda m, g: _BETAS[1] * m + (1.0 - _BETAS[1]) * g * g, second, slope)
    correct = jnp.sqrt(1.0 - _BETAS[1] ** number) / (1.0 - _BETAS[0] ** number)
    moved = jax.tree.map(
        lambda p, m, v: p - rate * (correct * m / (jnp.sqrt(v) + 1e-8) + DECAY * p), parameters, first, second
    )
    return moved, (first, second)


def train(
    sample: StampSample,
    settings: Settings,
    seed: int,
    step: Callable[[float], None] = lambda fraction: None,
) -> Parameters:
    """A network fitted to a sample; each batch is turned and mirrored at random.

    The learning rate falls to 0 along a cosine.  step : told of the fraction done
    """
    rng = np.random.default_rng(seed)
    parameters: Any = jax.tree.map(jnp.asarray, start(settings, rng))
    moments = (jax.tree.map(jnp.zeros_like, parameters), jax.tree.map(jnp.zeros_like, parameters))
    images = np.ascontiguousarray(np.moveaxis(sample.images, 1, -1))
    real, weight = sample.real.astype(np.float32), sample.weight.astype(np.float32)
    each = len(sample) // BATCH
    for number in range(settings.epochs * each):
        if number % each == 0:
            order = rng.permutation(len(sample))
            step(number / (settings.epochs * each))
        rows = order[number % each * BATCH : (number % each + 1) * BATCH]
        rate = settings.rate * 0.5 * (1.0 + np.cos(np.pi * number / (settings.epochs * each)))
        parameters, moments = _step(
            parameters,
            moments,
            _turned(images[rows], rng),
            real[rows],
            weight[rows],
            np.float32(rate),
            np.float32(number + 1),
        )
    return [(np.asarray(weights), np.asarray(bias)) for weights, bias in parameters]


def _turned(images: F32, rng: np.random.Generator) -> F32:
    """A batch in one of the square's eight attitudes."""
    turned = np.rot90(images, int(rng.integers(4)), axes=(1, 2))
    return np.ascontiguousarray(turned[:, ::-1] if rng.random() < 0.5 else turned)


def answers(parameters: Parameters, images: F32) -> F64:
    """(n,) raw answers by jax.  images : (n, 3, SIDE, SIDE)"""
    found = []
    for first in range(0, len(images), _AT_ONCE):
        part = np.moveaxis(images[first : first + _AT_ONCE], 1, -1)
        whole = np.zeros((_AT_ONCE, *part.shape[1:]), dtype=np.float32)  # one shape: compiled once
        whole[: len(part)] = part
        found.append(np.asarray(_ask(parameters, whole), dtype=np.float64)[: len(part)])
    return np.concatenate(found) if found else np.empty(0)


_ask = jax.jit(forward)


def to_onnx(parameters: Parameters) -> bytes:
    """The network as ONNX: 'inputs' (n, 3, SIDE, SIDE), 'raw' (n, 1)."""
    tensors, nodes, flow = [], [], "inputs"
    for layer, (weights, bias) in enumerate(_channels_first(parameters)):
        names = [f"w{layer}", f"b{layer}"]
        tensors += [numpy_helper.from_array(x, n) for x, n in zip((weights, bias), names, strict=True)]
        for operation, settings in _operations(layer):
            inputs = [flow, *names] if operation in {"Conv", "Gemm"} else [flow]
            flow = "raw" if layer == len(parameters) - 1 else f"{operation.lower()}{layer}"
            nodes.append(helper.make_node(operation, inputs, [flow], **settings))
    images = helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, CHANNELS, SIDE, SIDE])
    raw = helper.make_tensor_value_info("raw", TensorProto.FLOAT, [None, 1])
    graph = helper.make_graph(nodes, "stamps", [images], [raw], tensors)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _operations(layer: int) -> Sequence[tuple[str, dict[str, Any]]]:
    """What layer `layer` consists of."""
    if layer == 4:
        return [("Gemm", {})]
    if layer == 3:
        return [("Flatten", {"axis": 1}), ("Gemm", {}), ("Relu", {})]
    pool = [("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]})] if layer < 2 else []
    return [("Conv", {"kernel_shape": [KERNEL, KERNEL]}), ("Relu", {}), *pool]


def _channels_first(parameters: Parameters) -> Parameters:
    """The same weights for images whose channels come first, as ONNX has them."""
    full, bias = parameters[3]
    channels = parameters[2][0].shape[-1]
    side = int(np.sqrt(len(full) // channels))
    by_place = full.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(full.shape)
    convolutions = [(np.ascontiguousarray(w.transpose(3, 2, 0, 1)), b) for w, b in parameters[:3]]
    return [*convolutions, (np.ascontiguousarray(by_place), bias), parameters[4]]
