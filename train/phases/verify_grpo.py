"""Verify: understanding RL with verifiable rewards on sampled answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from einops import rearrange

from emosym.errors import UserError, unknown
from emosym.interfaces import Answers, Prompts
from emosym.models.losses import token_log_probs
from emosym.plugins import ADVICE
from emosym.records import Question
from emosym.rl.advantages import joint_advantages
from emosym.rl.policy_loss import entropy, policy_loss
from emosym.rl.rollout import Rollout, forbidden_bias
from emosym.tasks.answers import parse
from emosym.tasks.registry import REWARDS, score
from train.distributed import ranks
from train.phases.base import MicroBatch, Phase, PhaseContext, StepOutput, Text
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
    """Prompts (questions) a step; TRL counts completions."""
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
    epsilon: float = 0.2
    """The ratio is clipped from below at 1 - epsilon."""
    epsilon_high: float = 0.28
    """The ratio is clipped from above at 1 + epsilon_high; papers before DAPO use the value of
    `epsilon`."""
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
        check_range(math.inf, epsilon_high=self.epsilon_high, beta=self.beta)
        check_range(epsilon=self.epsilon)
        if self.num_generations < 2:
            raise UserError("num_generations must be at least 2", got=self.num_generations)
        if not any(self.reward_weights.values()):
            raise UserError("reward_weights are all 0", fix="give at least one a weight")


class VerifyGrpo(Phase[VerifyGrpoConfig, Question]):
    """GRPO on G sampled answers a prompt; gradients reach the reasoning tokens.

    Ref: EEmo-Logic, stage 2; rewards by name from `emosym.tasks.registry`. There is one update for
    each rollout, so the ratio is 1 up to rounding; a `ratio_deviation` far from 0 means that
    sampling and training differ. Adapters run without dropout, because a different mask is a
    different policy.
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

    def loss(self, batch: MicroBatch[Question]) -> StepOutput:
        """Sample, score and return the loss of one micro-batch of prompts."""
        context, config = self.context, self.config
        questions = context.question_prompts(batch.items)
        processor, group = context.model.processor, config.num_generations
        uniform = batch.uniform(group, config.max_completion_length)
        rollout = Rollout(
            end_of_turn=processor.end_of_turn,
            forbidden_ids=processor.forbidden_ids,
            max_completion_length=config.max_completion_length,
            num_generations=group,
            uniform=rearrange(uniform, "b g l -> (b g) l"),
            temperature=config.temperature,
        )
        # One forward pass: prompts are prefilled once, answers sampled and then teacher-forced.
        logits = context.parts["understander"](questions, sampler=rollout).answer_logits
        answers = rollout.answers
        texts = processor.decode(answers.ids, answers.mask)
        fills = (answers.mask.sum(1) / config.max_completion_length).tolist()
        scores = [
            self._score(text, fill, batch.items[i // group])
            for i, (text, fill) in enumerate(zip(texts, fills, strict=True))
        ]
        rewards = self._tensor(scores, list(self.rewards))
        total = self._tensor(scores, ["total"])[0]
        complete = (answers.ids == processor.end_of_turn).any(1)
        mask = (
            answers.mask * complete[:, None] if config.mask_truncated_completions else answers.mask
        )

        terms = policy_loss(
            config.loss_type,
            self._log_probs(logits, answers),
            rollout.log_probs,
            self._reference_log_probs(questions, answers),
            rearrange(self._advantages(rewards.nan_to_num()), "b g -> (b g)"),
            mask,
            epsilon=config.epsilon,
            epsilon_high=config.epsilon_high,
            beta=config.beta,
            importance_sampling_level=config.importance_sampling_level,
            max_completion_length=config.max_completion_length,
            tokens_per_rank=ranks.mean(mask.sum()),
        )
        named = zip(self.rewards, rewards, strict=True)
        return StepOutput(
            terms.loss,
            {
                **{f"reward_{name}": reward.nanmean() for name, reward in named},
                **self._by_task(batch.items, total),
                "reward_total": total.mean(),
                "reward_spread": total.std(1).mean(),
                "zero_variance": (total.std(1) < 1e-6).float().mean(),
                "kl": terms.kl,
                "entropy": entropy(self._policy(logits), answers.mask),
                "clipped_low": terms.clipped_low,
                "clipped_high": terms.clipped_high,
                "ratio_deviation": terms.ratio_deviation,
                "answer_tokens": answers.mask.sum(1).float().mean(),
                "truncated": 1 - complete.float().mean(),
            },
        )

    def _score(self, text: str, fill: float, question: Question) -> dict[str, float]:
        answer = replace(parse(text, question), fill=fill)
        return score(answer, question, self.rewards)

    def _by_task(
        self, questions: Sequence[Question], total: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the mean total reward of each task; NaN for one without questions here."""
        if len(self.tasks) == 1:
            return {}
        tasks = [question.task for question in questions]
        rows = {task: [i for i, other in enumerate(tasks) if other == task] for task in self.tasks}
        return {f"total_{task}": total[places].mean() for task, places in rows.items()}

    def _tensor(self, scores: list[dict[str, float]], names: list[str]) -> torch.Tensor:
        """Return named scores of this rank's answers, [R, B, G]; NaN where one does not apply."""
        missing = float("nan")
        values = torch.tensor([[entry.get(name, missing) for entry in scores] for name in names])
        grouped = rearrange(values, "r (b g) -> r b g", g=self.config.num_generations)
        return grouped.to(self.context.device)

    def _advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Return [B, G] for this rank's rewards [R, B, G], normalised over all ranks' prompts."""
        weights = torch.tensor(list(self.rewards.values()), device=rewards.device)
        gathered = rearrange(ranks.gather(rearrange(rewards, "r b g -> b r g")), "b r g -> r b g")
        advantages = joint_advantages(
            gathered,
            weights,
            scale_rewards=self.config.scale_rewards,
            multi_objective_aggregation=self.config.multi_objective_aggregation,
        )
        first = ranks.rank() * rewards.shape[1]
        return advantages[first : first + rewards.shape[1]]

    def _reference_log_probs(self, questions: Prompts, answers: Answers) -> torch.Tensor | None:
        if not self.config.beta:
            return None
        logits = self.context.reference(questions, answers).answer_logits
        if logits is None:
            raise RuntimeError("the understander gave no logits of the answers")
        return self._log_probs(logits, answers)

    def _log_probs(self, logits: torch.Tensor, answers: Answers) -> torch.Tensor:
        return token_log_probs(self._policy(logits), answers.ids)

    def _policy(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits that answers are sampled from: tempered, forbidden tokens excluded."""
        bias = forbidden_bias(logits.shape[-1], self.context.model.processor.forbidden_ids)
        return logits / self.config.temperature + bias.to(logits.device)
