"""What every family of backbones must do; the rest of the project relies on nothing else."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from emosym.errors import UserError
from emosym.interfaces import InputEmbeddings, Prompts
from emosym.models.understander import Understander
from emosym.randomness import Draws
from emosym.rl.rollout import Rollout, sample_answers
from model_zoo.backbones.qwen_vl import FAMILIES, attention, load_backbone, new_backbone
from model_zoo.text.tokenizer import SPECIAL
from tests.model_zoo import make
from tests.model_zoo.make import one_each, picture

TEXTS = ["why", "Which emotion does this image evoke?", "a b"]


@pytest.fixture(params=FAMILIES)
def family(request) -> SimpleNamespace:
    backbone, processor = make.backbone(request.param)
    with torch.no_grad():
        prompts = processor.prompts(TEXTS, one_each(3))
        return SimpleNamespace(
            name=request.param,
            backbone=backbone,
            processor=processor,
            prompts=prompts,
            embedded=backbone.embed_prompts(prompts),
        )


@torch.no_grad()
def read(backbone, prompts: Prompts) -> torch.Tensor:
    embedded = backbone.embed_prompts(prompts)
    return backbone.read(embedded)


def test_there_is_a_model_of_every_family():
    assert set(make.VISION) == set(FAMILIES)


IMAGES = {
    "one image": one_each(3),
    "pairs": [
        [picture(*make.SIZES[(i + j) % 3], seed=7 * i + j) for j in range(2)] for i in range(3)
    ],
    "mixed": [[picture(96, 48)], [], [picture(seed=1), picture(40, 90, seed=2)]],
    "none": None,
}


@torch.no_grad()
@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_it_reads_as_the_original_model_does(family, images):
    """What we take apart, embedding, positions, DeepStack and the rest, is put together right."""
    backbone, prompts = family.backbone, family.processor.prompts(TEXTS, images)
    original = backbone.model(
        input_ids=prompts.input_ids,
        attention_mask=prompts.attention_mask,
        pixel_values=prompts.pixel_values,
        image_grid_thw=prompts.image_grid,
        mm_token_type_ids=(prompts.input_ids == backbone.model.config.image_token_id).int(),
    ).logits
    gap = backbone.logits(read(backbone, prompts)) - original
    assert (gap * prompts.attention_mask[..., None]).abs().max() < 1e-5


def test_deepstack_belongs_to_qwen3_vl_and_to_image_tokens(family):
    deepstack = family.embedded.deepstack
    if family.name != "qwen3_vl":
        assert deepstack is None
        return
    is_image = family.prompts.input_ids == family.backbone.model.config.image_token_id
    assert deepstack.shape == (2, *family.embedded.embeddings.shape)
    assert deepstack[:, ~is_image].eq(0).all()
    assert deepstack[:, is_image].abs().amax(-1).min() > 0
    with torch.no_grad():
        hidden = read(family.backbone, family.prompts)
        for layer in range(2):
            silenced = deepstack.clone()
            silenced[layer] = 0
            other = family.backbone.read(replace(family.embedded, deepstack=silenced))
            assert (hidden - other)[:, -1].abs().amax(1).min() > 1e-4


@torch.no_grad()
def test_shapes(family):
    backbone, embedded = family.backbone, family.embedded
    b, t = family.prompts.input_ids.shape
    assert (len(family.prompts), backbone.width) == (3, 48)
    assert embedded.embeddings.shape == (b, t, 48)
    assert torch.equal(embedded.mask, family.prompts.attention_mask)
    assert embedded.positions.shape == (3, b, t)
    hidden = backbone.read(embedded)
    assert hidden.shape == (b, t, 48)
    assert hidden.isfinite().all()
    logits = backbone.logits(hidden[:, -1])
    assert logits.shape == (b, len(family.processor.tokenizer))
    assert torch.allclose(logits, backbone.logits(hidden)[:, -1], atol=1e-5)
    ids = torch.tensor([[5, 6]])
    assert backbone.embed_tokens(ids).shape == (1, 2, 48)
    assert not torch.equal(backbone.embed_tokens(ids)[0, 0], backbone.embed_tokens(ids)[0, 1])


def test_an_image_takes_the_tokens_of_its_merged_patches(family):
    """64x64, 96x48 and 40x90 px become 8x8, 4x10 and 12x6 patches of 8 px; four are one token."""
    pad = family.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert family.prompts.image_grid.tolist() == [[1, 8, 8], [1, 4, 10], [1, 12, 6]]
    assert (family.prompts.input_ids == pad).sum(1).tolist() == [16, 10, 18]
    assert len(family.prompts.pixel_values) == 64 + 40 + 72


def test_positions_give_images_height_and_width(family):
    """Image tokens share a time and span rows and columns; text goes on after the larger side."""
    pad = family.processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    image = family.prompts.input_ids[1] == pad
    time, height, width = family.embedded.positions[:, 1, image]
    start = int(time[0])
    assert (time - start).tolist() == [0] * 10
    assert (height - start).tolist() == [0] * 5 + [1] * 5
    assert (width - start).tolist() == [0, 1, 2, 3, 4] * 2
    after = family.embedded.positions[:, 1, int(image.nonzero().max()) + 1]
    assert after.tolist() == [start + 5] * 3
    first = family.prompts.attention_mask.argmax(1)
    assert family.embedded.positions[:, [0, 1, 2], first].eq(0).all()


def test_the_end_of_a_prompt_does_not_depend_on_padding_or_mates(family):
    hidden = read(family.backbone, family.prompts)
    assert family.prompts.attention_mask.sum(1).unique().numel() == 3
    assert family.prompts.attention_mask[:, -1].all()
    for i, (text, images) in enumerate(zip(TEXTS, one_each(3), strict=True)):
        alone = read(family.backbone, family.processor.prompts([text], [images]))
        length = alone.shape[1]
        assert (alone[0] - hidden[i, -length:]).abs().max() < 1e-4


def test_more_padding_changes_nothing(family):
    prompts = family.prompts
    wider = replace(
        prompts,
        input_ids=torch.nn.functional.pad(prompts.input_ids, (7, 0)),
        attention_mask=torch.nn.functional.pad(prompts.attention_mask, (7, 0)),
    )
    gap = read(family.backbone, wider)[:, 7:] - read(family.backbone, prompts)
    assert (gap * prompts.attention_mask[..., None]).abs().max() < 1e-4


def test_the_image_is_seen_and_its_order_matters(family):
    hidden = read(family.backbone, family.prompts)[:, -1]
    others = [[picture(*make.SIZES[i], seed=50)] for i in range(3)]
    other = family.processor.prompts(TEXTS, others)
    assert (read(family.backbone, other)[:, -1] - hidden).abs().amax(1).min() > 1e-3


@torch.no_grad()
def test_layers_end_in_what_is_read(family):
    """The states between two layers are what the second one is given, but for what is injected."""
    embedded, given = family.embedded, []
    blocks = family.backbone.language.layers
    hook = blocks[1].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    layers = family.backbone.read_layers(embedded)
    hook.remove()
    assert len(layers) == len(blocks) > 1
    between = given[0] if embedded.deepstack is None else given[0] - embedded.deepstack[0]
    assert torch.allclose(layers[0], between, atol=1e-6)
    assert torch.equal(layers[-1], family.backbone.read(embedded))


def test_the_table_of_token_embeddings(family):
    table = family.backbone.token_embeddings
    ids = torch.tensor([[3, 7]])
    assert torch.equal(family.backbone.embed_tokens(ids)[0], table[[3, 7]])
    assert table.shape == (len(family.processor.tokenizer), family.backbone.width)


def test_reading_is_causal(family):
    embedded = family.embedded
    with torch.no_grad():
        hidden = read(family.backbone, family.prompts)
        changed = embedded.embeddings.clone()
        changed[:, -2] += 1
        other = family.backbone.read(replace(embedded, embeddings=changed))
    assert (hidden - other)[:, :-2].abs().max() < 1e-5
    assert (hidden - other)[:, -2:].abs().amax(2).min() > 1e-3


@torch.no_grad()
def test_a_cache_changes_nothing(family):
    """Prompt in one call, then two tokens more, then one: as if read at once."""
    backbone, embedded = family.backbone, family.embedded
    whole = read(backbone, family.prompts)
    cache = backbone.new_cache()
    total = whole.shape[1]
    parts, start = [], 0
    deepstack = embedded.deepstack
    if deepstack is not None:
        deepstack = deepstack[:, :, : total - 3]
    for stop in (total - 3, total - 1, total):
        tokens = InputEmbeddings(
            embedded.embeddings[:, start:stop],
            embedded.mask[:, :stop],
            embedded.positions[:, :, start:stop],
            deepstack,
        )
        parts.append(backbone.read(tokens, cache))
        start, deepstack = stop, None
    gap = (torch.cat(parts, 1) - whole) * embedded.mask[..., None]
    assert gap.abs().max() < 1e-4


@torch.no_grad()
def test_a_cache_can_be_repeated_in_group_order(family):
    backbone, embedded = family.backbone, family.embedded
    cache = backbone.new_cache()
    backbone.read(embedded, cache)
    cache.batch_repeat_interleave(2)
    token = backbone.embed_tokens(torch.full((6, 1), 9))
    mask = torch.nn.functional.pad(embedded.mask.repeat_interleave(2, 0), (0, 1), value=1)
    last = embedded.positions.amax((0, 2)).repeat_interleave(2) + 1
    hidden = backbone.read(InputEmbeddings(token, mask, last.expand(3, -1)[..., None]), cache)
    assert torch.allclose(hidden[::2], hidden[1::2], atol=1e-5)
    assert (hidden[0] - hidden[2]).abs().max() > 1e-3


def test_gradients_reach_language_and_vision(family):
    embedded = family.backbone.embed_prompts(family.prompts)
    hidden = family.backbone.read(embedded)
    loss = family.backbone.logits(hidden).square().mean()
    named = dict(family.backbone.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    silent = [
        name
        for name, gradient in zip(named, gradients, strict=True)
        if gradient is None or not gradient.abs().max() > 0
    ]
    assert silent == []


def test_missing_image_features_are_an_error(family):
    prompts = family.prompts
    two = replace(
        prompts, pixel_values=prompts.pixel_values[:104], image_grid=prompts.image_grid[:2]
    )
    with pytest.raises(UserError, match=r"features differ; got 44 tokens; expected 26 features"):
        family.backbone.embed_prompts(two)


def test_image_tokens_without_images_are_an_error(family):
    bare = replace(family.prompts, pixel_values=None, image_grid=None)
    with pytest.raises(UserError, match=r"features differ; got 44 tokens; expected 0 features"):
        family.backbone.embed_prompts(bare)


def test_a_prompt_has_its_own_images_in_order(family):
    """No image, one of 16 tokens, and two of 10 and 18 tokens, each between its own markers."""
    rows = [[], [picture(64, 64)], [picture(96, 48), picture(40, 90)]]
    prompts = family.processor.prompts(TEXTS, rows)
    words = family.processor.tokenizer
    opened, pad, closed = (
        words.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("vision_start", "image_pad", "vision_end")
    )
    spans = []
    for ids in prompts.input_ids.tolist():
        starts = [place for place, token in enumerate(ids) if token == opened]
        stops = [place for place, token in enumerate(ids) if token == closed]
        for start, stop in zip(starts, stops, strict=True):
            assert set(ids[start + 1 : stop]) == {pad}
        spans.append([stop - start - 1 for start, stop in zip(starts, stops, strict=True)])
    assert spans == [[], [16], [10, 18]]
    assert prompts.image_grid.tolist() == [[1, 8, 8], [1, 4, 10], [1, 12, 6]]
    turned = family.processor.prompts(TEXTS, [*rows[:2], rows[2][::-1]])
    gap = (read(family.backbone, prompts) - read(family.backbone, turned))[:, -1].abs().amax(1)
    assert (gap > 1e-3).tolist() == [False, False, True]


def test_texts_and_images_go_in_pairs(family):
    with pytest.raises(ValueError, match="got 3 texts, but images for 2"):
        family.processor.prompts(TEXTS, one_each(2))


def test_prompts_without_images(family):
    prompts = family.processor.prompts(TEXTS, None)
    assert prompts.pixel_values is None
    hidden = read(family.backbone, prompts)
    alone = read(family.backbone, family.processor.prompts(TEXTS[2:], None))
    assert (hidden[2, -alone.shape[1] :] - alone[0]).abs().max() < 1e-4


@pytest.mark.parametrize("token", ["<|im_end|>", "<|image_pad|>", "<pad>"])
def test_text_may_not_hold_control_tokens(family, token):
    text = [f"well{token} then"]
    with pytest.raises(UserError, match=r"'well.*holds the control token '<"):
        family.processor.prompts(text, None)
    with pytest.raises(UserError, match=r"'well.*holds the control token '<"):
        family.processor.answers(text)


def test_answers_are_closed_and_come_back(family):
    processor = family.processor
    texts = ["<think>a</think><answer>Emotion: awe</answer>", "b", ""]
    answers = processor.answers(texts)
    assert processor.decode(answers.ids, answers.mask) == texts
    lengths = answers.mask.sum(1)
    for ids, mask, length in zip(answers.ids, answers.mask, lengths, strict=True):
        assert ids[length - 1] == processor.end_of_turn
        assert mask.tolist() == [1] * int(length) + [0] * (len(mask) - int(length))
    assert processor.end_of_turn not in processor.forbidden_ids
    assert set(processor.forbidden_ids) >= {0, 1, 2, 4, 5, 6} - {processor.end_of_turn}


@pytest.fixture
def roomy(family) -> SimpleNamespace:
    """Return a backbone of 40 rows more than tokens; three tokens were added, none as special."""
    words = copy.deepcopy(make.tokenizer())
    words.add_tokens(["[CTX]", "[EMO]", "<|fim_prefix|>"])
    config = make.architecture(family.name, words, rows=40)
    backbone, processor = new_backbone(config, words, make.IMAGE_PROCESSOR)
    return SimpleNamespace(backbone=backbone.eval(), processor=processor)


def test_forbidden_are_control_tokens_placeholders_and_rows_without_a_token(roomy):
    words = roomy.processor.tokenizer
    named = {*SPECIAL, "<pad>", "<unk>", "[CTX]", "[EMO]", "<|fim_prefix|>"} - {"<|im_end|>"}
    rows = roomy.backbone.model.get_output_embeddings().weight.shape[0]
    nameless = range(len(words), len(words) + 40)
    expected = {*words.convert_tokens_to_ids(sorted(named)), *nameless}
    assert set(roomy.processor.forbidden_ids) == expected
    assert max(expected) == rows - 1
    with pytest.raises(UserError, match=r"holds the control token '\[EMO\]'"):
        roomy.processor.prompts(["say [EMO]"], None)
    assert roomy.processor.answers(["<think>a</think><answer>b</answer>"]).ids.shape[0] == 1


@pytest.mark.parametrize("favour", [0.0, 60.0])
def test_forbidden_ids_are_never_sampled_however_much_they_are_favoured(roomy, favour):
    """6000 draws from logits that give forbidden ids e^60 times their share."""
    backbone, processor = roomy.backbone, roomy.processor
    banned = torch.tensor(processor.forbidden_ids)
    backbone.model.lm_head.register_forward_hook(
        lambda _, __, logits: logits.index_add(
            -1, banned, logits.new_full((*logits.shape[:-1], len(banned)), favour)
        )
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Understander(backbone, tokens=2, hidden=8, classes=8, knowledge_width=4).eval()

    def sampled(forbidden):
        rollout = Rollout(
            end_of_turn=processor.end_of_turn,
            forbidden_ids=forbidden,
            max_completion_length=3,
            num_generations=2000,
            uniform=Draws("forbidden").uniform(2000, 3),
        )
        sample_answers(model, processor.prompts(TEXTS[:1], one_each(1)), rollout)
        answers = rollout.answers
        return set(answers.ids[answers.mask.bool()].tolist()), rollout.log_probs

    drawn, log_probs = sampled(processor.forbidden_ids)
    assert not drawn & set(banned.tolist())
    assert len(drawn) > 300
    assert log_probs.isfinite().all()
    free, _ = sampled(())
    assert len(free & set(banned.tolist())) > 30  # the bar is what keeps them out


def test_it_carries_an_understander(family):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Understander(family.backbone, tokens=2, hidden=8, classes=8, knowledge_width=4)
    answers = family.processor.answers(["a", "b c", "d"])
    with torch.no_grad():
        reading = made(family.prompts, answers)
    assert reading.h_ctx.shape == (3, 2, 48)
    assert reading.answer_logits.shape[:2] == answers.ids.shape


def test_a_saved_backbone_is_the_same_model(family, tmp_path):
    family.backbone.model.save_pretrained(tmp_path)
    family.processor.save(tmp_path)
    again, processor = load_backbone(tmp_path, torch.float32)
    prompts = processor.prompts(TEXTS, one_each(3))
    assert torch.equal(prompts.input_ids, family.prompts.input_ids)
    assert torch.equal(prompts.pixel_values, family.prompts.pixel_values)
    assert torch.equal(read(again.eval(), prompts), read(family.backbone, family.prompts))


def test_other_families_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"family 'llava' of the preset is not supported"):
        new_backbone({"model_type": "llava"}, make.tokenizer(), {})


def test_attention_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    assert {attention(kind) for kind in (torch.float32, torch.bfloat16)} == {"sdpa"}


@pytest.mark.parametrize("size", [(64, 64), (96, 48), (200, 40)])
def test_pixels_are_seen_as_their_picture_is(family, size):
    """Up to the rounding to 8 bits, and to how PIL and torch resize."""
    picture = make.picture(*size)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    found = family.processor.see(["why"], pixels)
    expected = family.processor.prompts(["why"], [[picture]])
    assert torch.equal(found.input_ids, expected.input_ids)
    assert torch.equal(found.attention_mask, expected.attention_mask)
    assert torch.equal(found.image_grid, expected.image_grid)
    off = (found.pixel_values - expected.pixel_values).abs()
    assert off.mean() < 0.01
    whole = expected.image_grid[0, 1:] * family.processor.images.patch_size
    if whole.tolist() == list(reversed(size)):  # nothing was resized
        assert off.max() < 1e-5


def test_a_gradient_reaches_the_pixels_of_all_pictures(family):
    pixels = torch.zeros(2, 3, 64, 64, requires_grad=True)
    prompts = family.processor.see(["why", "a b"], pixels)
    embedded = family.backbone.embed_prompts(prompts)
    family.backbone.read(embedded)[:, -1].square().sum().backward()
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0
