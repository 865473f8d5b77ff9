from __future__ import annotations

import pytest

from emosym.tasks.choices import chosen

MOODS = {"A": "Fear.", "B": "Joy.", "C": "Neutral."}
FIGURES = {"A": "Figure 1 and Figure 2", "B": "Figure 1", "C": "Figure 2"}
PICTURES = {"A": "The first picture.", "B": "The second picture."}
YES = {"A": "No.", "B": "Yes."}


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        # a letter
        ("B", MOODS, "B"),
        ("B:Joy.", MOODS, "B"),
        ("(C)", MOODS, "C"),
        ("**A: Fear.**", MOODS, "A"),
        ("C\n\nNothing moves.", MOODS, "C"),
        ("D: Anger", MOODS, None),
        ("b: joy is far from it", {"A": "x", "B": "y"}, None),
        # the last one counts: a model weighs the options, then concludes
        ("**A: Fear.** Not here.\n**B: Joy.** Yes.", MOODS, "B"),
        # what is announced counts before what is listed
        ("The answer is C: Neutral.\nThe others are wrong:\nA: no\nB: no", MOODS, "C"),
        ("- Option A is wrong\n- Option B is wrong\nso **Option C** is right.", MOODS, "C"),
        ("**Answer**: B\nA: Fear is too strong.", MOODS, "B"),
        # words
        ("It is joy that both of them evoke.", MOODS, "B"),
        ("Figure 2's colours do.", FIGURES, "C"),
        ("Figure 2 is calmer than Figure 1.", FIGURES, "C"),
        ("Figure 1 and Figure 2", FIGURES, "A"),
        ("Figure 1, and less so Figure 2", FIGURES, "B"),
        ("The second image is brighter than the first picture.", PICTURES, "B"),
        ("Joyful", MOODS, None),
        ("A tree stands alone.", MOODS, None),
        ("I won't guess", MOODS, None),
        ("", MOODS, None),
        ("A", {}, None),
        # the question said again
        ("Choose between A:Fear. B:Joy. C:Neutral.", MOODS, None),
        ("Choose between A: Fear. B: Joy. C: Neutral.\nJoy.", MOODS, "B"),
        ("Is it so? A:No. B:Yes. Is it so? A:No. B:Yes.", YES, None),
    ],
)
def test_what_a_text_chooses(text, options, letter):
    assert chosen(text, options) == letter


def test_an_option_without_words_is_never_named():
    assert chosen("It is calm.", {"A": "", "B": "..."}) is None
