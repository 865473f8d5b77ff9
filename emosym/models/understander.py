"""The understanding branch: backbone, latent reasoning tokens and heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import repeat
from torch import Tensor, nn

from emosym.interfaces import Answers, Backbone, InputEmbeddings, Prompts
from emosym.models.heads import AffectHead, EmotionHead, mlp
from emosym.models.reasoner import Reasoner


class Distillation(NamedTuple):
    """Hidden states at [EMO] of the student (reasoning tokens) and the teacher (knowledge text)."""

    student: Tensor
    """[B, N, D]: after each of N layers, with the reasoning tokens before [EMO]."""
    teacher: Tensor
    """[B, N, D]: after each of N layers, with the knowledge text before [EMO]."""
    emotion_logits: Tensor
    """[B, Y] of the teacher."""
    affect: Tensor
    """[B, 2] of the teacher."""


class UnderstanderOutput(NamedTuple):
    """Output of one forward pass of the understanding branch.

    It is a tuple because DeepSpeed finds the output tensors by walking tuples.
    """

    h_ctx: Tensor
    """[B, K, D]: last hidden states of the reasoning tokens."""
    h_emo: Tensor
    """[B, D]: last hidden state of the emotion token."""
    emotion_logits: Tensor
    """[B, Y]"""
    affect: Tensor
    """[B, 2]: valence and arousal on `scales.PUBLIC`."""
    answer_logits: Tensor | None = None
    """[B, L, vocabulary]: position t predicts answer token t. None without answers."""
    knowledge: Tensor | None = None
    """[B, D]: projected knowledge features. None without knowledge features."""
    distillation: Distillation | None = None
    """None without a knowledge text."""

    @property
    def states(self) -> Tensor:
        """[B, 1 + K, D]: h_emo, then h_ctx; what conditions the decoder."""
        return torch.cat([self.h_emo[:, None], self.h_ctx], 1)


@dataclass(frozen=True, slots=True)
class Prefill:
    """State after the prompts and reasoning tokens, before the first answer token."""

    output: UnderstanderOutput
    """Of the prompts."""
    cache: Any
    """Key-value cache of the backbone."""
    logits: Tensor
    """[B, vocabulary] of the first answer token."""
    mask: Tensor
    """[B, T + K + 1]"""
    position: Tensor
    """[B]: position of the first answer token."""


@dataclass(slots=True)
class DecodingState:
    """State between two decoding steps of N answers; N is B·G at first."""

    branch: Any
    """Key-value cache of the answers, see `Backbone.branch`."""
    logits: Tensor
    """[N, vocabulary] of the next token."""
    position: Tensor
    """[N]: position of the next token."""


class Understander(nn.Module):
    """Prompt -> reasoning tokens -> emotion, valence, arousal and an answer in text.

    Layout of a sequence: user turn (image, question), assistant turn ([CTX]_1..K, [EMO], answer).
    Ref: EmoSym, model (docs/papers.md); the answer after the reasoning tokens is ours.
    """

    def __init__(
        self, backbone: Backbone, *, tokens: int, hidden: int, classes: int, knowledge_width: int
    ) -> None:
        super().__init__()
        width = backbone.width
        self.backbone: Backbone = backbone
        self.reasoner = Reasoner(tokens, width)
        self.emotion_head = EmotionHead(width, hidden, classes)
        self.affect_head = AffectHead(width, hidden)
        self.knowledge_head = mlp(knowledge_width, width, width)

    def forward(
        self,
        prompts: Prompts,
        answers: Answers | None = None,
        knowledge: Tensor | None = None,
        knowledge_text: Answers | None = None,
    ) -> UnderstanderOutput:
        """Dispatch to one of three methods, because DeepSpeed's engine calls only `forward`.

        `knowledge_text` -> `read_with_teacher`; `answers` -> `read_answers`; none of them ->
        `read_prompts`.

        Args:
            prompts: B user turns.
            answers: assistant texts, [B, L], or [B·G, L] in groups of G to a prompt.
            knowledge: [B, P] features of the knowledge texts, for `output.knowledge`.
            knowledge_text: [B, L], without the end-of-turn token, for `output.distillation`.

        Raises:
            ValueError: a number of answers that is no multiple of the number of prompts.
        """
        projected = self.knowledge_head(knowledge) if knowledge is not None else None
        if knowledge_text is not None:
            output = self.read_with_teacher(prompts, knowledge_text, answers)
        elif answers is not None:
            output = self.read_answers(prompts, answers)
        else:
            output = self.read_prompts(prompts)
        return output._replace(knowledge=projected)

    def read_prompts(self, prompts: Prompts) -> UnderstanderOutput:
        """Read prompts and reasoning tokens, without answers."""
        tokens = self._embed(prompts)
        hidden = self.backbone.read(tokens)
        return self._output(hidden[:, prompts.input_ids.shape[1] :])

    def read_answers(self, prompts: Prompts, answers: Answers) -> UnderstanderOutput:
        """Read prompts and G answers each, teacher-forced.

        With G > 1 each prompt is read once for its group where the backbone shares prefixes, else
        once for each answer.

        Raises:
            ValueError: the number of answers is no multiple of the number of prompts.
        """
        group = _group_size(prompts, answers)
        if group > 1 and self.backbone.shares_prefix:
            return self._read_from_cache(self.prefill(prompts), answers)
        start = prompts.input_ids.shape[1]
        tokens = self._append_answers(self._embed(prompts), answers, group)
        hidden = self.backbone.read(tokens)
        return self._output(hidden[::group, start:], self._answer_logits(hidden, start))

    def read_with_teacher(
        self, prompts: Prompts, knowledge_text: Answers, answers: Answers | None = None
    ) -> UnderstanderOutput:
        """Read prompts twice: with the reasoning tokens (student) and the knowledge text (teacher).

        Raises:
            ValueError: not one answer a prompt.
        """
        if answers is not None and _group_size(prompts, answers) > 1:
            raise ValueError("knowledge_text takes one answer a prompt")
        start = prompts.input_ids.shape[1]
        tokens = self._embed(prompts)
        teacher = self._read_teacher(tokens.truncate(start), knowledge_text)
        if answers is not None:
            tokens = self._append_answers(tokens, answers, 1)
        layers = self.backbone.read_layers(tokens)
        distillation = Distillation(
            student=_states_at(layers, start + self.reasoner.tokens),
            teacher=teacher,
            emotion_logits=self.emotion_head(teacher[:, -1]),
            affect=self.affect_head(teacher[:, -1]),
        )
        logits = None if answers is None else self._answer_logits(layers[-1], start)
        output = self._output(layers[-1][:, start:], logits)
        return output._replace(distillation=distillation)

    def prefill(self, prompts: Prompts) -> Prefill:
        """Read prompts and reasoning tokens into a cache."""
        tokens = self._embed(prompts)
        cache = self.backbone.new_cache()
        hidden = self.backbone.read(tokens, cache)
        return Prefill(
            output=self._output(hidden[:, prompts.input_ids.shape[1] :]),
            cache=cache,
            logits=self.backbone.logits(hidden[:, -1]),
            mask=tokens.mask,
            position=tokens.positions.amax((0, 2)) + 1,
        )

    @torch.no_grad()
    def start_decoding(self, prefill: Prefill, num_generations: int) -> DecodingState:
        """Return the state before the first token of G answers to each prompt, in group order."""
        return DecodingState(
            branch=self.backbone.branch(prefill.cache, prefill.mask, num_generations),
            logits=prefill.logits.repeat_interleave(num_generations, 0),
            position=prefill.position.repeat_interleave(num_generations, 0),
        )

    @torch.no_grad()
    def decode_step(self, state: DecodingState, ids: Tensor) -> None:
        """Append one token [N] to each answer and update the state in place."""
        embedded = self.backbone.embed_tokens(ids)
        hidden = self.backbone.read_one(embedded, state.position.expand(3, -1), state.branch)
        state.logits = self.backbone.logits(hidden)
        state.position = state.position + 1

    def select_rows(self, state: DecodingState, rows: Tensor) -> None:
        """Keep only some answers, by index; the state changes in place."""
        state.branch.keep(rows)
        state.logits, state.position = state.logits[rows], state.position[rows]

    def _embed(self, prompts: Prompts) -> InputEmbeddings:
        """Return prompts followed by the reasoning tokens and [EMO]."""
        prompt = self.backbone.embed_prompts(prompts)
        latents = self.reasoner(len(prompts)).to(prompt.embeddings.dtype)
        return prompt.append(latents, prompt.mask.new_ones(latents.shape[:2]))

    def _append_answers(
        self, tokens: InputEmbeddings, answers: Answers, group: int
    ) -> InputEmbeddings:
        embedded = self.backbone.embed_tokens(answers.ids)
        return tokens.repeat_interleave(group).append(embedded, answers.mask)

    def _answer_logits(self, hidden: Tensor, start: int) -> Tensor:
        """Return the logits of the answer tokens; `start` is the position of the first latent."""
        # The state at [EMO] predicts the first answer token, each answer state the next one.
        return self.backbone.logits(hidden[:, start + self.reasoner.tokens : -1])

    def _read_teacher(self, prompt: InputEmbeddings, knowledge_text: Answers) -> Tensor:
        """Return the states [B, N, D] at an [EMO] that follows the knowledge text."""
        ids, mask = knowledge_text.ids, knowledge_text.mask
        text = prompt.append(self.backbone.embed_tokens(ids), mask)
        emotion = self.reasoner(len(ids))[:, -1:].to(text.embeddings.dtype)
        # The position of [EMO] follows the last real token of its row, not the padding.
        position = prompt.positions.amax((0, 2)) + mask.sum(1) + 1
        tokens = InputEmbeddings(
            torch.cat([text.embeddings, emotion], 1),
            torch.cat([text.mask, text.mask.new_ones(len(ids), 1)], 1),
            torch.cat([text.positions, repeat(position, "b -> a b 1", a=3)], 2),
            text.deepstack,
        )
        return _states_at(self.backbone.read_layers(tokens), -1)

    def _read_from_cache(self, prefill: Prefill, answers: Answers) -> UnderstanderOutput:
        """Read the G answers [B·G, L] to each prompt through the prompt's keys and values."""
        group = len(answers.ids) // len(prefill.mask)
        prefill.cache.batch_repeat_interleave(group)
        first, mask, position = (
            tensor.repeat_interleave(group, 0)
            for tensor in (prefill.logits, prefill.mask, prefill.position)
        )
        steps = torch.arange(answers.ids.shape[1], device=mask.device)
        tokens = InputEmbeddings(
            self.backbone.embed_tokens(answers.ids),
            torch.cat([mask, answers.mask], 1),
            (position[:, None] + steps).expand(3, -1, -1),
        )
        hidden = self.backbone.read(tokens, prefill.cache)
        logits = torch.cat([first[:, None], self.backbone.logits(hidden[:, :-1])], 1)
        return prefill.output._replace(answer_logits=logits)

    def _output(self, latents: Tensor, answer_logits: Tensor | None = None) -> UnderstanderOutput:
        """Return the output for hidden states that begin at the first latent, [B, >= K + 1, D]."""
        h_ctx, h_emo = latents[:, : self.reasoner.tokens], latents[:, self.reasoner.tokens]
        return UnderstanderOutput(
            h_ctx=h_ctx,
            h_emo=h_emo,
            emotion_logits=self.emotion_head(h_emo),
            affect=self.affect_head(h_emo),
            answer_logits=answer_logits,
        )


def _group_size(prompts: Prompts, answers: Answers) -> int:
    """Return G, answers a prompt."""
    group, rest = divmod(len(answers.ids), len(prompts))
    if rest or not group:
        raise ValueError(f"{len(answers.ids)} answers to {len(prompts)} prompts")
    return group


def _states_at(layers: list[Tensor], place: int) -> Tensor:
    """Return the hidden states at one position after each of N layers, [B, N, D]."""
    return torch.stack([states[:, place] for states in layers], 1)
