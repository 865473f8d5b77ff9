"""Verify: understanding RL with verifiable emotion rewards, in two forms."""

from __future__ import annotations

import torch
from einops import rearrange

from emosym.answers import parse
from emosym.errors import UserError, unknown
from emosym.interfaces import Answers
from emosym.losses import (
    affect_loss,
    class_posterior,
    group_advantages,
    grpo,
    kl_weight,
    label_loss,
    token_log_probs,
)
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
        rewards = torch.tensor([entry["total"] for entry in scores], device=bench.device)
        rewards = rearrange(rewards, "(b g) -> b g", g=group)
        advantages = rearrange(group_advantages(rewards), "b g -> (b g)")

        new = self._log_probs(bench.parts["understander"](asked, answers), answers)
        anchor = self._log_probs(bench.reference(asked, answers), answers)
        terms = grpo(
            new,
            old,
            anchor,
            advantages,
            answers.mask,
            clip=config.clip,
            beta=config.beta,
        )
        metrics = {name: sum(entry[name] for entry in scores) / len(scores) for name in scores[0]}
        return Outcome(
            terms.loss,
            {
                **{f"reward_{name}": value for name, value in metrics.items()},
                "kl": terms.kl,
                "ratio_deviation": terms.ratio_deviation,
                "zero_variance": (rewards.std(1) < 1e-6).float().mean(),
                "answer_tokens": answers.mask.sum(1).float().mean(),
            },
        )

    def _log_probs(self, reading, answers: Answers) -> torch.Tensor:
        logits = reading.answer_logits
        bias = forbidden_bias(logits.shape[-1], self.bench.model.processor.forbidden_ids)
        return token_log_probs(logits + bias.to(logits.device), answers.ids)
