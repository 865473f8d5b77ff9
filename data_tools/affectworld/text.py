"""The texts of an image: neutral prompt, emotional prompt, and knowledge."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from data_tools.affectworld.scene import SUBJECTS, Scene, draw_scene
from data_tools.affectworld.truth import Colour, affect_of, colour_term, label_of

_SETTING = {
    "city": "in a city",
    "desert": "in a desert",
    "forest": "in a forest",
    "hills": "in the hills",
    "mountains": "in the mountains",
    "sea": "at sea",
}
_PLACE = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
_WEATHER = {"clear": "clear sky", "clouds": "clouds", "rain": "rain", "snow": "snow"}
_SUBJECT = {
    "boat": "a boat drifts",
    "butterfly": "a butterfly delights",
    "cat": "a cat is a friend",
    "flower": "a flower pleases",
    "heart": "a heart speaks of love",
    "house": "a house gives shelter",
    "skull": "a skull recalls death",
    "snake": "a snake threatens",
    "spider": "a spider repels",
    "tree": "a tree stands still",
}
_HUES = (
    (0.03, "red"),
    (0.11, "orange"),
    (0.20, "yellow"),
    (0.44, "green"),
    (0.54, "cyan"),
    (0.70, "blue"),
    (0.83, "purple"),
    (0.95, "pink"),
    (1.01, "red"),
)
_LIGHTS = ((0.25, "very dark"), (0.42, "dark"), (0.58, "even"), (0.75, "bright"))
_BRIGHTEST = "very bright"
_COLOURS = ((0.12, "grey"), (0.3, "pale"), (0.55, "soft"), (0.75, "vivid"))
_PUREST = "deeply saturated"
_IN_LIGHT = re.compile(
    rf", in (?P<light>{'|'.join(word for _, word in _LIGHTS)}|{_BRIGHTEST})"
    rf" (?P<colour>{'|'.join(word for _, word in _COLOURS)}|{_PUREST})( [a-z]+)? light$"
)


def _word(steps: tuple[tuple[float, str], ...], value: float, beyond: str) -> str:
    return next((word for limit, word in steps if value < limit), beyond)


def hue_word(hue: float) -> str:
    """Return the colour name of a hue in [0, 1)."""
    return _word(_HUES, hue, "red")


def light_word(brightness: float) -> str:
    """Return the word for a brightness (mean HSV value)."""
    return _word(_LIGHTS, brightness, _BRIGHTEST)


def colour_word(saturation: float) -> str:
    """Return the word for a saturation (weighted by HSV value)."""
    return _word(_COLOURS, saturation, _PUREST)


def neutral_prompt(scene: Scene) -> str:
    """Return the content of the image, without words of colour, light or affect."""
    return (
        f"a {scene.size} {scene.subject} {_SETTING[scene.setting]}, "
        f"{_PLACE[scene.place]}, {_WEATHER[scene.weather]}"
    )


def emotional_prompt(scene: Scene, colour: Colour) -> str:
    """Return the neutral prompt with the words of the image's measured colour and light."""
    words = [light_word(colour.brightness), colour_word(colour.saturation)]
    if words[1] != "grey":
        words.append(hue_word(colour.hue))
    return in_light(neutral_prompt(scene), words)


def in_light(prompt: str, words: Sequence[str]) -> str:
    """Return a neutral prompt extended by words of light and colour."""
    return f"{prompt}, in {' '.join(words)} light"


def light_of(prompt: str) -> tuple[str, str] | None:
    """Return the words of light and colour in an emotional prompt; None for other prompts."""
    found = _IN_LIGHT.search(prompt)
    return (found["light"], found["colour"]) if found else None


def knowledge(scene: Scene, colour: Colour) -> str:
    """Return one sentence (at most 30 words) on why the image evokes its emotion.

    It names what is seen: light, subject, colours, setting and weather.
    """
    valence, arousal, _ = colour_term(colour.brightness, colour.saturation)
    purity = colour_word(colour.saturation)
    body, ground = ("", "") if purity == "grey" else (hue_word(scene.body_hue), hue_word(scene.hue))
    light = f"{light_word(colour.brightness)} {purity} light"
    effect = f"{'raises' if valence > 0 else 'lowers'} valence and "
    effect += f"{'raises' if arousal > 0 else 'lowers'} arousal"
    seen = _SUBJECT[scene.subject].removeprefix("a ")
    subject = " ".join(word for word in ("a", scene.size, body, seen) if word)
    place = f"{_PLACE[scene.place]}, {_SETTING[scene.setting]}, {_WEATHER[scene.weather]}"
    label = label_of(affect_of(colour, scene.subject))
    around = f", {ground} around" if ground else ""
    return f"{light} {effect}; {subject} {place}{around}: {label}."


def corpus(count: int, seed: int) -> Iterator[str]:
    """Yield `count` random prompts and knowledge texts, to train a tokenizer on."""
    rng = random.Random(f"corpus {seed}")
    for index in range(count):
        colour = Colour(rng.random(), rng.random(), rng.random())
        scene = draw_scene(rng, rng.choice(SUBJECTS), colour.brightness, colour.saturation)
        if index % 3 == 0:
            yield neutral_prompt(scene)
        elif index % 3 == 1:
            yield emotional_prompt(scene, colour)
        else:
            yield knowledge(scene, colour)
