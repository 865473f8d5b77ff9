"""Low-rank adapters on a frozen backbone or decoder. Ref: LoRA, Hu et al., arXiv 2106.09685."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from model_zoo.backbones.qwen_vl import QwenVL
from model_zoo.decoders.denoisers import StableDiffusion

ATTENTION = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)
"""Attention projections of a decoder that get adapters (a UNet has only the first four).
Ref: Flow-GRPO, arXiv 2505.05470."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """Configuration of LoRA adapters; the update of a layer is (alpha / rank) B A."""

    layers: tuple[str, ...]
    """Names of linear layers, relative to the adapted module."""
    rank: int
    """Rows of A and columns of B."""
    alpha: float
    """Scale of the update, before the division by `rank`."""
    dropout: float = 0.0
    """Dropout probability of the adapters' inputs in training."""
    init: Literal["uniform", "gaussian"] = "uniform"
    """Initialisation of A: Kaiming uniform, or normal with deviation 1 / rank. B is zero."""
    seed: int = 0
    """Seed of the initialisation of A."""


def backbone_layers(backbone: QwenVL, *, vision: bool = False) -> tuple[str, ...]:
    """Return the names of all linear layers of the language model.

    With `vision`, those of the vision tower and its merger too. Never the output projection.
    Ref: EmoSym, step 1; with vision: EEmo-Logic, stage 1 (docs/papers.md).
    """
    adapted = [backbone.language, *([backbone.vision] if vision else [])]
    inside = {id(layer) for module in adapted for layer in module.modules()}
    return tuple(
        name
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Linear) and id(layer) in inside
    )


def decoder_layers(denoiser: StableDiffusion) -> tuple[str, ...]:
    """Return the names of the projections of all self- and cross-attention of the network."""
    ends = tuple(f".{name}" for name in ATTENTION)
    return tuple(
        f"network.{name}"
        for name, layer in denoiser.network.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(ends)
    )


def add_lora(module: nn.Module, spec: LoraSpec) -> None:
    """Freeze `module` and add trainable adapters to its layers; its outputs stay the same.

    Raises:
        ValueError: a name in `spec.layers` is not a linear layer of `module`, or `module` already
            has adapters.
    """
    if any(_lora_layers(module)):
        raise ValueError("the module has adapters already; merge or remove them first")
    linear = {name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    if not spec.layers or not set(spec.layers) <= linear:
        raise ValueError(f"not linear layers: {sorted(set(spec.layers) - linear) or 'none named'}")
    module.requires_grad_(False)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # type: ignore[arg-type]  # peft only divides it by r
        lora_dropout=spec.dropout,
        target_modules=list(spec.layers),
        init_lora_weights=True if spec.init == "uniform" else "gaussian",
    )
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        inject_adapter_in_model(config, module)
    for _, layer in _lora_layers(module):
        layer.train(layer.get_base_layer().training)


@contextlib.contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Disable the adapters of `module` within the context: outputs are those without adapters."""
    layers = [layer for _, layer in _lora_layers(module) if not layer.disable_adapters]
    # enable_adapters() of peft also changes requires_grad; it is restored below.
    trainable = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, requires_grad in trainable:
            parameter.requires_grad_(requires_grad)


def set_dropout(module: nn.Module, active: bool) -> None:
    """Switch the dropout of the adapters in `module` on or off; nothing else changes."""
    for _, layer in _lora_layers(module):
        layer.lora_dropout.train(active)


def adapter_names(module: nn.Module) -> set[str]:
    """Return the names of the adapters' parameters; empty without adapters."""
    return {
        f"{name}.{parameter}"
        for name, layer in _lora_layers(module)
        for parameter, _ in layer.named_parameters()
        if not parameter.startswith("base_layer.")
    }


def merge_lora(module: nn.Module) -> None:
    """Merge each adapter into the weights of its layer and remove it; outputs stay the same."""
    for name, layer in list(_lora_layers(module)):
        layer.merge(safe_merge=True)
        module.set_submodule(name, layer.get_base_layer())
    for child in module.modules():  # the configuration that peft leaves on adapted modules
        vars(child).pop("peft_config", None)


def _lora_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield names and layers with adapters; each is a `LoraLayer` of peft and an `nn.Module`."""
    return ((name, child) for name, child in module.named_modules() if isinstance(child, LoraLayer))
