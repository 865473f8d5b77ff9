from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emosym.interfaces import Answers, InputEmbeddings
from emosym.models.generator import Condition
from emosym.models.latent_reader import LatentReader
from emosym.models.losses import distil_loss, layer_deviation
from emosym.models.understander import UnderstanderOutput
from tests.model_zoo.make import one_each, picture

TEXTS = ["why", "Which emotion does this image evoke, and which words would you use?", "a b c"]
ANSWERS = ["<think>a dark sky</think><answer>Emotion: fear</answer>", "awe", "<answer>x</answer>"]


@pytest.fixture(scope="module")
def prompts(tiny):
    """Return prompts of mixed lengths with images of mixed sizes."""
    return tiny.processor.prompts(TEXTS, one_each(3))


@pytest.fixture(scope="module")
def answers(tiny):
    return tiny.processor.answers(ANSWERS)


@pytest.fixture(scope="module")
def output(tiny, prompts, answers) -> UnderstanderOutput:
    with torch.no_grad():
        return tiny.understander(prompts, answers, knowledge(tiny))


def knowledge(tiny) -> Tensor:
    return torch.ones(3, tiny.generator.denoiser.pooled_width)


def close(a: Tensor, b: Tensor, within: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= within)


def test_shapes_and_ranges(tiny, output, answers):
    tokens, width = tiny.config.reasoning_tokens, tiny.understander.backbone.width
    assert output.h_ctx.shape == (3, tokens, width)
    assert output.h_emo.shape == (3, width)
    assert output.emotion_logits.shape == (3, 8)
    assert output.affect.shape == (3, 2)
    assert output.affect.abs().max() < 3
    assert output.answer_logits.shape[:2] == answers.ids.shape
    assert output.knowledge.shape == (3, width)


def test_padding_and_batch_mates_change_nothing(tiny, prompts, output):
    assert prompts.attention_mask.sum(1).unique().numel() == 3
    for i, (text, images) in enumerate(zip(TEXTS, one_each(3), strict=True)):
        with torch.no_grad():
            alone = tiny.understander(tiny.processor.prompts([text], [images]))
        assert close(alone.h_ctx[0], output.h_ctx[i], 2e-5)
        assert close(alone.h_emo[0], output.h_emo[i], 2e-5)
        assert close(alone.emotion_logits[0], output.emotion_logits[i], 2e-5)
        assert close(alone.affect[0], output.affect[i], 2e-5)


def test_image_and_question_matter(tiny, output):
    other = tiny.read(tiny.processor.prompts(TEXTS, [[picture(seed=9)]] * 3))
    assert (other.h_emo - output.h_emo).abs().amax(1).min() > 0.01
    turned = tiny.read(tiny.processor.prompts(TEXTS[::-1], one_each(3)))
    assert (turned.h_emo - output.h_emo).abs().amax(1)[[0, 2]].min() > 0.01


def test_an_answer_changes_nothing_before_it(tiny, prompts, output):
    alone = tiny.read(prompts)
    for name in ("h_ctx", "h_emo", "emotion_logits", "affect"):
        assert close(getattr(alone, name), getattr(output, name))


def test_answer_logits_are_causal(tiny, prompts, answers, output):
    """Logits t depend on answer tokens before t only."""
    ids = answers.ids.clone()
    ids[0, 3] += 1
    with torch.no_grad():
        changed = tiny.understander(prompts, type(answers)(ids, answers.mask)).answer_logits
    assert close(changed[0, :4], output.answer_logits[0, :4])
    assert (changed[0, 4:] - output.answer_logits[0, 4:]).abs().amax(1).min() > 1e-3
    assert close(changed[1:], output.answer_logits[1:])


def test_emo_reads_every_reasoning_token_and_none_reads_emo(tiny, prompts):
    words = tiny.understander.reasoner
    output = tiny.understander(prompts)
    (context,) = torch.autograd.grad(output.h_emo.square().sum(), words.context, retain_graph=True)
    assert context.abs().amax(1).min() > 1e-6
    (emotion,) = torch.autograd.grad(
        output.h_ctx.square().sum(), words.emotion, retain_graph=True, allow_unused=True
    )
    assert emotion is None or emotion.eq(0).all()
    tokens = tiny.config.reasoning_tokens
    for k in range(tokens):
        (context,) = torch.autograd.grad(output.h_ctx[:, k].sum(), words.context, retain_graph=True)
        assert (context.abs().amax(1) > 0).tolist() == [j <= k for j in range(tokens)]


def flow_loss(tiny, output: UnderstanderOutput) -> Tensor:
    shape = (3, *tiny.autoencoder.latent_shape)
    condition = tiny.condition(output, ["a red house"] * 3, torch.full((3, 2), torch.nan))
    keep = torch.ones(3, 4, dtype=torch.bool)
    output = tiny.generator(torch.full(shape, 0.5), torch.full((3,), 0.5), condition, keep)
    return (output - 1).square().sum()


def words(tiny) -> Answers:
    """Return texts of different lengths that do not end the turn."""
    text = tiny.processor.answers(["a dark sky threatens the house", "a cat", ""])
    return Answers(text.ids, text.mask * (text.ids != tiny.processor.end_of_turn))


def test_distillation_changes_nothing_else(tiny, prompts, answers, output):
    with torch.no_grad():
        taught = tiny.understander(prompts, answers, knowledge(tiny), words(tiny))
    for name in ("h_ctx", "h_emo", "emotion_logits", "affect", "answer_logits", "knowledge"):
        assert close(getattr(taught, name), getattr(output, name)), name
    assert output.distillation is None
    assert close(taught.distillation.student[:, -1], output.h_emo)
    layers = len(tiny.understander.backbone.model.model.language_model.layers)
    assert (
        taught.distillation.student.shape == taught.distillation.teacher.shape == (3, layers, 160)
    )


@torch.no_grad()
def test_the_teacher_reads_prompt_words_and_emo(tiny, prompts):
    """A twin reads one image at a time, without any padding, and its layers with hooks."""
    model, text = tiny.understander, words(tiny)
    found = model(prompts, knowledge_text=text).distillation
    seen: list[Tensor] = []
    blocks = model.backbone.model.model.language_model.layers
    hooks = [b.register_forward_hook(lambda *call: seen.append(call[-1])) for b in blocks]
    for i, (question, image) in enumerate(zip(TEXTS, one_each(3), strict=True)):
        prompt = model.backbone.embed_prompts(tiny.processor.prompts([question], [image]))
        ids = text.ids[i : i + 1, : int(text.mask[i].sum())]
        emotion = model.reasoner.emotion[None]
        added = torch.cat([model.backbone.embed_tokens(ids), emotion], 1)
        steps = torch.arange(1, added.shape[1] + 1) + prompt.positions.max()
        seen.clear()
        hidden = model.backbone.read(
            InputEmbeddings(
                torch.cat([prompt.embeddings, added], 1),
                torch.cat([prompt.mask, torch.ones(added.shape[:2], dtype=torch.long)], 1),
                torch.cat([prompt.positions, steps.expand(3, 1, -1)], 2),
            )
        )
        assert close(found.teacher[i, -1], hidden[0, -1], 3e-5)
        for layer, states in enumerate(seen[:-1]):  # the last one is not normed yet
            assert close(found.teacher[i, layer], states[0, -1], 3e-5)
        assert close(found.emotion_logits[i], model.emotion_head(hidden[0, -1]), 3e-5)
        assert close(found.affect[i], model.affect_head(hidden[0, -1]), 3e-5)
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(blocks) > 1


def test_the_teacher_learns_from_words_and_the_student_from_latents(tiny, prompts):
    distillation = tiny.understander(prompts, knowledge_text=words(tiny)).distillation
    known = torch.ones(3, dtype=torch.bool)
    context = tiny.understander.reasoner.context
    taught = distillation.emotion_logits.square().sum() + distillation.affect.sum()
    (through,) = torch.autograd.grad(taught, context, retain_graph=True, allow_unused=True)
    assert through is None or through.eq(0).all()
    student, teacher = distillation.student, distillation.teacher
    deviation = layer_deviation(teacher, known)
    assert not distil_loss(student.detach(), teacher, known, deviation).requires_grad
    weight = tiny.understander.backbone.model.model.language_model.layers[0].mlp.up_proj.weight
    (whole,) = torch.autograd.grad(
        distil_loss(student, teacher, known, deviation), weight, retain_graph=True
    )
    (alone,) = torch.autograd.grad(
        distil_loss(student, teacher.detach().clone(), known, deviation), weight
    )
    assert torch.equal(whole, alone)


def test_distillation_takes_no_groups(tiny, prompts):
    with pytest.raises(ValueError, match="one answer a prompt"):
        tiny.understander(prompts, tiny.processor.answers(["a"] * 6), knowledge_text=words(tiny))


CONSUMERS = {
    "label": lambda tiny, output: output.emotion_logits.square().sum(),
    "affect": lambda tiny, output: output.affect.sum(),
    "knowledge": lambda tiny, output: (output.h_ctx.mean(1) * output.knowledge).sum(),
    "answer": lambda tiny, output: output.answer_logits.log_softmax(-1)[..., 7].sum(),
    "distil": lambda tiny, output: distil_loss(
        output.distillation.student,
        output.distillation.teacher,
        torch.ones(3, dtype=torch.bool),
        torch.ones(output.distillation.teacher.shape[1]),
    ),
    "reconstruct": lambda tiny, output: (
        LatentReader(tiny.understander.backbone)(output.h_ctx, words(tiny))
        .log_softmax(-1)[..., 7]
        .sum()
    ),
    "generator": flow_loss,
}
FROM_CONTEXT_ALONE = ("knowledge", "reconstruct")


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_reasoning_tokens_learn_from(consumer, tiny, prompts, answers):
    """The published code reads them through `.data`: there, none of these is above zero."""
    output = tiny.understander(prompts, answers, knowledge(tiny), words(tiny))
    latents = tiny.understander.reasoner
    loss = CONSUMERS[consumer](tiny, output)
    gradients = torch.autograd.grad(
        loss, [latents.context, latents.emotion], allow_unused=consumer in FROM_CONTEXT_ALONE
    )
    assert gradients[0].abs().amax(1).min() > 0
    if consumer not in FROM_CONTEXT_ALONE:
        assert gradients[1].abs().max() > 0


def test_the_flow_loss_reaches_the_backbone_through_both_mappers(tiny, prompts):
    output = tiny.understander(prompts)
    first = tiny.understander.backbone.model.model.language_model.layers[0].mlp.up_proj.weight
    (whole,) = torch.autograd.grad(flow_loss(tiny, output), first, retain_graph=True)
    for part in ("h_ctx", "h_emo"):
        one = output._replace(**{part: getattr(output, part).detach()})
        (gradient,) = torch.autograd.grad(flow_loss(tiny, one), first, retain_graph=True)
        assert gradient.abs().max() > 0
        assert (gradient - whole).abs().max() > 0


def test_condition_keeps_what_was_read(tiny, output):
    affect = torch.zeros(3, 2)
    condition = tiny.condition(output, ["a", "b", ""], affect)
    assert isinstance(condition, Condition)
    assert condition.h_emo is output.h_emo
    assert condition.affect is affect
    denoiser = tiny.generator.denoiser
    assert condition.text.tokens.shape == (3, denoiser.text_tokens, denoiser.token_width)
    assert condition.text.pooled[2].eq(0).all()


def test_prompts_without_images(tiny):
    texts = ["Imagine an image.", "Imagine an image. Emotion: awe. It shows a lake."]
    together = tiny.read(tiny.processor.prompts(texts, None))
    alone = tiny.read(tiny.processor.prompts(texts[:1], None))
    assert close(alone.h_emo[0], together.h_emo[0], 2e-5)
    assert (together.h_emo[0] - together.h_emo[1]).abs().max() > 0.01


def test_answers_that_fall_into_no_groups(tiny, prompts):
    for count in (1, 4):
        with pytest.raises(ValueError, match=f"^{count} answers to 3 prompts"):
            tiny.understander(prompts, tiny.processor.answers(["a"] * count))


def test_forward_dispatches_by_what_is_given(tiny, prompts, answers, monkeypatch):
    model, taken = tiny.understander, []
    for name in ("read_prompts", "read_answers", "read_with_teacher"):
        path = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda *given, name=name, path=path: taken.append(name) or path(*given)
        )
    with torch.no_grad():
        model(prompts)
        model(prompts, answers)
        model(prompts, answers, None, words(tiny))
        found = model(prompts, knowledge=knowledge(tiny), knowledge_text=words(tiny))
    assert taken == ["read_prompts", "read_answers", "read_with_teacher", "read_with_teacher"]
    assert found.knowledge is not None
