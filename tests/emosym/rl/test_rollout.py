from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from emosym.interfaces import Answers
from emosym.models.losses import token_log_probs
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.rl.rollout import Rollout, sample_answers
from emosym.rl.token_policy import TokenPolicy
from tests.model_zoo.make import one_each

TEXTS = ["why", "Which emotion does this image evoke, and which words would you use?", "a b c"]
LENGTH = 6


def sample(tiny: EmoSym, prompts, uniform: Tensor | None, **options):
    settings = {
        "end_of_turn": tiny.processor.end_of_turn,
        "forbidden_ids": tiny.processor.forbidden_ids,
        "max_completion_length": LENGTH,
    }
    rollout = Rollout(uniform=uniform, **settings | options)
    output = sample_answers(tiny.understander, prompts, rollout)
    return rollout.answers, output, rollout.log_probs


def forced(tiny: EmoSym, prompts, answers: Answers, temperature: float = 1.0) -> Tensor:
    """Return teacher-forced log-probabilities of answers, from one forward without a cache."""
    with torch.no_grad():
        logits = tiny.understander(prompts, answers).answer_logits
    policy = TokenPolicy(temperature, tiny.processor.forbidden_ids)
    return policy.log_probs(logits, answers.ids)


@pytest.fixture(scope="module")
def prompts(tiny):
    """Return prompts of mixed lengths (so padded on the left) with images of mixed sizes."""
    return tiny.processor.prompts(TEXTS, one_each(3))


@pytest.fixture(scope="module")
def sampled(tiny, prompts):
    """Return 4 answers to each of 3 prompts."""
    uniform = Draws("sampled").uniform(12, LENGTH)
    return sample(tiny, prompts, uniform, num_generations=4)


def test_log_probs_are_those_of_teacher_forcing(tiny, sampled):
    answers, _, log_probs = sampled
    many = tiny.processor.prompts(
        [text for text in TEXTS for _ in range(4)],
        [images for images in one_each(3) for _ in range(4)],
    )
    gap = (forced(tiny, many, answers) - log_probs) * answers.mask
    assert gap.abs().max() < 1e-5
    assert log_probs.max() < 0


def test_each_answer_is_as_if_asked_alone(tiny, sampled):
    """Row b·G + g answers prompt b; neither padding nor batch mates nor the cache matter."""
    answers, _, log_probs = sampled
    uniform = Draws("sampled").uniform(12, LENGTH)
    for row in (0, 3, 5, 11):
        b = row // 4
        prompt = tiny.processor.prompts([TEXTS[b]], [one_each(3)[b]])
        alone, _, alone_log_probs = sample(tiny, prompt, uniform[row : row + 1])
        assert alone.ids[0].tolist() == answers.ids[row].tolist()
        assert (alone_log_probs[0] - log_probs[row]).abs().max() < 1e-4


def test_the_output_is_that_of_the_prompts(tiny, prompts, sampled):
    _, output, _ = sampled
    plain = tiny.read(prompts)
    assert len(output.h_emo) == 3
    assert (plain.h_emo - output.h_emo).abs().max() < 1e-5
    assert (plain.affect - output.affect).abs().max() < 1e-5


def test_a_cached_step_has_the_logits_of_a_whole_forward(tiny, prompts):
    with torch.no_grad():
        state = tiny.understander.start_decoding(tiny.understander.prefill(prompts), 1)
        ids = torch.tensor([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
        answers = Answers(ids, torch.ones_like(ids))
        whole = tiny.understander(prompts, answers).answer_logits
        for t in range(3):
            assert (state.logits - whole[:, t]).abs().max() < 1e-4
            tiny.understander.decode_step(state, ids[:, t])
    assert state.branch.length == 3


def test_greedy_is_the_most_probable_and_deterministic(tiny, prompts):
    answers, _, log_probs = sample(tiny, prompts, None)
    again, _, again_log_probs = sample(tiny, prompts, None)
    assert torch.equal(answers.ids, again.ids)
    assert torch.equal(log_probs, again_log_probs)
    with torch.no_grad():
        logits = tiny.understander(prompts, answers).answer_logits
    best = TokenPolicy(1.0, tiny.processor.forbidden_ids).logits(logits).argmax(-1)
    assert torch.equal(best * answers.mask, answers.ids * answers.mask)


def test_a_cold_temperature_is_greedy(tiny, prompts):
    cold, _, log_probs = sample(tiny, prompts, Draws("t").uniform(3, LENGTH), temperature=1e-4)
    greedy, _, _ = sample(tiny, prompts, None)
    assert torch.equal(cold.ids, greedy.ids)
    assert log_probs.abs().max() < 1e-5  # it was certain


def test_log_probs_are_those_of_the_policy_that_sampled(tiny, prompts):
    hot, _, log_probs = sample(tiny, prompts, Draws("t").uniform(3, LENGTH), temperature=3.0)
    warm, _, _ = sample(tiny, prompts, Draws("t").uniform(3, LENGTH))
    assert not torch.equal(hot.ids, warm.ids)
    assert ((forced(tiny, prompts, hot, 3.0) - log_probs) * hot.mask).abs().max() < 1e-5
    assert ((forced(tiny, prompts, hot) - log_probs) * hot.mask).abs().max() > 0.1


@pytest.mark.parametrize("point", [0.0, 1 - 2**-24])
def test_forbidden_ids_are_never_sampled(tiny, prompts, point):
    """The ends of the distribution are where an off-by-one would pick them."""
    size = tiny.understander.prefill(prompts).logits.shape[-1]
    forbidden = [i for i in range(size) if i % 5 or i < 50 or i > size - 50]
    uniform = torch.full((3, LENGTH), point)
    answers, _, log_probs = sample(tiny, prompts, uniform, forbidden_ids=forbidden)
    assert not set(answers.ids[answers.mask.bool()].tolist()) & set(forbidden)
    assert log_probs.isfinite().all()
    usual, _, _ = sample(tiny, prompts, uniform)
    assert not set(usual.ids.flatten().tolist()) & set(tiny.processor.forbidden_ids)


def test_a_token_is_the_inverse_of_its_cumulative_share(tiny, prompts):
    uniform = Draws("cdf").uniform(3, 1)
    answers, _, _ = sample(tiny, prompts, uniform, max_completion_length=1)
    with torch.no_grad():
        logits = tiny.understander.prefill(prompts).logits
    logits = TokenPolicy(1.0, tiny.processor.forbidden_ids).logits(logits)
    for row, shares in enumerate(logits.double().softmax(-1).tolist()):
        below, token = 0.0, 0
        while below + shares[token] <= uniform[row].item():
            below += shares[token]
            token += 1
        assert answers.ids[row, 0].item() == token


def test_frequencies_follow_the_distribution(tiny):
    """Chi-square of 4000 draws in 10 bins; 27.9 is its 99.9 % point with 9 degrees of freedom."""
    one = tiny.processor.prompts(TEXTS[:1], one_each(1))
    count, bins = 4000, 10
    answers, _, _ = sample(
        tiny,
        one,
        Draws("chi").uniform(count, 1),
        max_completion_length=1,
        num_generations=count,
        temperature=0.2,
    )
    with torch.no_grad():
        logits = tiny.understander.prefill(one).logits[0]
    shares = TokenPolicy(0.2, tiny.processor.forbidden_ids).logits(logits).softmax(-1)
    members = torch.arange(len(shares)) % bins
    wanted = count * torch.zeros(bins).index_add(0, members, shares)
    assert wanted.max() > 2 * wanted.min()
    found = torch.bincount(members[answers.ids[:, 0]], minlength=bins)
    assert ((found - wanted).square() / wanted).sum().item() < 27.9


def test_an_answer_ends_with_its_end_of_turn(tiny, prompts):
    greedy, _, _ = sample(tiny, prompts, None)
    end = greedy.ids[1, 2].item()
    first = greedy.ids.tolist()
    answers, _, log_probs = sample(tiny, prompts, None, end_of_turn=end)
    for row in range(3):
        length = first[row].index(end) + 1 if end in first[row] else LENGTH
        width = answers.ids.shape[1]
        assert answers.mask[row].tolist() == [1] * min(length, width) + [0] * (width - length)
        assert answers.ids[row].tolist()[:length] == first[row][:length]
        assert set(answers.ids[row].tolist()[length:]) <= {end}
    assert answers.mask[1].sum() == first[1].index(end) + 1
    assert ((forced(tiny, prompts, answers) - log_probs) * answers.mask).abs().max() < 1e-5


def test_answers_that_have_ended_are_read_no_more(tiny, prompts):
    """Three ids are left, one of them the end: answers end one by one, the batch gets smaller."""
    end, size = tiny.processor.end_of_turn, tiny.understander.prefill(prompts).logits.shape[-1]
    options = {
        "forbidden_ids": [i for i in range(size) if i not in (end, 60, 61)],
        "max_completion_length": 12,
    }
    uniform = Draws("ended").uniform(24, 12)
    rows: list[int] = []
    mlp = tiny.understander.backbone.language.layers[0].mlp
    hook = mlp.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    answers, _, log_probs = sample(
        tiny, prompts, uniform, num_generations=8, temperature=20.0, **options
    )
    hook.remove()
    lengths = answers.mask.sum(1)
    assert lengths.unique().numel() > 4
    assert rows[:2] == [3, 24]
    for step, held in enumerate(rows[1:], start=1):
        assert (lengths > step).sum() <= held < 2 * (lengths > step).sum()
    assert rows[-1] < 12
    assert (log_probs * (1 - answers.mask)).eq(0).all()
    for row in range(24):
        prompt = tiny.processor.prompts([TEXTS[row // 8]], [one_each(3)[row // 8]])
        one, _, own = sample(tiny, prompt, uniform[row : row + 1], temperature=20.0, **options)
        length = int(lengths[row])
        assert one.ids[0].tolist() == answers.ids[row, :length].tolist()
        assert (own[0] - log_probs[row, :length]).abs().max() < 1e-4
        assert answers.ids[row, length:].eq(end).all()


def test_sampling_stops_when_all_answers_have_ended(tiny, prompts):
    size = tiny.understander.prefill(prompts).logits.shape[-1]
    end = tiny.processor.end_of_turn
    answers, _, log_probs = sample(
        tiny, prompts, None, forbidden_ids=[i for i in range(size) if i != end]
    )
    assert answers.ids.tolist() == [[end]] * 3
    assert log_probs.abs().max() == 0
    assert tiny.processor.decode(answers.ids, answers.mask) == [""] * 3


def test_a_bf16_model_trains_on_the_probabilities_that_it_sampled_from(tiny, monkeypatch):
    """Given the same bfloat16 logits, at a temperature of 0.7: the ratio is 1 up to rounding."""
    model = copy.deepcopy(tiny.understander).bfloat16()
    prompts = tiny.processor.prompts(TEXTS, one_each(3))
    rollout = Rollout(
        end_of_turn=tiny.processor.end_of_turn,
        forbidden_ids=tiny.processor.forbidden_ids,
        max_completion_length=LENGTH,
        num_generations=4,
        uniform=Draws("bf16").uniform(12, LENGTH),
        temperature=0.7,
    )
    monkeypatch.setattr(model, "select_rows", lambda state, rows: pytest.fail("an answer ended"))
    with torch.no_grad():
        state = model.start_decoding(model.prefill(prompts), 4)
        state.logits = 8 * state.logits  # as sharp as those of a trained model
        seen = [state.logits]
        step = model.decode_step

        def decode(state, ids):
            step(state, ids)
            state.logits = 8 * state.logits
            seen.append(state.logits)

        monkeypatch.setattr(model, "decode_step", decode)
        answers = rollout(model, state)
    logits = torch.stack(seen, 1)
    assert logits.dtype == torch.bfloat16
    trained = rollout.policy.log_probs(logits, answers.ids)
    ratio = (trained - rollout.log_probs).exp()
    assert ((ratio - 1).abs() * answers.mask).max() < 1e-6
    divided_first = token_log_probs(logits / 0.7, answers.ids)
    assert (((divided_first - rollout.log_probs).exp() - 1).abs() * answers.mask).max() > 1e-3
