"""Verify: understanding RL with verifiable emotion rewards, in two forms."""

from __future__ import annotations

import torch
from einops import rearrange

from emosym.answers import parse
from emosym.errors import UserError, unknown
from emosym.interfaces import Answers, Prompts
from emosym.losses import (
    affect_loss,
    class_posterior,
    kl_weight,
    label_loss,
    token_log_probs,
)
from emosym.policy import Clip, entropy, joint_advantages, policy_loss
from emosym.rewards import REWARDS, score
from emosym.sampling import forbidden_bias, sample_answers
from train import ranks
from train.data import affect_targets, label_targets
from train.phases.base import Bench, Outcome, Slice


class VerifyPosterior:
    """CE - (r̃ - λ KL) with EmoSym's differentiable class-posterior reward. Ref: EmoSym §2.5."""

    name = "verify_posterior"
    owns = ("understander",)
    replays = True

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.config = bench.config.verify_posterior
        self.batch_size = self.config.batch_size
        unlabelled = sum(sample.emotion is None for sample in bench.corpus.samples)
        if unlabelled:
            raise UserError(
                "phase verify_posterior needs an emotion label for every training image",
                got=f"{unlabelled} of {len(bench.corpus.samples)} without",
                fix="use phase verify_grpo with verify_grpo.rewards.emotion=0",
            )
        if self.config.affect_weight:
            bench.corpus.require("verify_posterior.affect_weight", "valence", "arousal")

    def loss(self, part: Slice) -> Outcome:
        """Return the loss of one micro-batch."""
        bench = self.bench
        asked = bench.ask(bench.corpus.views(part.samples, part.uniform(4)))
        target = label_targets(part.samples, bench.model.config.emotions).to(bench.device)
        reading = bench.parts["understander"](asked)
        anchor = bench.reference(asked)
        reward, kl = class_posterior(reading.emotion_logits, anchor.emotion_logits, target)
        weight = kl_weight(ranks.mean(kl).item())
        affect = affect_loss(reading.affect, affect_targets(part.samples).to(bench.device))
        loss = (
            label_loss(reading.emotion_logits, target)
            - (reward - weight * kl)
            + self.config.affect_weight * affect
        )
        right = (reading.emotion_logits.argmax(-1) == target).float().mean()
        metrics = {"reward": reward.detach(), "kl": kl.detach(), "kl_weight": weight}
        return Outcome(loss, {**metrics, "accuracy": right, "affect": affect.detach()})


class VerifyGrpo:
    """GRPO on G sampled answers a prompt; gradients reach the reasoning tokens.

    Ref: EEmo-Logic §3.5; rewards by name from `emosym.rewards`. One update a rollout, so the ratio
    is 1 but for rounding: `ratio_deviation` far from 0 means that sampling and training differ.
    """

    name = "verify_grpo"
    owns = ("understander",)
    replays = False

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.config = bench.config.verify_grpo
        self.batch_size = self.config.batch_size
        self.rewards = {name: weight for name, weight in self.config.rewards.items() if weight}
        for name in self.rewards:
            if name not in REWARDS:
                raise unknown("reward in verify_grpo.rewards:", name, REWARDS)
            if name == "emotion" and any(s.emotion is None for s in bench.corpus.samples):
                raise UserError(
                    "reward 'emotion' needs an emotion label for every training image",
                    fix=f"switch it off with verify_grpo.rewards.{name}=0",
                )
            if name.startswith("affect") and any(
                s.valence is None or s.arousal is None for s in bench.corpus.samples
            ):
                raise UserError(
                    f"reward {name!r} needs valence and arousal for every training image",
                    fix=f"switch it off with verify_grpo.rewards.{name}=0",
                )

    def loss(self, part: Slice) -> Outcome:
        """Sample, score and return the loss of one micro-batch of prompts."""
        bench, config = self.bench, self.config
        asked = bench.ask([bench.corpus.image(sample) for sample in part.samples])
        processor, group = bench.model.processor, config.group
        uniform = part.uniform(group, config.answer_tokens)
        answers, _, old = sample_answers(
            bench.model.understander,
            asked,
            end_of_turn=processor.end_of_turn,
            forbidden=processor.forbidden_ids,
            max_tokens=config.answer_tokens,
            repeats=group,
            uniform=rearrange(uniform, "b g l -> (b g) l"),
            temperature=config.temperature,
        )
        texts = processor.decode(answers.ids, answers.mask)
        scores = [
            score(parse(text), part.samples[i // group], self.rewards)
            for i, text in enumerate(texts)
        ]
        rewards = self._tensor(scores, list(self.rewards))
        total = self._tensor(scores, ["total"])[0]
        closed = (answers.ids == processor.end_of_turn).any(1)
        mask = answers.mask * closed[:, None] if config.mask_truncated else answers.mask

        logits = bench.parts["understander"](asked, answers).answer_logits
        terms = policy_loss(
            config.loss,
            self._log_probs(logits, answers),
            old,
            self._reference_log_probs(asked, answers),
            rearrange(self._advantages(rewards), "b g -> (b g)"),
            mask,
            clip=Clip(config.clip, config.clip_high),
            beta=config.beta,
            budget=config.answer_tokens,
            tokens=ranks.mean(mask.sum()),
        )
        named = zip(self.rewards, rewards, strict=True)
        return Outcome(
            terms.loss,
            {
                **{f"reward_{name}": reward.mean() for name, reward in named},
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

    def _tensor(self, scores: list[dict[str, float]], names: list[str]) -> torch.Tensor:
        """Return named scores of this rank's answers, [R, B, G]."""
        values = torch.tensor([[entry[name] for entry in scores] for name in names])
        grouped = rearrange(values, "r (b g) -> r b g", g=self.config.group)
        return grouped.to(self.bench.device)

    def _advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Return [B, G] for this rank's rewards [R, B, G], normalised over all ranks' prompts."""
        weights = torch.tensor(list(self.rewards.values()), device=rewards.device)
        everyone = rearrange(ranks.gather(rearrange(rewards, "r b g -> b r g")), "b r g -> r b g")
        found = joint_advantages(
            everyone, weights, spread=self.config.spread, apart=self.config.rewards_apart
        )
        first = ranks.rank() * rewards.shape[1]
        return found[first : first + rewards.shape[1]]

    def _reference_log_probs(self, asked: Prompts, answers: Answers) -> torch.Tensor | None:
        if not self.config.beta:
            return None
        return self._log_probs(self.bench.reference(asked, answers).answer_logits, answers)

    def _log_probs(self, logits: torch.Tensor, answers: Answers) -> torch.Tensor:
        return token_log_probs(self._policy(logits), answers.ids)

    def _policy(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits of the policy that samples: tempered, some tokens barred."""
        bias = forbidden_bias(logits.shape[-1], self.bench.model.processor.forbidden_ids)
        return logits / self.config.temperature + bias.to(logits.device)
