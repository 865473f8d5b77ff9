"""Verify: understanding RL with verifiable rewards on sampled answers."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange

from emosym.errors import UserError, unknown
from emosym.interfaces import Answers, Prompts
from emosym.models.losses import token_log_probs
from emosym.records import Question
from emosym.rl.advantages import joint_advantages
from emosym.rl.policy_loss import entropy, policy_loss
from emosym.rl.rollout import Rollout, forbidden_bias
from emosym.tasks.answers import parse
from emosym.tasks.rewards import REWARDS, score
from train.distributed import ranks
from train.phases.base import MicroBatch, PhaseContext, StepOutput


class VerifyGrpo:
    """GRPO on G sampled answers a prompt; gradients reach the reasoning tokens.

    Ref: EEmo-Logic §3.5; rewards by name from `emosym.tasks.rewards`. One update a rollout, so
    the ratio is 1 but for rounding: `ratio_deviation` far from 0 means that sampling and training
    differ. Adapters therefore run without dropout: another mask would make another policy.
    """

    name = "verify_grpo"
    owns = ("understander",)
    material = "questions"
    replays = False
    compares = None
    dropout = False

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.config = context.config.verify_grpo
        self.batch_size = self.config.batch_size
        self.rewards = {name: weight for name, weight in self.config.rewards.items() if weight}
        questions = context.training_set.material("questions")
        for name in self.rewards:
            if name not in REWARDS:
                raise unknown("reward in verify_grpo.rewards:", name, REWARDS)
            if not any(REWARDS[name].applies(question) for question in questions):
                raise UserError(
                    f"reward {name!r} has nothing to compare with",
                    got=f"no training question with {' or '.join(REWARDS[name].keys)}",
                    fix=f"set verify_grpo.rewards.{name}=0, or name other data.tasks",
                )
        self.tasks = sorted({question.task for question in questions})
        judged = [name for name in self.rewards if REWARDS[name].keys]
        for question in questions:
            if judged and not any(REWARDS[name].applies(question) for name in judged):
                raise UserError(
                    f"no reward judges what question {question.id} asks",
                    got=f"rewards {', '.join(judged)} for task {question.task!r}",
                    fix="give verify_grpo.rewards one for it, or leave its task out of data.tasks",
                )

    def loss(self, part: MicroBatch) -> StepOutput:
        """Sample, score and return the loss of one micro-batch of prompts."""
        context, config = self.context, self.config
        asked = context.pose(part.samples)
        processor, group = context.model.processor, config.group
        uniform = part.uniform(group, config.answer_tokens)
        rollout = Rollout(
            end_of_turn=processor.end_of_turn,
            forbidden_ids=processor.forbidden_ids,
            max_completion_length=config.answer_tokens,
            num_generations=group,
            uniform=rearrange(uniform, "b g l -> (b g) l"),
            temperature=config.temperature,
        )
        # One pass: the prompts are read once, sampled from, and their answers read after them.
        logits = context.parts["understander"](asked, sampler=rollout).answer_logits
        answers = rollout.answers
        texts = processor.decode(answers.ids, answers.mask)
        fills = (answers.mask.sum(1) / config.answer_tokens).tolist()
        scores = [
            self._score(text, fill, part.samples[i // group])
            for i, (text, fill) in enumerate(zip(texts, fills, strict=True))
        ]
        rewards = self._tensor(scores, list(self.rewards))
        total = self._tensor(scores, ["total"])[0]
        closed = (answers.ids == processor.end_of_turn).any(1)
        mask = answers.mask * closed[:, None] if config.mask_truncated else answers.mask

        terms = policy_loss(
            "grpo" if config.loss == "gspo" else config.loss,
            self._log_probs(logits, answers),
            rollout.log_probs,
            self._reference_log_probs(asked, answers),
            rearrange(self._advantages(rewards.nan_to_num()), "b g -> (b g)"),
            mask,
            epsilon=config.clip,
            epsilon_high=config.clip_high,
            beta=config.beta,
            importance_sampling_level="sequence" if config.loss == "gspo" else "token",
            max_completion_length=config.answer_tokens,
            tokens_per_rank=ranks.mean(mask.sum()),
        )
        named = zip(self.rewards, rewards, strict=True)
        return StepOutput(
            terms.loss,
            {
                **{f"reward_{name}": reward.nanmean() for name, reward in named},
                **self._by_task(part, total),
                "reward_total": total.mean(),
                "reward_spread": total.std(1).mean(),
                "zero_variance": (total.std(1) < 1e-6).float().mean(),
                "kl": terms.kl,
                "entropy": entropy(self._policy(logits), answers.mask),
                "clipped_low": terms.clipped_low,
                "clipped_high": terms.clipped_high,
                "ratio_deviation": terms.ratio_deviation,
                "answer_tokens": answers.mask.sum(1).float().mean(),
                "truncated": 1 - closed.float().mean(),
            },
        )

    def _score(self, text: str, fill: float, question: Question) -> dict[str, float]:
        answer = replace(parse(text, question), fill=fill)
        return score(answer, question, self.rewards)

    def _by_task(self, part: MicroBatch, total: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the mean total of each task, NaN for one that this micro-batch does not ask."""
        if len(self.tasks) == 1:
            return {}
        asked = [question.task for question in part.samples]
        rows = {task: [i for i, other in enumerate(asked) if other == task] for task in self.tasks}
        return {f"total_{task}": total[places].mean() for task, places in rows.items()}

    def _tensor(self, scores: list[dict[str, float]], names: list[str]) -> torch.Tensor:
        """Return named scores of this rank's answers, [R, B, G]; NaN where one does not apply."""
        missing = float("nan")
        values = torch.tensor([[entry.get(name, missing) for entry in scores] for name in names])
        grouped = rearrange(values, "r (b g) -> r b g", g=self.config.group)
        return grouped.to(self.context.device)

    def _advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Return [B, G] for this rank's rewards [R, B, G], normalised over all ranks' prompts."""
        weights = torch.tensor(list(self.rewards.values()), device=rewards.device)
        everyone = rearrange(ranks.gather(rearrange(rewards, "r b g -> b r g")), "b r g -> r b g")
        found = joint_advantages(
            everyone,
            weights,
            scale_rewards=self.config.spread,
            multi_objective_aggregation=(
                "normalize_then_sum" if self.config.rewards_apart else "sum_then_normalize"
            ),
        )
        first = ranks.rank() * rewards.shape[1]
        return found[first : first + rewards.shape[1]]

    def _reference_log_probs(self, asked: Prompts, answers: Answers) -> torch.Tensor | None:
        if not self.config.beta:
            return None
        return self._log_probs(self.context.reference(asked, answers).answer_logits, answers)

    def _log_probs(self, logits: torch.Tensor, answers: Answers) -> torch.Tensor:
        return token_log_probs(self._policy(logits), answers.ids)

    def _policy(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits of the policy that samples: tempered, some tokens barred."""
        bias = forbidden_bias(logits.shape[-1], self.context.model.processor.forbidden_ids)
        return logits / self.config.temperature + bias.to(logits.device)
