"""A model that is served elsewhere, asked what images evoke."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.pipeline import open_image
from emosym.records import Question, Understanding
from emosym.tasks import prompts
from emosym.tasks.answers import parse
from model_zoo.judges.answer_cache import AnswerCache
from model_zoo.judges.chat import RETRIES, TIMEOUT, Asked, Chat

ANSWER_TOKENS = 512
"""Longest answer where nothing else is said."""
TOGETHER = 64
"""Questions whose images are held in memory at once."""

ASKED = Question(
    id="judge", task="affect", images=(), split="test", text=prompts.judge(MIKELS8), labels=MIKELS8
)
"""What is asked about each image, and how its answer is read."""


class RemoteModel:
    """A vision model behind OpenAI's chat completions. It stands where a pipeline understands.

    Implements `emosym.interfaces.QuestionAnswerer`. It answers greedily (temperature 0); the same
    image is asked about once in a call, and once in all where there is a cache, whose answers are
    those of any server that serves a model of this name.
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
    ) -> None:
        """Take a server's address and a model's name, as `Chat` does; nothing is asked yet.

        Args:
            url: as `Chat`.
            model: as `Chat`.
            cache: folder that keeps the answers; None keeps none.
            timeout: as `Chat`.
            retries: as `Chat`.
            backoff: as `Chat`.

        Raises:
            UserError: as `Chat`; the folder cannot be written.
        """
        self.chat = Chat(url, model, timeout=timeout, retries=retries, backoff=backoff)
        self.cache = AnswerCache(cache) if cache is not None else None

    def understand(
        self, images: Sequence[Image.Image | Path | str], *, answer: bool = True
    ) -> list[Understanding]:
        """Say what each image evokes; probabilities are 1 for the emotion named and 0 else.

        Args:
            images: of any size; files are read as they are needed.
            answer: whether to keep the words, which are asked for in any case.

        Raises:
            UserError: no answer, or one that does not say emotion, valence and arousal as it was
                told to; nothing stands in for it.
        """
        asked = [((image,), ASKED.text, ANSWER_TOKENS) for image in images]
        texts = self._say(asked, check=self._read)
        return [self._read(text, keep=answer) for text in texts]

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        """Answer each question in words; `answers.parse` reads them.

        Args:
            questions: each about one image or a pair; files are read as they are needed.
            max_tokens: longest answer; default: `ANSWER_TOKENS`.

        Raises:
            UserError: no answer; an image cannot be read.
        """
        longest = max_tokens or ANSWER_TOKENS
        return self._say([(question.images, question.text, longest) for question in questions])

    def _say(
        self,
        asked: Sequence[tuple[Sequence[Image.Image | Path | str], str, int]],
        check: Callable[[str], object] = str,
    ) -> list[str]:
        """Return the answer to each (images, text, tokens); those that `check` passes are kept."""
        said: list[str] = []
        for start in range(0, len(asked), TOGETHER):
            turns = [
                Asked(text, tuple(open_image(image) for image in images), longest)
                for images, text, longest in asked[start : start + TOGETHER]
            ]
            said += self._say_batch(turns, check)
        return said

    def _say_batch(self, turns: Sequence[Asked], check: Callable[[str], object]) -> list[str]:
        identities = [self._identity(turn) for turn in turns]
        names = [repr(identity) for identity in identities]
        by_name = dict(zip(names, zip(identities, turns, strict=True), strict=True))
        said: dict[str, str] = {}
        if self.cache is not None:
            held = {name: self.cache.get(identity) for name, (identity, _) in by_name.items()}
            said = {name: text for name, text in held.items() if text is not None}

        def keep(name: str, text: str) -> None:
            check(text)
            said[name] = text
            if self.cache is not None:
                self.cache.put(by_name[name][0], text)

        self.chat.ask({n: turn for n, (_, turn) in by_name.items() if n not in said}, keep)
        return [said[name] for name in names]

    def _identity(self, turn: Asked) -> dict[str, object]:
        """Return what decides an answer, as plain data."""
        return {
            "model": self.chat.model,
            "images": [_sha256(image) for image in turn.images],
            "text": turn.text,
            "max_tokens": turn.max_tokens,
        }

    def _read(self, text: str, keep: bool = True) -> Understanding:
        said = parse(text, ASKED).said
        missing = [key for key in ("emotion", "valence", "arousal") if key not in said]
        if missing:
            raise UserError(
                f"{self.chat.model!r} at {self.chat.url} does not say the {missing[0]} of an image",
                got=repr(self.chat.shown(text)),
                expected="<answer>Emotion: word; Valence: x.x; Arousal: x.x</answer>",
                fix="take a model that follows instructions, or one that thinks less",
            )
        return Understanding(
            emotion=said["emotion"],
            probabilities={label: float(label == said["emotion"]) for label in ASKED.labels},
            valence=said["valence"],
            arousal=said["arousal"],
            answer=text if keep else "",
        )


def _sha256(image: Image.Image) -> str:
    """Return the hash of an RGB image's size and pixels, whatever file they came from."""
    size = f"{image.width} {image.height} ".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()
