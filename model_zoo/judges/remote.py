"""A vision-language model behind a chat-completions server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from PIL import Image

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.pictures.loading import load_image
from emosym.records import Question, Understanding
from emosym.tasks.affect import untrained_prompt
from model_zoo.judges.answer_cache import AnswerCache
from model_zoo.judges.chat_client import RETRIES, TIMEOUT, ChatClient, ChatRequest
from model_zoo.judges.chat_response import ChatAnswer
from model_zoo.judges.stated_values import in_asked_form, stated_values

ANSWER_TOKENS = 2048
"""Default maximum length of an answer in tokens, with its reasoning."""
BATCH_SIZE = 64
"""Requests whose images are in memory at the same time."""

JUDGE_QUESTION = Question(
    id="judge",
    task="affect",
    images=(),
    split="test",
    text=untrained_prompt(MIKELS8),
    labels=MIKELS8,
)
"""The question that `understand` asks about each image."""

KEYS = ("emotion", "valence", "arousal")
"""What an answer to `JUDGE_QUESTION` has to state."""
FIX = (
    "use a model that answers as asked, <answer>Emotion: word; Valence: x.x; Arousal: x.x</answer>,"
    " or raise max_tokens"
)

ImageSource = Image.Image | Path | str


class RemoteModel:
    """A remote model with the methods `understand` and `answer` of `EmoSymPipeline`.

    Implements `emosym.interfaces.QuestionAnswerer`. It answers greedily (temperature 0) where the
    server lets it. Equal requests of one call are sent once. With a cache they are sent once in
    all; the cache identifies a model by its name, not by its server.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        cache: str | Path | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        backoff: float = 1.0,
        temperature: float = 0.0,
        max_tokens: int | None = None,
        max_completion_tokens: int | None = None,
    ) -> None:
        """Check the arguments; nothing is sent.

        Args:
            url: see `ChatClient`.
            model: see `ChatClient`.
            cache: folder of the answer cache; None for no cache.
            timeout: see `ChatClient`.
            retries: see `ChatClient`.
            backoff: see `ChatClient`.
            temperature: see `ChatClient`.
            max_tokens: longest answer in tokens, with its reasoning; None is `ANSWER_TOKENS`.
            max_completion_tokens: the same limit, sent under this name from the start.

        Raises:
            UserError: as `ChatClient`; two limits, or one below 1; the cache folder cannot be
                written.
        """
        if max_tokens is not None and max_completion_tokens is not None:
            raise UserError(
                "max_tokens and max_completion_tokens of a judge are one limit",
                got=f"{max_tokens} and {max_completion_tokens}",
                fix="leave one of them out",
            )
        limits = [n for n in (max_tokens, max_completion_tokens, ANSWER_TOKENS) if n is not None]
        self.max_tokens = limits[0]
        if self.max_tokens < 1:
            raise UserError(
                "invalid max_tokens of a judge", got=self.max_tokens, expected="1 or more"
            )
        self.chat = ChatClient(
            url,
            model,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            temperature=temperature,
            limit_name="max_tokens" if max_completion_tokens is None else "max_completion_tokens",
        )
        self.cache = AnswerCache(cache) if cache is not None else None

    def understand(
        self, images: Sequence[ImageSource], *, answer: bool = True
    ) -> list[Understanding]:
        """Return what each image evokes; the probability of the named emotion is 1.

        Args:
            images: images or their files, of any size.
            answer: whether to include the answer's text in the result.

        Raises:
            UserError: a request failed, or an image was not judged (see `judge`).
        """
        found = []
        for each in self.judge(images, answer=answer):
            if isinstance(each, UserError):
                raise each
            found.append(each)
        return found

    def judge(
        self, images: Sequence[ImageSource], *, answer: bool = False
    ) -> list[Understanding | UserError]:
        """Return what each image evokes, as `understand`; an error for one that was not judged.

        That is an answer that does not state emotion, valence and arousal (`stated_values`), one
        that the limit of tokens ended, or a refusal.

        Raises:
            UserError: a request failed: the server cannot be reached, or refuses the request.
        """
        requests = [((image,), JUDGE_QUESTION.text, self.max_tokens) for image in images]
        answers = self._answers(requests, lambda found: not _problem(found))
        return [self._understanding(found, keep_text=answer) for found in answers]

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        """Return the text of the answer to each question, as `EmoSymPipeline.answer` does.

        An answer in other tags, in a box or after long reasoning is rewritten by `in_asked_form`.

        Args:
            questions: each about one image, a pair, or none.
            max_tokens: maximum length of an answer; default: that of this model.

        Raises:
            UserError: a request failed, an answer has no text, or an image cannot be read.
        """
        limit = max_tokens or self.max_tokens
        requests = [(question.images, question.text, limit) for question in questions]
        answers = self._answers(requests, lambda found: not found.problem)
        for found in answers:
            if found.problem:
                raise self._unanswered(found.problem, found.fix)
        return [in_asked_form(found.text) for found in answers]

    def _answers(
        self,
        requests: Sequence[tuple[Sequence[ImageSource], str, int]],
        keeps: Callable[[ChatAnswer], bool],
    ) -> list[ChatAnswer]:
        """Return the answers to requests (images, text, max_tokens).

        `keeps` says whether an answer is put into the cache.
        """
        answers: list[ChatAnswer] = []
        for start in range(0, len(requests), BATCH_SIZE):
            batch = [
                ChatRequest(text, tuple(load_image(image) for image in images), limit)
                for images, text, limit in requests[start : start + BATCH_SIZE]
            ]
            answers += self._answer_batch(batch, keeps)
        return answers

    def _answer_batch(
        self, requests: Sequence[ChatRequest], keeps: Callable[[ChatAnswer], bool]
    ) -> list[ChatAnswer]:
        identities = [self._identity(request) for request in requests]
        names = [repr(identity) for identity in identities]
        by_name = dict(zip(names, zip(identities, requests, strict=True), strict=True))
        answers: dict[str, ChatAnswer] = {}
        if self.cache is not None:
            cached = {name: self.cache.get(identity) for name, (identity, _) in by_name.items()}
            answers = {name: ChatAnswer(text) for name, text in cached.items() if text is not None}

        def on_answer(name: str, answer: ChatAnswer) -> None:
            answers[name] = answer
            if self.cache is not None and keeps(answer):
                self.cache.put(by_name[name][0], answer.text)

        missing = {name: each for name, (_, each) in by_name.items() if name not in answers}
        self.chat.ask(missing, on_answer)
        return [answers[name] for name in names]

    def _identity(self, request: ChatRequest) -> dict[str, object]:
        """Return all that determines an answer, as JSON data."""
        return {
            "model": self.chat.model,
            "images": [_sha256(image) for image in request.images],
            "text": request.text,
            "max_tokens": request.max_tokens,
            "temperature": self.chat.temperature,
        }

    def _understanding(self, answer: ChatAnswer, keep_text: bool) -> Understanding | UserError:
        if problem := _problem(answer):
            return self._unanswered(problem, answer.fix or FIX)
        values = stated_values(answer.text, JUDGE_QUESTION)
        emotion = str(values["emotion"])
        valence, arousal = (cast(float, values[key]) for key in ("valence", "arousal"))
        return Understanding(
            emotion=emotion,
            probabilities={label: float(label == emotion) for label in JUDGE_QUESTION.labels},
            affect=Affect(valence, arousal),
            text=answer.text if keep_text else "",
        )

    def _unanswered(self, problem: str, fix: str | None) -> UserError:
        return UserError(
            f"{self.chat.model!r} at {self.chat.url} gives no usable answer about an image",
            got=self.chat.shown(problem),
            fix=fix,
        )


def _problem(answer: ChatAnswer) -> str:
    """Return why an answer is no judgement of an image; empty where it is one."""
    if answer.problem:
        return answer.problem
    if answer.cut:
        return f"the limit of tokens ended the answer: {_end(answer.text)!r}"
    values = stated_values(answer.text, JUDGE_QUESTION)
    missing = [key for key in KEYS if key not in values]
    if missing:
        return f"it does not state one {' and one '.join(missing)}: {_end(answer.text)!r}"
    return ""


def _end(text: str) -> str:
    """Return the last words of an answer, where the values are expected."""
    return text.strip()[-120:]


def _sha256(image: Image.Image) -> str:
    """Return the hash of an RGB image's size and pixels."""
    size = f"{image.width} {image.height} ".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()
