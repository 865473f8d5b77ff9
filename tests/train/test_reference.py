"""The frozen reference runs with the weights of the start; gradients reach its inputs only."""

from __future__ import annotations

import copy

import pytest
import torch

from emosym.models.latent_reader import LatentReader
from model_zoo.adapters import LoraSpec, adapter_names, add_lora, backbone_layers
from tests.model_zoo import make
from train.reference import FrozenModule, ReferenceModel


@pytest.mark.parametrize("lora", [False, True])
def test_it_decodes_states_with_the_starting_weights(lora):
    model = copy.deepcopy(make.tiny())
    backbone = model.understander.backbone
    text = model.processor.answers(["a dark sky", "a cat is a friend"])
    states = torch.randn(2, 4, 160, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expected = LatentReader(backbone)(states, text)
    (gradient,) = torch.autograd.grad(expected.logsumexp(-1).sum(), states)
    backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    if lora:
        add_lora(backbone, LoraSpec(layers=backbone_layers(backbone), rank=2, alpha=4))
    reference = ReferenceModel(model.train())
    moving = adapter_names(backbone) if lora else dict(backbone.named_parameters()).keys()
    with torch.no_grad():
        for name in moving:
            backbone.get_parameter(name).add_(0.1)
        assert (LatentReader(backbone)(states, text) - expected).abs().max() > 0.01
    found = reference.decode_states(states, text)
    assert (found - expected).abs().max() < 1e-5

    found.logsumexp(-1).sum().backward()
    assert gradient.abs().amax(2).min() > 0
    assert (states.grad - gradient).abs().max() < 1e-4 * gradient.abs().max()
    assert backbone.training
    assert [n for n, p in model.named_parameters() if p.grad is not None] == []
    assert all(backbone.get_parameter(name).requires_grad for name in moving)


def test_it_understands_pixels_with_the_starting_weights_and_a_gradient_to_them():
    model = copy.deepcopy(make.tiny())
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    prompts = model.processor.see(["why"] * 2, pixels)
    with torch.no_grad():
        expected = model.understander(prompts).affect
    model.understander.backbone.model.gradient_checkpointing_enable({"use_reentrant": False})
    reference = ReferenceModel(model.train())
    with torch.no_grad():
        for parameter in model.understander.parameters():
            parameter.add_(0.1)
    pixels.requires_grad_()
    found = reference.understand_pixels(["why"] * 2, pixels).affect
    assert (found - expected).abs().max() < 1e-5
    found.sum().backward()
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(parameter.grad is None for parameter in model.understander.parameters())


def test_a_frozen_module_stays_what_it_was():
    module = torch.nn.Linear(3, 2)
    frozen, inputs = FrozenModule(module), torch.randn(4, 3)
    expected = module(inputs)
    with torch.no_grad():
        module.weight.add_(1)
    assert torch.equal(frozen(inputs), expected)
    assert not frozen(inputs).requires_grad
    assert not torch.equal(module(inputs), expected)
