"""Low-rank adapters on a frozen backbone or decoder. Ref: LoRA, Hu et al., arXiv 2106.09685."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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
"""Projections of the decoder's attention that get adapters; a UNet has the first four.
Ref: Flow-GRPO, arXiv 2505.05470."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSpec:
    """Where adapters go and how they start; the update of a layer is (alpha / rank) B A."""

    layers: tuple[str, ...]
    """Names of linear layers, relative to the module that is adapted."""
    rank: int
    alpha: float
    dropout: float = 0.0
    """Share of a layer's inputs that its adapter does not see in training."""
    init: Literal["uniform", "gaussian"] = "uniform"
    """Of A (Kaiming uniform, or normal with deviation 1 / rank); B starts at zero."""
    seed: int = 0
    """Of A."""


def backbone_layers(backbone: QwenVL, *, vision: bool = False) -> tuple[str, ...]:
    """Return all linear layers of the language model (Ref: EmoSym), and of the vision tower.

    With `vision` its tower and merger are adapted too (Ref: EEmo-Logic); the output projection
    never is.
    """
    parts = [backbone.language, *([backbone.vision] if vision else [])]
    inside = {id(layer) for part in parts for layer in part.modules()}
    return tuple(
        name
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.Linear) and id(layer) in inside
    )


def decoder_layers(denoiser: StableDiffusion) -> tuple[str, ...]:
    """Return the projections of all attention, to itself and to the condition, in the network."""
    ends = tuple(f".{name}" for name in ATTENTION)
    return tuple(
        f"network.{name}"
        for name, layer in denoiser.network.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(ends)
    )


def add_lora(module: nn.Module, spec: LoraSpec) -> None:
    """Freeze `module` and give its layers adapters that train; its outputs do not change yet.

    Raises:
        ValueError: a layer that is not a linear layer of `module`; a module that has adapters.
    """
    if any(_adapted(module)):
        raise ValueError("the module has adapters already; merge or remove them first")
    linear = {name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    if not spec.layers or not set(spec.layers) <= linear:
        raise ValueError(f"not linear layers: {sorted(set(spec.layers) - linear) or 'none named'}")
    module.requires_grad_(False)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.layers),
        init_lora_weights=True if spec.init == "uniform" else "gaussian",
    )
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        inject_adapter_in_model(config, module)
    for _, layer in _adapted(module):
        layer.train(layer.get_base_layer().training)


@contextlib.contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Let `module` compute exactly what it computes without its adapters."""
    layers = [layer for _, layer in _adapted(module) if not layer.disable_adapters]
    # Switching adapters in peft also switches whether they train; put that back as it was.
    trains = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, wanted in trains:
            parameter.requires_grad_(wanted)


def set_dropout(module: nn.Module, active: bool) -> None:
    """Let the adapters in `module` hide inputs from themselves, or not; nothing else changes."""
    for _, layer in _adapted(module):
        layer.lora_dropout.train(active)


def adapter_names(module: nn.Module) -> set[str]:
    """Return the names of the parameters that belong to adapters; empty without adapters."""
    return {
        f"{name}.{own}"
        for name, layer in _adapted(module)
        for own, _ in layer.named_parameters()
        if not own.startswith("base_layer.")
    }


def merge_lora(module: nn.Module) -> None:
    """Add each adapter to the weights of its layer and take it away; outputs stay the same."""
    for name, layer in list(_adapted(module)):
        layer.merge(safe_merge=True)
        module.set_submodule(name, layer.get_base_layer())
    for part in module.modules():  # the note that peft leaves on what it has adapted
        vars(part).pop("peft_config", None)


def _adapted(module: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, part) for name, part in module.named_modules() if isinstance(part, LoraLayer))
