"""The understanding branch: backbone, latent reasoning, heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from einops import repeat
from torch import Tensor, nn

from emosym.interfaces import Answers, InputEmbeddings, Prompts
from emosym.models.heads import AffectHead, EmotionHead, mlp
from emosym.models.reasoner import Reasoner


class Distillation(NamedTuple):
    """The state at [EMO] after the latents and after the same knowledge in words."""

    student: Tensor
    """[B, N, D]: after each of N layers, having read the reasoning tokens."""
    teacher: Tensor
    """[B, N, D]: after each layer, having read the words in their place."""
    emotion_logits: Tensor
    """[B, Y] of the teacher."""
    affect: Tensor
    """[B, 2] of the teacher."""


class UnderstanderOutput(NamedTuple):
    """What one forward of the understanding branch gives.

    A tuple, because the training engine finds the outputs to watch by walking tuples.
    """

    h_ctx: Tensor
    """[B, K, D]: last hidden states of the reasoning tokens."""
    h_emo: Tensor
    """[B, D]: last hidden state of the emotion token."""
    emotion_logits: Tensor
    """[B, Y]"""
    affect: Tensor
    """[B, 2]: valence and arousal on `affect.PUBLIC`."""
    answer_logits: Tensor | None = None
    """[B, L, vocabulary]: position t predicts answer token t."""
    knowledge: Tensor | None = None
    """[B, D]: projected knowledge text, when knowledge features were given."""
    lesson: Distillation | None = None
    """When the knowledge was also given in words."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """Prompts that have been read up to where their answers begin."""

    reading: UnderstanderOutput
    cache: Any
    logits: Tensor
    """[B, vocabulary] of the first token."""
    mask: Tensor
    """[B, T + K + 1]"""
    position: Tensor
    """[B]: position of the first token."""


@dataclass(slots=True)
class Decoding:
    """The state between two tokens of answers that are being sampled, N = B·G of them at first."""

    branch: Any
    logits: Tensor
    """[N, vocabulary] of the next token."""
    position: Tensor
    """[N]: position of the next token."""


class Sampler(Protocol):
    """Answers prompts that have just been read; `sampling.Rollout` is one."""

    repeats: int
    """G, answers a prompt."""

    def __call__(self, understander: Understander, state: Decoding) -> Answers:
        """Return answers [B·G, L], sampled without gradient from a state of B·G rows."""


class Understander(nn.Module):
    """Prompt -> reasoning tokens -> emotion, valence-arousal and an answer in words.

    Layout of a sequence: user turn (image, question), assistant turn ([CTX]_1..K, [EMO], answer).
    Ref: EmoSym §2.3; the answer after the latents is ours.
    """

    def __init__(
        self, backbone: nn.Module, *, tokens: int, hidden: int, classes: int, knowledge_width: int
    ) -> None:
        super().__init__()
        width = backbone.width
        self.backbone = backbone
        self.reasoner = Reasoner(tokens, width)
        self.emotion_head = EmotionHead(width, hidden, classes)
        self.affect_head = AffectHead(width, hidden)
        self.knowledge_head = mlp(knowledge_width, width, width)

    def forward(
        self,
        prompts: Prompts,
        answers: Answers | Sampler | None = None,
        knowledge: Tensor | None = None,
        words: Answers | None = None,
    ) -> UnderstanderOutput:
        """Read prompts, and answers when given, in ONE parallel forward.

        Where a sampler is given, its answers are: it samples from the prompts as they are read.

        Args:
            prompts: B user turns.
            answers: B assistant texts, or B·G in groups of G to a prompt; their logits
                [B·G, L, vocabulary] are teacher-forced. A prompt is read once for its group where
                the backbone can (`shares_prefix`), and once for each answer otherwise.
            knowledge: [B, P] features of the knowledge texts.
            words: the knowledge texts themselves, not closed, for a `lesson`; answers come in no
                groups then.
        """
        projected = self.knowledge_head(knowledge) if knowledge is not None else None
        if callable(answers):
            if self.backbone.shares_prefix:
                return self._read_sampled(prompts, answers)._replace(knowledge=projected)
            with torch.no_grad():
                opened = self.open_answer(prompts)
            answers = answers(self, self.begin_answers(opened, answers.repeats))
        group = _group(prompts, answers)
        if words is not None and group > 1:
            raise ValueError("words go with one answer a prompt")
        if answers is not None and group > 1 and self.backbone.shares_prefix:
            opened = self.open_answer(prompts)
            return self._read_answers(opened, answers)._replace(knowledge=projected)
        start = prompts.input_ids.shape[1]
        tokens = self._open(prompts)
        teacher = None if words is None else self._read_words(tokens.until(start), words)
        if answers is not None:
            embedded = self.backbone.embed_tokens(answers.ids)
            tokens = tokens.repeat(group).then(embedded, answers.mask)
        lesson = None
        if teacher is None:
            hidden = self.backbone.read(tokens)
        else:
            layers = self.backbone.read_layers(tokens)
            hidden = layers[-1]
            lesson = Distillation(
                student=_at(layers, start + self.reasoner.tokens),
                teacher=teacher,
                emotion_logits=self.emotion_head(teacher[:, -1]),
                affect=self.affect_head(teacher[:, -1]),
            )
        logits = None
        if answers is not None:
            # The state at [EMO] predicts the first answer token, each answer state the next one.
            logits = self.backbone.logits(hidden[:, start + self.reasoner.tokens : -1])
        return self._reading(hidden[::group, start:], logits, projected)._replace(lesson=lesson)

    def open_answer(self, prompts: Prompts) -> Prefill:
        """Read prompts up to the first token of their answers."""
        tokens = self._open(prompts)
        cache = self.backbone.new_cache()
        hidden = self.backbone.read(tokens, cache)
        return Prefill(
            reading=self._reading(hidden[:, prompts.input_ids.shape[1] :], None, None),
            cache=cache,
            logits=self.backbone.logits(hidden[:, -1]),
            mask=tokens.mask,
            position=tokens.positions.amax((0, 2)) + 1,
        )

    @torch.no_grad()
    def begin_answers(self, opened: Prefill, group: int) -> Decoding:
        """Get ready to sample G answers to each prompt, in group order."""
        return Decoding(
            branch=self.backbone.branch(opened.cache, opened.mask, group),
            logits=opened.logits.repeat_interleave(group, 0),
            position=opened.position.repeat_interleave(group, 0),
        )

    @torch.no_grad()
    def extend_answers(self, state: Decoding, ids: Tensor) -> None:
        """Append one token [N] to each answer and update the state in place."""
        embedded = self.backbone.embed_tokens(ids)
        hidden = self.backbone.read_one(embedded, state.position.expand(3, -1), state.branch)
        state.logits = self.backbone.logits(hidden)
        state.position = state.position + 1

    def keep_answers(self, state: Decoding, rows: Tensor) -> None:
        """Go on with some of the answers only, by index; the state changes in place."""
        state.branch.keep(rows)
        state.logits, state.position = state.logits[rows], state.position[rows]

    def _read_words(self, prompt: InputEmbeddings, words: Answers) -> Tensor:
        """Return the states [B, N, D] at an [EMO] that follows words instead of latents."""
        told = prompt.then(self.backbone.embed_tokens(words.ids), words.mask)
        emotion = self.reasoner(len(words.ids))[:, -1:].to(told.embeddings.dtype)
        # [EMO] stands after the last word of its own row, whatever the padding between them.
        place = prompt.positions.amax((0, 2)) + words.mask.sum(1) + 1
        tokens = InputEmbeddings(
            torch.cat([told.embeddings, emotion], 1),
            torch.cat([told.mask, told.mask.new_ones(len(words.ids), 1)], 1),
            torch.cat([told.positions, repeat(place, "b -> a b 1", a=3)], 2),
            told.deepstack,
        )
        return _at(self.backbone.read_layers(tokens), -1)

    def _read_sampled(self, prompts: Prompts, sampler: Sampler) -> UnderstanderOutput:
        """Read each prompt once, sample from it without gradient, and read what was sampled."""
        opened = self.open_answer(prompts)
        answers = sampler(self, self.begin_answers(opened, sampler.repeats))
        return self._read_answers(opened, answers)

    def _read_answers(self, opened: Prefill, answers: Answers) -> UnderstanderOutput:
        """Read the G answers [B·G, L] to each prompt through its keys and values."""
        group = len(answers.ids) // len(opened.mask)
        opened.cache.batch_repeat_interleave(group)
        first, mask, position = (
            part.repeat_interleave(group, 0)
            for part in (opened.logits, opened.mask, opened.position)
        )
        steps = torch.arange(answers.ids.shape[1], device=mask.device)
        tokens = InputEmbeddings(
            self.backbone.embed_tokens(answers.ids),
            torch.cat([mask, answers.mask], 1),
            (position[:, None] + steps).expand(3, -1, -1),
        )
        hidden = self.backbone.read(tokens, opened.cache)
        logits = torch.cat([first[:, None], self.backbone.logits(hidden[:, :-1])], 1)
        return opened.reading._replace(answer_logits=logits)

    def _open(self, prompts: Prompts) -> InputEmbeddings:
        prompt = self.backbone.embed_prompts(prompts)
        latents = self.reasoner(len(prompts)).to(prompt.embeddings.dtype)
        return prompt.then(latents, prompt.mask.new_ones(latents.shape[:2]))

    def _reading(
        self, span: Tensor, logits: Tensor | None, knowledge: Tensor | None
    ) -> UnderstanderOutput:
        h_ctx, h_emo = span[:, : self.reasoner.tokens], span[:, self.reasoner.tokens]
        return UnderstanderOutput(
            h_ctx=h_ctx,
            h_emo=h_emo,
            emotion_logits=self.emotion_head(h_emo),
            affect=self.affect_head(h_emo),
            answer_logits=logits,
            knowledge=knowledge,
        )


def _group(prompts: Prompts, answers: Answers | None) -> int:
    """Return G, answers a prompt; 1 where nothing is answered."""
    if answers is None:
        return 1
    group, rest = divmod(len(answers.ids), len(prompts))
    if rest or not group:
        raise ValueError(f"{len(answers.ids)} answers to {len(prompts)} prompts")
    return group


def _at(layers: list[Tensor], place: int) -> Tensor:
    """Return the states of one place after each of N layers, [B, N, D]."""
    return torch.stack([states[:, place] for states in layers], 1)
