"""Verify: understanding RL with verifiable rewards on sampled answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor

from emosym.errors import UserError, unknown
from emosym.interfaces import Answers, Prompts
from emosym.plugins import ADVICE
from emosym.records import Question
from emosym.rl.advantages import joint_advantages
from emosym.rl.policy_loss import clip_range, policy_loss
from emosym.rl.rollout import Rollout, sample_answers
from emosym.rl.token_policy import TokenPolicy
from emosym.tasks.answers import parse
from emosym.tasks.registry import REWARDS, score
from train.micro_batches import MicroBatch, gather
from train.phases.base import Phase, PhaseContext, StepOutput, Text
from train.ranges import check_positive, check_range


@dataclass(kw_only=True, slots=True)
class VerifyGrpoConfig:
    """GRPO on sampled answers. Ref: EEmo-Logic, stage 2; EmoFeedback², judge
    (docs/papers.md)."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "group": "num_generations",
        "answer_tokens": "max_completion_length",
        "loss": "loss_type",
        "clip": "epsilon",
        "clip_high": "epsilon_high",
        "spread": "scale_rewards",
        "rewards_apart": "multi_objective_aggregation",
        "mask_truncated": "mask_truncated_completions",
        "rewards": "reward_weights",
    }

    batch_size: int = 8
    """Prompts (questions) a step, which is one rollout; TRL counts completions."""
    steps_per_generation: int = 1
    """Optimizer updates that the prompts of a step are divided into (TRL counts micro-batches)."""
    num_iterations: int = 1
    """Passes over the answers of a step (μ). With one pass and one update the ratio is 1, so that
    `epsilon` has no effect. A step takes `num_iterations * steps_per_generation` updates; learning
    rate, warm-up and average of the weights count updates."""
    num_generations: int = 8
    """G, answers a prompt."""
    max_completion_length: int = 64
    """Longest answer, in tokens."""
    temperature: float = 1.0
    """Sampling temperature."""
    loss_type: Literal["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "sapo"] = "dapo"
    """Policy loss, see `emosym.rl.policy_loss`."""
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """One ratio for each token, or one for the whole answer (GSPO)."""
    epsilon: float | None = None
    """The ratio is clipped from below at 1 - epsilon; null is 0.2. Not for `cispo` and `sapo`."""
    epsilon_high: float | None = None
    """The ratio is clipped from above at 1 + epsilon_high; null is 0.28, and papers before DAPO use
    the value of `epsilon`. For `cispo` it is the largest weight; null is 5. Not for `sapo`."""
    beta: float = 0.04
    """Weight of the KL to the frozen reference; at 0 the reference is not computed."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation in the group, in the batch, or
    nothing."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = (
        "sum_then_normalize"
    )
    """Normalise the sum of rewards, or each reward before they are summed (GDPO)."""
    mask_truncated_completions: bool = False
    """Exclude answers that were cut at `max_completion_length` from the loss."""
    reward_weights: dict[str, float] = field(
        default_factory=lambda: {"format": 1.0, "emotion": 1.0, "affect_threshold": 1.0}
    )
    """Reward -> weight; 0 switches it off."""

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size, max_completion_length=self.max_completion_length)
        check_positive(temperature=self.temperature)
        check_positive(
            steps_per_generation=self.steps_per_generation, num_iterations=self.num_iterations
        )
        check_range(math.inf, epsilon_high=self.epsilon_high or 0, beta=self.beta)
        check_range(epsilon=self.epsilon or 0)
        clip_range(self.loss_type, epsilon=self.epsilon, epsilon_high=self.epsilon_high)
        if self.num_generations < 2:
            raise UserError("num_generations must be at least 2", got=self.num_generations)
        if not any(self.reward_weights.values()):
            raise UserError("reward_weights are all 0", fix="give at least one a weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The sampled and scored answers to a micro-batch of B prompts, G to each."""

    prompts: Prompts
    """[B]"""
    answers: Answers
    """[B·G, L]"""
    mask: Tensor
    """[B·G, L], 1 for the tokens that count in the loss."""
    complete: Tensor
    """[B·G] of bool: whether the answer ended."""
    log_probs: Tensor
    """[B·G, L] under the policy that sampled."""
    reference_log_probs: Tensor | None
    """[B·G, L] under the frozen reference; None where beta is 0."""
    rewards: Tensor
    """[R, B, G]; NaN where a reward does not apply."""
    total: Tensor
    """Weighted sum of the rewards, [B, G]."""
    advantages: Tensor = field(default_factory=lambda: torch.zeros(()))
    """[B·G]"""
    update_tokens: Tensor = field(default_factory=lambda: torch.zeros(()))
    """See `policy_loss`."""
    rollout_tokens: Tensor = field(default_factory=lambda: torch.zeros(()))
    """See `policy_loss`."""


class VerifyGrpo(Phase[VerifyGrpoConfig, Question]):
    """GRPO on G sampled answers a prompt; gradients reach the reasoning tokens.

    Ref: EEmo-Logic, stage 2; rewards by name from `emosym.tasks.registry`. A step is one rollout
    and, by default, one update: the ratio is then 1 up to rounding, and a `ratio_deviation` far
    from 0 means that sampling and training differ. Adapters run without dropout, because a
    different mask is a different policy.
    """

    name = "verify_grpo"
    Config = VerifyGrpoConfig
    owns = ("understander",)
    batch_kind = "questions"
    dropout = False

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        self.rewards = {
            name: weight for name, weight in self.config.reward_weights.items() if weight
        }
        questions = context.training_set.all("questions")
        for name in self.rewards:
            if name not in REWARDS:
                raise unknown("reward in verify_grpo.reward_weights:", name, REWARDS, ADVICE)
            if not any(REWARDS[name].applies(question) for question in questions):
                raise UserError(
                    f"reward {name!r} has nothing to compare with",
                    got=f"no training question with {' or '.join(REWARDS[name].keys)}",
                    fix=f"set verify_grpo.reward_weights.{name}=0, or name other data.tasks",
                )
        self.tasks = sorted({question.task for question in questions})
        # Rewards of an answer's content; the others depend on its form only.
        about_content = [name for name in self.rewards if REWARDS[name].keys]
        for question in questions:
            if about_content and not any(REWARDS[n].applies(question) for n in about_content):
                raise UserError(
                    f"no reward applies to question {question.id}",
                    got=f"rewards {', '.join(about_content)} for task {question.task!r}",
                    fix="add one for it to verify_grpo.reward_weights, or remove its task from"
                    " data.tasks",
                )

    @classmethod
    def texts(cls, config: VerifyGrpoConfig, item: Question) -> Iterable[Text]:
        """Yield a question; its reference answer is not read by the model."""
        yield Text(item.text)

    def notices(self) -> Iterable[str]:
        """Warn that gradient checkpointing makes the phase slower."""
        if not self.context.model.understander.backbone.shares_prefix:
            yield (
                f"verify_grpo reads each prompt {self.config.num_generations} times, once for each"
                " answer: engine.gradient_checkpointing leaves no cache to share"
            )

    @property
    def policy(self) -> TokenPolicy:
        """Return the distribution that answers are sampled from."""
        return TokenPolicy(self.config.temperature, self.context.model.processor.forbidden_ids)

    @torch.no_grad()
    def prepare(self, batches: Sequence[MicroBatch[Question]]) -> Sequence[Scored]:
        """Sample and score the answers of a step; advantages are over all of its prompts."""
        scored = [self._sample(batch) for batch in batches]
        rewards = gather(batches, [rearrange(each.rewards, "r b g -> b r g") for each in scored])
        advantages = joint_advantages(
            rearrange(rewards.nan_to_num(), "b r g -> r b g"),
            torch.tensor(list(self.rewards.values()), device=rewards.device),
            scale_rewards=self.config.scale_rewards,
            multi_objective_aggregation=self.config.multi_objective_aggregation,
        )
        size = self.config.num_generations
        masks = [rearrange(each.mask, "(b g) l -> b (g l)", g=size) for each in scored]
        tokens = gather(batches, [mask.sum(1) for mask in masks])
        return [
            replace(
                each,
                advantages=rearrange(advantages[batch.rows], "b g -> (b g)"),
                update_tokens=tokens[batch.update].sum() * batch.share,
                rollout_tokens=tokens.sum() * len(batch.items) / batch.total,
            )
            for batch, each in zip(batches, scored, strict=True)
        ]

    def loss(self, batch: MicroBatch[Question]) -> StepOutput:
        """Return the policy loss of one micro-batch of prompts and their answers."""
        config, scored = self.config, batch.prepared
        answers = scored.answers
        logits = self.context.parts["understander"](scored.prompts, answers).answer_logits
        terms = policy_loss(
            config.loss_type,
            self.policy.log_probs(logits, answers.ids),
            scored.log_probs,
            scored.reference_log_probs,
            scored.advantages,
            scored.mask,
            epsilon=config.epsilon,
            epsilon_high=config.epsilon_high,
            beta=config.beta,
            importance_sampling_level=config.importance_sampling_level,
            max_completion_length=config.max_completion_length,
            update_tokens=scored.update_tokens,
            rollout_tokens=scored.rollout_tokens,
        )
        # The engines' micro-batches have different numbers of tokens.
        weight = scored.mask.sum() / scored.update_tokens.clamp_min(1)
        entropy = self.policy.entropy(logits).masked_fill(answers.mask == 0, float("nan"))
        return StepOutput(
            terms.loss,
            {
                **self._reward_metrics(batch),
                "kl": terms.kl,
                "entropy": entropy,
                "clipped_low": terms.clipped_low * weight,
                "clipped_high": terms.clipped_high * weight,
                "answer_tokens": answers.mask.sum(1).float().mean(),
                "truncated": 1 - scored.complete.float().mean(),
            },
            {"ratio_deviation": terms.ratio_deviation},
        )

    def _sample(self, batch: MicroBatch[Question]) -> Scored:
        """Sample and score the answers to a micro-batch of prompts; advantages follow."""
        config, processor = self.config, self.context.model.processor
        prompts = self.context.question_prompts(batch.items)
        uniform = batch.uniform(config.num_generations, config.max_completion_length)
        rollout = Rollout(
            end_of_turn=processor.end_of_turn,
            forbidden_ids=processor.forbidden_ids,
            max_completion_length=config.max_completion_length,
            num_generations=config.num_generations,
            uniform=rearrange(uniform, "b g l -> (b g) l"),
            temperature=config.temperature,
        )
        sample_answers(self.context.model.understander, prompts, rollout)
        answers = rollout.answers
        texts = processor.decode(answers.ids, answers.mask)
        fills = (answers.mask.sum(1) / config.max_completion_length).tolist()
        scores = [
            self._score(text, fill, batch.items[i // config.num_generations])
            for i, (text, fill) in enumerate(zip(texts, fills, strict=True))
        ]
        complete = (answers.ids == processor.end_of_turn).any(1)
        reference = None
        if config.beta:
            logits = self.context.reference(prompts, answers).answer_logits
            if logits is None:
                raise RuntimeError("the understander gave no logits of the answers")
            reference = self.policy.log_probs(logits, answers.ids)
        kept = complete if config.mask_truncated_completions else torch.ones_like(complete)
        return Scored(
            prompts=prompts,
            answers=answers,
            mask=answers.mask * kept[:, None],
            complete=complete,
            log_probs=rollout.log_probs,
            reference_log_probs=reference,
            rewards=self._tensor(scores, list(self.rewards)),
            total=self._tensor(scores, ["total"])[0],
        )

    def _score(self, text: str, fill: float, question: Question) -> dict[str, float]:
        answer = replace(parse(text, question), fill=fill)
        return score(answer, question, self.rewards)

    def _reward_metrics(self, batch: MicroBatch[Question]) -> Mapping[str, Tensor]:
        """Return metrics of the rewards; a reward or task has values where it applies only."""
        total = batch.prepared.total
        named = zip(self.rewards, batch.prepared.rewards, strict=True)
        metrics = {f"reward_{name}": reward for name, reward in named}
        if len(self.tasks) > 1:
            tasks = [question.task for question in batch.items]
            for task in self.tasks:
                other = torch.tensor([each != task for each in tasks], device=total.device)
                metrics[f"total_{task}"] = total.masked_fill(other[:, None], float("nan"))
        return {
            **metrics,
            "reward_total": total.mean(),
            "reward_spread": total.std(1).mean(),
            "zero_variance": (total.std(1) < 1e-6).float().mean(),
        }

    def _tensor(self, scores: list[dict[str, float]], names: list[str]) -> Tensor:
        """Return named scores of this rank's answers, [R, B, G]; NaN where one does not apply."""
        missing = float("nan")
        values = torch.tensor([[entry.get(name, missing) for entry in scores] for name in names])
        grouped = rearrange(values, "r (b g) -> r b g", g=self.config.num_generations)
        return grouped.to(self.context.device)
