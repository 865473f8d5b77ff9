"""Reading a prompt once for its G answers changes no number, for any family of backbones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor

from emosym.interfaces import Answers, Prompts
from emosym.models.losses import token_log_probs
from emosym.models.understander import Understander
from emosym.randomness import Draws
from emosym.rl.rollout import Rollout, sample_answers
from model_zoo.backbones.processor import QwenVLProcessor
from model_zoo.backbones.qwen_vl import FAMILIES
from tests.model_zoo import make
from tests.model_zoo.make import one_each, picture

GROUP = 3
TEXTS = ["why", "Which emotion does this image evoke, and which words would you use?", "a b c"]
WORDS = ["awe", "a b c d", "", "fear fear", "x", "Valence: 1.2", "e f", "sky", "a dark red sky"]
Rows = Sequence[Sequence[Image.Image]]
IMAGES: dict[str, Rows] = {
    "one image": one_each(3),
    "pairs": [[picture(*make.SIZES[i], seed=i), picture(64, 64, seed=9 + i)] for i in range(3)],
    "mixed": [[picture(96, 48)], [], [picture(seed=1), picture(40, 90, seed=2)]],
}


class Asked(NamedTuple):
    """Three questions."""

    texts: list[str]
    images: Rows

    def prompts(self, processor: QwenVLProcessor, times: int = 1) -> Prompts:
        """Return the questions, each `times` times side by side."""
        texts = [text for text in self.texts for _ in range(times)]
        return processor.prompts(texts, [row for row in self.images for _ in range(times)])


def evened(asked: Asked, processor: QwenVLProcessor) -> Asked:
    """Lengthen texts by digits, a token each, until all prompts are as long as the longest."""
    lengths = asked.prompts(processor).attention_mask.sum(1)
    missing = (lengths.max() - lengths).tolist()
    texts = [text + "7" * count for text, count in zip(asked.texts, missing, strict=True)]
    return Asked(texts, asked.images)


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def processor(family) -> QwenVLProcessor:
    return make.backbone(family)[1]


@pytest.fixture(params=[0, 4], ids=["K=0", "K=4"])
def model(request, family) -> Understander:
    """Return an understander of K reasoning tokens with a backbone of its own."""
    backbone = copy.deepcopy(make.backbone(family)[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Understander(backbone, tokens=request.param, hidden=8, classes=8, knowledge_width=4)
    make.enlarge(made.reasoner)
    return made.eval()


@pytest.fixture(params=IMAGES)
def images(request) -> Rows:
    return IMAGES[request.param]


@pytest.fixture(params=[True, False], ids=["padded", "even"])
def asked(request, processor, images) -> Asked:
    """Return questions with left padding, or all of one length."""
    asked = Asked(TEXTS, images)
    return asked if request.param else evened(asked, processor)


class Numbers(NamedTuple):
    """What a reading gave."""

    log_probs: Tensor
    gradients: dict[str, Tensor]
    rows: list[int]
    """Sequences in each call of the language model."""


def read(model: Understander, prompts: Prompts, answers: Answers, step: int = 1) -> Numbers:
    """Read, and send a loss of log-probabilities, emotion and affect backwards.

    The prompt's own reading is taken from every `step`-th row.
    """
    rows: list[int] = []
    hook = model.backbone.language.register_forward_pre_hook(
        lambda _, __, given: rows.append(len(given["inputs_embeds"])), with_kwargs=True
    )
    reading = model(prompts, answers)
    hook.remove()
    found = token_log_probs(reading.answer_logits, answers.ids) * answers.mask
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    loss = (found * weights).sum() + reading.affect[::step].sum()
    loss = loss + reading.emotion_logits[::step].square().sum() + reading.h_ctx[::step].sum()
    model.zero_grad()
    loss.backward()
    named = model.named_parameters()
    gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
    return Numbers(found.detach(), gradients, rows)


def same(found: Numbers, plain: Numbers) -> None:
    """Demand equal log-probabilities to 1e-5 and gradients to 1e-4 of their largest."""
    assert (found.log_probs - plain.log_probs).abs().max() < 1e-5
    assert found.gradients.keys() == plain.gradients.keys()
    for name, value in plain.gradients.items():
        if value.numel():
            scale = value.abs().max().clamp_min(1e-3)
            assert (found.gradients[name] - value).abs().max() < 1e-4 * scale, name


def test_a_prompt_read_once_equals_one_read_for_each_answer(model, processor, asked, request):
    """Answers have unequal lengths, and one is empty but for its end."""
    once = asked.prompts(processor)
    assert once.attention_mask.bool().all() == ("even" in request.node.name)
    answers = processor.answers(WORDS)
    assert answers.mask.sum(1).unique().numel() > 3
    plain = read(model, asked.prompts(processor, GROUP), answers, GROUP)
    shared = read(model, once, answers)
    assert (plain.rows, shared.rows) == ([9], [3, 9])
    same(shared, plain)
    reached = {"backbone.model.model.language_model", "backbone.model.model.visual", "reasoner"}
    for part in reached:
        moved = [g for name, g in shared.gradients.items() if name.startswith(part) and g.numel()]
        assert max(gradient.abs().max() for gradient in moved) > 1e-3, part


@torch.no_grad()
def test_latents_that_are_words_give_what_the_original_model_gives(model, processor, images):
    """With the embeddings of words as latents, prompt, latents and answer are one text to it."""
    backbone, prompts = model.backbone, processor.prompts(TEXTS, images)
    answers, count = processor.answers(WORDS[:3]), model.reasoner.tokens + 1
    words = torch.arange(60, 60 + count)
    latents = backbone.embed_tokens(words)
    model.reasoner.context.copy_(latents[:-1])
    model.reasoner.emotion.copy_(latents[-1:])
    ids = torch.cat([prompts.input_ids, words.expand(3, -1), answers.ids], 1)
    ones = torch.ones(3, count, dtype=torch.long)
    original = backbone.model(
        input_ids=ids,
        attention_mask=torch.cat([prompts.attention_mask, ones, answers.mask], 1),
        pixel_values=prompts.pixel_values,
        image_grid_thw=prompts.image_grid,
        mm_token_type_ids=(ids == backbone.model.config.image_token_id).int(),
    ).logits
    length = answers.ids.shape[1]
    gap = model(prompts, answers).answer_logits - original[:, -length - 1 : -1]
    assert (gap * answers.mask[..., None]).abs().max() < 1e-5


def test_where_layers_are_recomputed_prompts_are_repeated(model, processor):
    """A recomputed layer keeps no cache: the same numbers come from G copies of the prompt."""
    asked = Asked(TEXTS, IMAGES["mixed"])
    once, answers = asked.prompts(processor), processor.answers(WORDS)
    shared = read(model.train(), once, answers)
    model.backbone.checkpoint_gradients()
    assert not model.backbone.shares_prefix
    repeated = read(model, once, answers)
    assert (shared.rows, repeated.rows) == ([3, 9], [9])
    same(repeated, shared)
    with torch.no_grad():  # nothing is recomputed without a backward pass
        assert model.backbone.shares_prefix
        frozen = model(once, answers).answer_logits
    found = token_log_probs(frozen, answers.ids) * answers.mask
    assert (found - shared.log_probs).abs().max() < 1e-5
    assert not model.backbone.shares_prefix
    assert model.eval().backbone.shares_prefix


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_sampling_and_reading_are_one_policy(model, processor, images, recompute):
    """The ratio of a first update is 1 to 1e-5, gradient checkpointing or not."""
    if recompute:
        model.train().backbone.checkpoint_gradients()
    prompts, length = processor.prompts(TEXTS, images), 5
    rollout = Rollout(
        end_of_turn=processor.end_of_turn,
        forbidden_ids=processor.forbidden_ids,
        max_completion_length=length,
        num_generations=GROUP,
        uniform=Draws("prefix").uniform(3 * GROUP, length),
    )
    reading = sample_answers(model, prompts, rollout)
    answers, old = rollout.answers, rollout.log_probs
    forced = model(prompts, answers)
    logits = forced.answer_logits.detach()
    new = rollout.policy.log_probs(logits, answers.ids)
    assert (((new - old) * answers.mask).exp() - 1).abs().max() < 1e-5
    assert (forced.h_emo - reading.h_emo).abs().max() < 1e-5
    assert answers.ids.unique(dim=0).shape[0] > GROUP  # not all the same
