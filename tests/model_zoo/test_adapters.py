from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from emosym.interfaces import InputEmbeddings
from emosym.models.losses import token_log_probs
from emosym.rl.policy_loss import policy_loss
from model_zoo.adapters import (
    ATTENTION,
    LoraSpec,
    adapter_names,
    adapters_off,
    add_lora,
    backbone_layers,
    decoder_layers,
    merge_lora,
)
from tests.model_zoo import make


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def look(backbone: nn.Module) -> Tensor:
    """Return logits for an image and a question."""
    processor = make.backbone("qwen2_5_vl")[1]
    embedded = backbone.embed_prompts(processor.prompts(["why", "a b"], make.one_each(2)))
    return backbone.logits(backbone.read(embedded))


@torch.no_grad()
def draw(denoiser: nn.Module) -> Tensor:
    """Return what a denoiser predicts."""
    text = denoiser.encode_text(["a red house", "b"])
    times = denoiser.process.times(torch.tensor([0.3, 0.9]))
    return denoiser.predict(normal(2, 4, 8, 8), times, text.tokens, text.pooled)


@pytest.fixture(params=["backbone", *make.DECODERS])
def part(request) -> SimpleNamespace:
    """Return a fresh copy of a part, its layers to adapt, and what shows its output."""
    if request.param == "backbone":
        module = copy.deepcopy(make.backbone("qwen2_5_vl")[0])
        return SimpleNamespace(module=module, layers=backbone_layers(module), run=look)
    module = copy.deepcopy(make.decoder(request.param)[0])
    return SimpleNamespace(module=module, layers=decoder_layers(module), run=draw)


def spec(part: SimpleNamespace, **options) -> LoraSpec:
    return LoraSpec(layers=part.layers, **({"rank": 4, "alpha": 8} | options))


def train(module: nn.Module, size: float = 0.05) -> None:
    """Stand in for training: move every adapter away from zero."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                assert name in adapter_names(module)
                parameter.add_(size * torch.randn(parameter.shape, generator=rng))


def test_the_language_model_is_adapted_and_nothing_else():
    names = backbone_layers(make.backbone("qwen2_5_vl")[0])
    assert len(names) == 2 * 7
    assert all(".language_model.layers." in name for name in names)
    ends = {name.rpartition(".")[2] for name in names}
    assert ends == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_vision_tower_is_adapted_where_asked():
    """Every linear layer but the output projection, as EEmo-Logic's stage 1."""
    backbone = make.backbone("qwen2_5_vl")[0]
    names = set(backbone_layers(backbone, vision=True))
    linear = {n for n, layer in backbone.named_modules() if isinstance(layer, nn.Linear)}
    assert linear - names == {"model.lm_head"}
    assert names - set(backbone_layers(backbone)) == {n for n in linear if ".visual." in n}


def test_the_attention_of_the_decoder_is_adapted_and_nothing_else():
    """Eight projections a block; the last block writes no context, so it has one less."""
    denoiser = make.tiny().generator.denoiser
    names = decoder_layers(denoiser)
    assert len(names) == len(denoiser.network.transformer_blocks) * len(ATTENTION) - 1
    assert all(name.startswith("network.transformer_blocks.") for name in names)
    assert all(".attn." in name for name in names)


def test_both_attentions_of_a_unet_are_adapted():
    """Four projections each, in the one block below, the two above and the one between."""
    names = decoder_layers(make.decoder("sd15")[0])
    assert len(names) == (1 + 2 + 1) * 2 * 4
    ends = {name.split(".transformer_blocks.0.")[1] for name in names}
    rows = ("to_q", "to_k", "to_v", "to_out.0")
    assert ends == {f"attn{n}.{row}" for n in (1, 2) for row in rows}


def test_only_adapters_train(part):
    add_lora(part.module, spec(part))
    trains = {name for name, p in part.module.named_parameters() if p.requires_grad}
    assert trains == adapter_names(part.module)
    assert len(trains) == 2 * len(part.layers)
    assert {name.split(".lora_")[0] for name in trains} == set(part.layers)


def test_a_new_adapter_changes_no_bit(part):
    before = part.run(part.module)
    add_lora(part.module, spec(part))
    assert torch.equal(part.run(part.module), before)
    assert all(p.eq(0).all() for n, p in part.module.named_parameters() if "lora_B" in n)


@pytest.mark.parametrize(("init", "deviation"), [("gaussian", 1 / 16), ("uniform", 1 / 3**0.5)])
def test_how_a_starts(part, init, deviation):
    """Gaussian: deviation 1 / rank. Kaiming uniform: within ±1 / sqrt(inputs)."""
    add_lora(part.module, spec(part, rank=16, init=init))
    found = [p.detach() for n, p in part.module.named_parameters() if "lora_A" in n]
    if init == "uniform":
        found = [a * a.shape[1] ** 0.5 for a in found]
        assert max(float(a.abs().max()) for a in found) <= 1
    spread = torch.cat([a.flatten() for a in found]).std().item()
    assert spread == pytest.approx(deviation, rel=0.05)


def test_the_start_is_a_function_of_the_seed(part):
    makers = [copy.deepcopy(part.module) for _ in range(3)]
    state = torch.random.get_rng_state()
    for module, seed in zip(makers, (1, 1, 2), strict=True):
        add_lora(module, spec(part, seed=seed))
        torch.rand(3)
    torch.random.set_rng_state(state)
    one, same, other = (
        torch.cat([p.flatten() for n, p in m.named_parameters() if "lora_A" in n]) for m in makers
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_update_is_alpha_over_rank_times_b_a(part):
    add_lora(part.module, spec(part, rank=4, alpha=6))
    train(part.module)
    state = part.module.state_dict()
    layer = part.module.get_submodule(part.layers[0])
    x = normal(5, layer.in_features)
    a = state[f"{part.layers[0]}.lora_A.default.weight"]
    b = state[f"{part.layers[0]}.lora_B.default.weight"]
    assert a.shape[0] == b.shape[1] == 4
    with torch.no_grad():
        expected = layer.base_layer(x) + 1.5 * (x @ a.T) @ b.T
        assert torch.allclose(layer(x), expected, atol=1e-5)


def test_off_is_the_base_bit_for_bit_and_on_again_afterwards(part):
    before = part.run(part.module)
    add_lora(part.module, spec(part))
    train(part.module)
    trained = part.run(part.module)
    assert (trained - before).abs().max() > 1e-3
    frozen = next(iter(adapter_names(part.module)))
    part.module.get_parameter(frozen).requires_grad_(False)
    flags = [p.requires_grad for p in part.module.parameters()]
    with adapters_off(part.module):
        assert torch.equal(part.run(part.module), before)
        with adapters_off(part.module):
            assert torch.equal(part.run(part.module), before)
        assert torch.equal(part.run(part.module), before)
    assert torch.equal(part.run(part.module), trained)
    assert [p.requires_grad for p in part.module.parameters()] == flags
    with pytest.raises(KeyError), adapters_off(part.module):
        raise KeyError
    assert torch.equal(part.run(part.module), trained)


def test_switching_off_between_forward_and_backward_loses_no_gradient(part):
    add_lora(part.module, spec(part))
    train(part.module)
    parameters = [p for p in part.module.parameters() if p.requires_grad]
    layer = part.module.get_submodule(part.layers[0])
    x = normal(5, layer.in_features)
    expected = torch.autograd.grad(layer(x).square().sum(), [*layer.lora_A.parameters()])
    loss = layer(x).square().sum()
    with adapters_off(part.module), torch.no_grad():
        layer(x)
    loss.backward()
    assert torch.equal(next(iter(layer.lora_A.parameters())).grad, expected[0])
    assert len(parameters) == 2 * len(part.layers)


def test_merged_is_the_adapted_model_without_adapters(part):
    names = list(part.module.state_dict())
    base = {name: value.clone() for name, value in part.module.state_dict().items()}
    add_lora(part.module, spec(part))
    train(part.module)
    adapted = part.run(part.module)
    scale = adapted.abs().max().clamp_min(1)
    merge_lora(part.module)
    assert (part.run(part.module) - adapted).abs().max() < 1e-5 * scale
    assert list(part.module.state_dict()) == names
    assert adapter_names(part.module) == set()
    assert not hasattr(part.module, "peft_config")
    changed = {n for n, v in part.module.state_dict().items() if not torch.equal(v, base[n])}
    assert changed == {f"{layer}.weight" for layer in part.layers}


def test_dropout_acts_in_training_only(part):
    part.module.eval()
    add_lora(part.module, spec(part, dropout=0.5))
    train(part.module)
    assert torch.equal(part.run(part.module), part.run(part.module))
    part.module.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = part.run(part.module), part.run(part.module)
        torch.manual_seed(0)
        again = part.run(part.module)
    assert (first - second).abs().max() > 1e-4
    assert torch.equal(first, again)


def test_a_new_adapter_has_no_distance_from_its_reference():
    """Flow-GRPO and EEmo-Logic: B = 0, so the first KL is exactly 0 and the ratio exactly 1."""
    module = copy.deepcopy(make.backbone("qwen2_5_vl")[0])
    add_lora(module, LoraSpec(layers=backbone_layers(module), rank=4, alpha=8))
    ids = torch.randint(0, 50, (2, 20), generator=torch.Generator().manual_seed(0))
    policy = token_log_probs(look(module)[:, :20], ids)
    with adapters_off(module):
        reference = token_log_probs(look(module)[:, :20], ids)
    gain = torch.tensor([1.0, -0.5])
    mask = torch.ones(2, 20)
    step = policy_loss(
        "grpo", policy, policy, reference, gain, mask, beta=0.04, max_completion_length=20
    )
    assert [step.kl.item(), step.ratio_deviation.item()] == [0, 0]
    assert step.loss.item() == pytest.approx(-0.25)


def test_adapters_learn_with_a_frozen_base():
    module = copy.deepcopy(make.backbone("qwen2_5_vl")[0])
    base = {name: value.clone() for name, value in module.state_dict().items()}
    add_lora(module, LoraSpec(layers=backbone_layers(module), rank=4, alpha=8))
    ids = torch.randint(50, 90, (4, 6), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(6).expand(3, 4, 6)
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(30):
        tokens = InputEmbeddings(module.embed_tokens(ids), torch.ones_like(ids), positions)
        hidden = module.read(tokens)
        loss = -token_log_probs(module.logits(hidden[:, :-1]), ids[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    after = {name.replace(".base_layer", ""): v for name, v in module.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in base.items())


def test_what_cannot_be_adapted(part):
    for layers, message in (
        (("nowhere",), r"not linear layers: \['nowhere'\]"),
        ((), "not linear layers: none named"),
    ):
        with pytest.raises(ValueError, match=message):
            add_lora(part.module, LoraSpec(layers=layers, rank=2, alpha=2))
    add_lora(part.module, spec(part))
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(part.module, spec(part))
