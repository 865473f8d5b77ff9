from __future__ import annotations

import pytest

from emosym.records import Question
from emosym.tasks.answers import LONGEST as PARSED
from emosym.tasks.answers import parse
from model_zoo.judges.remote import JUDGE_QUESTION
from model_zoo.judges.stated_values import LONGEST, in_asked_form, stated_values

FACTS = "Emotion: fear; Valence: -1.5; Arousal: 2.0"
VALUES = {"emotion": "fear", "valence": -1.5, "arousal": 2.0}
TAGGED = f"<answer>{FACTS}</answer>"
OTHER = "<answer>Emotion: awe; Valence: 2.0; Arousal: 1.0</answer>"

SAME = {
    "as asked": f"<think>dark</think>{TAGGED}",
    "without reasoning": TAGGED,
    "bare": FACTS,
    "full stop": f"<answer>{FACTS}.</answer>",
    "full stops": "Emotion: fear. Valence: -1.5. Arousal: 2.",
    "bold key": "**Emotion:** fear\n**Valence:** -1.5\n**Arousal:** 2.0",
    "bold key, colon outside": "**Emotion**: fear\n**Valence**: -1.5\n**Arousal**: 2.0",
    "bold value": "Emotion: **Fear**; Valence: **-1.5**; Arousal: **2.0**",
    "italics": "*Emotion*: _fear_; _Valence_: *-1.5*; _Arousal_: 2",
    "code": "`Emotion`: `fear`, `Valence`: `-1.5`, `Arousal`: `2.0`",
    "bold in the tags": "<answer>**Emotion:** fear; **Valence:** -1.5; **Arousal:** 2</answer>",
    "commas": "<answer>Emotion: fear, Valence: -1.5, Arousal: 2.0</answer>",
    "commas without spaces": "Emotion:fear,Valence:-1.5,Arousal:2.0",
    "lines": "<answer>\nEmotion: fear\nValence: -1.5\nArousal: 2.0\n</answer>",
    "Windows lines": "Emotion: fear\r\nValence: -1.5\r\nArousal: 2.0\r\n",
    "bullets": "- Emotion: fear\n- Valence: -1.5\n- Arousal: 2.0",
    "stars": "* **Emotion:** fear\n* **Valence:** -1.5\n* **Arousal:** 2.0",
    "numbered": "1. Emotion: fear\n2. Valence: -1.5\n3. Arousal: 2.0",
    "headings": "### Emotion\nfear\n\n### Valence\n-1.5\n\n### Arousal\n2.0",
    "rows of a table": "|---|---|\n| Emotion | fear |\n| Valence | -1.5 |\n| Arousal | 2.0 |",
    "bars": "Emotion: fear | Valence: -1.5 | Arousal: 2.0",
    "slashes": "Emotion: fear / Valence: -1.5 / Arousal: 2.0",
    "equals": "emotion = fear, valence = -1.5, arousal = 2.0",
    "arrows": "Emotion -> fear; Valence -> -1.5; Arousal → 2.0",
    "no signs": "Emotion: fear Valence: -1.5 Arousal: 2.0",
    "sentences": "The emotion is fear. The valence is -1.5 and the arousal is 2.0.",
    "other order": "Arousal: 2.0; Emotion: fear; Valence: -1.5",
    "upper case": "EMOTION: FEAR; VALENCE: -1.5; AROUSAL: 2.0",
    "plus": "Emotion: fear; Valence: -1.5; Arousal: +2",
    "exponent": '{"emotion": "fear", "valence": -1.5e0, "arousal": 2}',
    "minus sign": "Emotion: fear; Valence: \u22121.5; Arousal: 2.0",
    "en dash": "Emotion: fear; Valence: \u20131.5; Arousal: 2.0",
    "small minus": "Emotion: fear; Valence: \ufe631.5; Arousal: 2.0",
    "hyphen": "Emotion: fear; Valence: \u20101.5; Arousal: 2.0",
    "full width": "Emotion\uff1afear\uff0cValence\uff1a\uff0d\uff11.\uff15; Arousal\uff1a\uff12",
    "ideographic space": "Emotion\uff1a\u3000fear\nValence\uff1a\u3000-1.5\nArousal\uff1a\u30002",
    "no-break space": "Emotion:\u00a0fear; Valence:\u00a0-1.5; Arousal:\u00a02.0",
    "zero width": "\ufeffEmotion: \u200bfear; Valence: -1.5\u200b; Arousal: 2.0",
    "remarks": "Emotion: fear (strong); Valence: -1.5 (unpleasant); Arousal: 2.0 (high, 2 of 3)",
    "scale named": "Emotion: fear, Valence (from -3 to 3): -1.5, Arousal (-3 to 3): 2.0",
    "reasons": "Emotion: fear\nValence: -1.5, as it is dark\nArousal: 2.0, as it is loud",
    "further field": "Emotion: fear; Valence: -1.5; Arousal: 2.0; Dominance: -1.0",
    "further field after a comma": "Emotion: fear, Valence: -1.5, Arousal: 2.0, Confidence: 0.9",
    "dominant emotion": "Dominant emotion: fear; Valence: -1.5; Arousal: 2.0",
    "JSON": '{"emotion": "fear", "valence": -1.5, "arousal": 2.0}',
    "JSON with words": '{"Emotion": "Fear", "Valence": "-1.5", "Arousal": "2.0"}',
    "JSON with more": '{"why": "dark", "emotion": "fear", "valence": -1.5, "arousal": 2, "p": 0.9}',
    "JSON within JSON": '{"answer": {"emotion": "fear", "va": {"valence": -1.5, "arousal": 2}}}',
    "JSON of a text": '{"answer": "Emotion: fear; Valence: -1.5; Arousal: 2.0"}',
    "fenced JSON": '```json\n{\n  "emotion": "fear",\n  "valence": -1.5,\n  "arousal": 2.0\n}\n```',
    "JSON in the tags": '<answer>{"emotion": "fear", "valence": -1.5, "arousal": 2.0}</answer>',
    "JSON after words": 'It is dark.\n{"emotion": "fear", "valence": -1.5, "arousal": 2.0}',
    "Python": "{'emotion': 'fear', 'valence': -1.5, 'arousal': 2.0}",
    "upper-case tags": f"<THINK>dark</THINK><ANSWER>{FACTS}</ANSWER>",
    "mixed tags": f"<Think>dark</think><Answer>{FACTS}</answer>",
    "spaced tags": f"<answer >{FACTS}</ answer>",
    "box": f"<|begin_of_box|>{FACTS}<|end_of_box|>",
    "box in the tags": f"<answer><|begin_of_box|>{FACTS}<|end_of_box|></answer>",
    "tags in the box": f"<|begin_of_box|>{TAGGED}<|end_of_box|>",
    "TeX box": "\\boxed{Emotion: fear; Valence: -1.5; Arousal: 2.0}",
    "HTML": "<b>Emotion:</b> fear<br>Valence: -1.5<br>Arousal: 2.0",
    "numbers in the reasoning": f"<think>Valence: 1? Arousal: 3. Emotion: awe</think>{FACTS}",
    "an answer in the reasoning": f"<think>Say {OTHER}? No.</think>{TAGGED}",
    "long reasoning": f"<think>{'Perhaps valence: 2. ' * 5000}</think>\n{TAGGED}",
    "reasoning opened by the template": f"Valence: 2, or 1.\n</think>\n{TAGGED}",
    "reasoning opened twice": f"<think>\n<think>Valence: 2</think>{FACTS}",
    "reasoning between": f"<think>a</think>Well.<think>Valence: 3</think>{FACTS}",
    "reasoning after": f"{TAGGED}<think>Valence: 3</think>",
    "another name of reasoning": f"<thinking>Valence: 1</thinking>{FACTS}",
    "Kimi's reasoning": f"◁think▷Valence: 1◁/think▷{FACTS}",
    "reasoning without an end": f"<think>Valence: 1 or 2{TAGGED}",
    "words around the tags": f"I feel valence: 1. {TAGGED} That is all.",
    "the same twice": f"{TAGGED}\n{TAGGED}",
    "the same in another form": f'{TAGGED}<answer>{{"emotion": "fear", "valence": -1.50}}</answer>',
    "in two parts": "<answer>Emotion: fear</answer><answer>Valence: -1.5; Arousal: 2</answer>",
    "the question's form repeated": f"<answer>Emotion: word; Valence: x.x</answer>{TAGGED}",
    "tags opened by the template": f"{FACTS}</answer>",
    "JSON before a remark": '{"emotion": "fear", "valence": -1.5, "arousal": 2.0} It has 3 snakes.',
    "escaped JSON": '{\\"emotion\\": \\"fear\\", \\"valence\\": -1.5, \\"arousal\\": 2.0}',
    "curly quotes": "{\u201cemotion\u201d: \u201cfear\u201d, 'valence': -1.5, 'arousal': 2}",
    "XML": "<emotion>fear</emotion><valence>-1.5</valence><arousal>2.0</arousal>",
    "XML in the tags": "<answer><Emotion>fear</Emotion>\n<Valence> -1.5 </Valence>\n"
    "<Arousal>2.0</Arousal></answer>",
    "XML before a remark": "<emotion>fear</emotion><valence>-1.5</valence><arousal>2</arousal> 3",
    "remarks after dashes": "Emotion: fear - the snake\nValence: -1.5 - dark\nArousal: 2.0",
    "em-dash remarks": "Emotion: fear \u2014 a snake; Valence: -1.5 \u2014 dark; Arousal: 2",
    "tabs": "Emotion\tfear\nValence\t-1.5\nArousal\t2.0",
    "emoji after": "Emotion: fear \U0001f628; Valence: -1.5; Arousal: 2.0",
    "emoji with a variation": "Emotion: fear \u2639\ufe0f\nValence: -1.5\nArousal: 2.0",
    "ideographic full stop": "Emotion: fear\u3002Valence: -1.5\u3002Arousal: 2.0\u3002",
    "ideographic comma": "Emotion: fear\u3001Valence: -1.5\u3001Arousal: 2.0",
    "scores": "Emotion: fear; Valence score: -1.5; Arousal score: 2.0",
    "ratings": '{"emotion_label": "fear", "valence_rating": -1.5, "arousal_rating": 2.0}',
    "em dash": "Emotion: fear; Valence: \u20141.5; Arousal: 2.0",
    "superscript minus": "Emotion: fear; Valence: \u207b1.5; Arousal: 2.0",
    "heavy minus": "Emotion: fear; Valence: \u27961.5; Arousal: 2.0",
    "soft hyphen": "Emo\u00adtion: fear; Valence: -1.5; Arousal: 2.0",
    "Mistral's reasoning": f"[THINK]Emotion: awe; Valence: 1[/THINK]{FACTS}",
    "Seed's reasoning": f"<seed:think>Emotion: awe; Valence: 1</seed:think>{FACTS}",
    "reasoning with an attribute": f'<think time="3">Emotion: awe; Valence: 1</think>{FACTS}',
    "the asked scale": f"On a scale from -3 to +3:\n{FACTS}",
    "a TeX box of the same": f"{TAGGED} $\\boxed{{{FACTS}}}$",
    "a correction before": f"It looks like awe; actually, no.\n{FACTS}",
    "a word of correction in a reason": f"{FACTS}\nReason: the snake could be poisonous.",
    "an idiom": f"I can't help but shudder.\n{FACTS}",
    "an example in a reason": f"It is dark, for example at the left.\n{FACTS}",
    "a table": "| Emotion | Valence | Arousal |\n|---|---|---|\n| fear | -1.5 | 2.0 |",
    "a table without a frame": "**Emotion** | **Valence**|Arousal\n:--|:-:|--:\nFear|-1.5|2.0\n\n",
    "a table with more": "It is dark.\n| | valence (-3 to 3) | Why | arousal | EMOTION |\n"
    "|--|--|--|--|--|\n| a | -1.5 | 3 snakes | 2 | fear |\nThat is all.",
    "a table without a rule": "| emotion | valence | arousal |\r\n| `fear` | -1.5 | +2 |\r\n",
    "a table of the same twice": "emotion|valence|arousal\nfear|-1.5|2\nfear|-1.50|2.0",
    "CSV": "emotion,valence,arousal\nfear,-1.5,2.0",
    "CSV in a fence": '```csv\n"emotion", "valence", "arousal"\n"fear", "-1.5", "2.0"\n```',
    "CSV with semicolons": "<answer>emotion;valence;arousal\nfear;-1.5;2.0\n</answer>",
    "a table with tabs": "emotion\tvalence\tarousal\nfear\t-1.5\t2.0",
    "JSON within scores": '{"emotion": "fear", "score": {"valence": -1.5, "arousal": 2.0}}',
    "JSON of scores": '{"emotion": {"label": "fear", "score": 0.8}, "valence": {"score": -1.5},'
    ' "arousal": {"value": 2, "confidence": 1}}',
    "channels": "<|channel|>analysis<|message|>Emotion: awe? Valence: 1.<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{FACTS}<|return|>",
    "the channel opened by the template": "Emotion: awe? Valence: 1.<|end|><|start|>assistant"
    f"<|channel|>final <|constrain|>JSON<|message|>{TAGGED}",
    "a channel of tools": f"<|channel|>commentary to=a.b<|message|>{OTHER}<|call|>"
    f"<|channel|>final<|message|>{FACTS}",
    "a remark on what is not there": f"I see no people, and nothing here threatens me. {FACTS}",
    "a remark in the negative": f"I don't notice any danger, I have no doubt. {FACTS}",
    "another label before": f"Fear or awe? Fear, I think.\n{FACTS}",
    "another label in a remark": "Emotion: fear (more than awe); Valence: -1.5; Arousal: 2.0",
    "as asked for": f"Here is the answer in the form you asked for.\n{FACTS}",
}  # fmt: skip


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_an_answer_in_another_form_is_the_same_answer(text):
    assert stated_values(text, JUDGE_QUESTION) == VALUES


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("0", 0.0), ("-0.0", 0.0), (".5", 0.5), ("-.5", -0.5), ("+1", 1.0), ("+.25", 0.25),
        ("\u2212.5", -0.5), ("3.", 3.0), ("3", 3.0), ("-3.00", -3.0), ("03", 3.0), ("1e0", 1.0),
        ("1.23456789", 1.234568), ("\uff0b\uff11", 1.0), ("-2.5;", -2.5), ("1,", 1.0),
    ],
)  # fmt: skip
def test_numbers(number, value):
    for text in (
        f"Valence: {number}",
        f"**Valence:** {number}\n",
        f"<answer>Valence: {number}</answer>",
    ):
        found = stated_values(text, JUDGE_QUESTION)
        assert found == {"valence": pytest.approx(value)}


UNREADABLE = [
    "", "nan", "NaN", "inf", "-inf", "1e999", "1e5", "high", "x.x", "3.01", "-4", "30", "3 / 5",
    "3/5", "2/3", "2 out of 3", "50%", "1-2", "1 - 2", "1 to 2", "1 or 2", "1, 2", "1,5", "-1,5",
    "1.5.2", "1..2", "--1", "+-1", "- 1", "\u00b11", "~1", "0x1", "1_0", "1.5 points", "2\u00bd",
    "\u0663", "\u00b2", "9" * 400, "0." + "0" * 400, "not 2", "1; 5", "minus one", "null", "true",
]  # fmt: skip


@pytest.mark.parametrize("number", UNREADABLE)
def test_what_is_no_single_number_on_the_scale_is_not_read(number):
    for text in (f"Valence: {number}", f"<answer>Emotion: awe; Valence: {number}</answer>"):
        assert "valence" not in stated_values(text, JUDGE_QUESTION)
    rest = stated_values(f"Emotion: awe; Arousal: 1.0; Valence: {number}", JUDGE_QUESTION)
    assert rest == {"emotion": "awe", "arousal": 1.0}


@pytest.mark.parametrize(
    "label",
    ["", "joyous", "fear and awe", "fear/awe", "fear, awe", "fear or anger", "not fear", "3",
     "a mix of fear", "melancholy", "fearful", "fear - awe", "fear; Emotion: awe"],
)  # fmt: skip
def test_what_is_no_single_emotion_is_not_read(label):
    found = stated_values(f"Valence: 1.0; Arousal: 1.0; Emotion: {label}", JUDGE_QUESTION)
    assert "emotion" not in found
    assert found["valence"] == 1.0


@pytest.mark.parametrize(
    "text",
    [
        TAGGED + OTHER,
        f"<|begin_of_box|>{FACTS}<|end_of_box|><|begin_of_box|>{FACTS[:-3]}1.0<|end_of_box|>",
        f"{FACTS}\nValence: 1.0; Arousal: 1.0; Emotion: awe",
        f"{FACTS}\n" + '{"emotion": "awe", "valence": 1, "arousal": 1}',
        "Emotion: fear; Valence: high; Arousal: low; Valence: 1.0; Emotion: awe; Arousal: 2.0",
        "emotion,valence,arousal\nfear,-1.5,2.0\nawe,1,1",
        f"emotion,valence,arousal\nfear,-1.5,2.0\n\n{OTHER[8:-9]}",
        f"<|channel|>final<|message|>{FACTS}<|end|><|channel|>final<|message|>{OTHER[8:-9]}",
        '[{"emotion": "fear", "valence": 1, "arousal": 1},'
        ' {"emotion": "awe", "valence": 2, "arousal": 2}]',
    ],
)
def test_two_answers_that_differ_are_not_read(text):
    found = stated_values(text, JUDGE_QUESTION)
    assert not {"emotion", "valence", "arousal"} <= set(found)
    assert "arousal" not in found


@pytest.mark.parametrize(
    "text",
    [
        "", "fear", "I cannot say.", "-1.5, 2.0", "fear, -1.5, 2.0", "V: -1.5, A: 2.0",
        f"<think>{FACTS}", f"<think>{FACTS}</think>", f"<think>{TAGGED}</think>",
        f"<think>Say {TAGGED}, or not", f"<answer>{FACTS}", f"{TAGGED}<answer>Emotion: aw",
        f"<|begin_of_box|>{FACTS}", f"{FACTS}<think>", f"{FACTS}</think>",
        '{"emotion": "fear", "valence": -1.5, "arousal": 2',
        '```json\n{"emotion": "fear", "valence": -1.5, "arousal": 2.0',
        "| Emotion | Valence | Arousal |\n|---|---|---|\n| fear | -1.5 |",
        "emotion,valence,arousal\nfear,-1,5,2", "valence,emotion\n",
        "fear,-1.5,2.0\nemotion,valence,arousal",
        f"<|channel|>analysis<|message|>{FACTS}", f"<|channel|>analysis<|message|>{TAGGED}<|end|>",
        '{"score": 0.8}', "Final: fear", "Final: 1.5",
        "<answer></answer>", "<answer>Emotion: word; Valence: x.x; Arousal: x.x</answer>",
        "Emotional valence is low, arousing fear 2.0",
    ],
)  # fmt: skip
def test_what_states_no_answer_is_not_read(text):
    assert stated_values(text, JUDGE_QUESTION) == {}


WITHDRAWN = [
    f"{FACTS}. Correction: valence should be 1.5",
    f"{FACTS}\nCorrection: 1.5 for valence",
    f"{FACTS}\nWait, actually the valence is -2.5.",
    f"{FACTS}\nActually, awe fits better.",
    f"{FACTS}\nHmm: change valence to -2.5",
    f"{FACTS}\nThe valence could be closer to 0.",
    f"{FACTS}; on second thought, 1.5",
    f"{TAGGED}\nSorry, valence should have been 1.5.",
    f"{FACTS}\nActually the picture is so very wide, so dark and so full of small things that I"
    " wait, make that awe.",
    f"{FACTS}\nNo wait. 1.5.",
    f"{FACTS}\nEDIT: awe",
    f"{FACTS}\nI would rather say awe.",
    "Emotion: fear; Valence (1 = low, 9 = high): 2; Arousal: 2.0",
    "Emotion: fear; Valence: 2 (on a 1-9 scale); Arousal: 2.0",
    "Emotion: fear; Valence: 2 (1 to 9); Arousal: 2.0",
    "Emotion: fear; Valence (1\u20139): 2; Arousal (1\u20139): 2.0",
    "Emotion: fear; Valence: 2 (out of 10); Arousal: 2.0",
    "Emotion: fear; Valence (/10): 2; Arousal: 2.0",
    "Emotion: fear (scale 0-10)\nValence: 2\nArousal: 3",
    "Emotion: fear; Valence [0, 1]: 0.5; Arousal: 0.5",
    "Emotion: fear; Valence (%): 2; Arousal: 3",
    f"I use a 5-point scale.\n{FACTS}",
    f"From here, a scale of 1 (unpleasant) to 9 (pleasant) is used.\n{FACTS}",
    f"I rate it on the scale from 1 to 9. {TAGGED}",
    f"I cannot judge this. {FACTS}",
    f"I\u2019m unable to see the picture. {TAGGED}",
    f"It is impossible to judge this image. {FACTS}",
    f"I do not feel emotions. {FACTS}",
    f"I don't have feelings, but here is a guess. {FACTS}",
    f"{TAGGED}\nI am not sure.",
    f"We have no picture: {FACTS}",
    f"I never judge people. {TAGGED}",
    f"I must decline. {FACTS}",
    f"You asked: {FACTS}. I can't judge this.",
    f"For example: {FACTS}",
    f"Example:\n{TAGGED}",
    f"e.g. {FACTS}",
    f"Sample: {FACTS}",
    f"If it were a snake, {FACTS}",
]


@pytest.mark.parametrize("text", WITHDRAWN)
def test_values_that_the_answer_takes_back_are_not_read(text):
    assert stated_values(text, JUDGE_QUESTION) == {}


@pytest.mark.parametrize(
    "end",
    ["\nFinal: awe", "\n\nSo the answer is awe.", ". Rather awe", "\n**Awe**", ";  Verdict = AWE",
     "\nfear? awe", "\n| Mood | awe |"],
)  # fmt: skip
def test_another_label_after_the_values_leaves_none(end):
    """Which of the two is meant is not for us to say."""
    assert stated_values(FACTS + end, JUDGE_QUESTION) == {"valence": -1.5, "arousal": 2.0}
    assert stated_values(TAGGED + end, JUDGE_QUESTION) == {"valence": -1.5, "arousal": 2.0}


@pytest.mark.parametrize(
    "number",
    [
        "1.5-",
        "1.5 -",
        "1.5 \u2014",
        "1.5 (negative)",
        "-1.5 - positive",
        "1.5, negative",
        "1\u30025",
    ],
)
def test_a_number_with_two_signs_is_not_read(number):
    for text in (f"Valence: {number}", f"Valence: {number}\nArousal: 2.0; Emotion: fear"):
        assert "valence" not in stated_values(text, JUDGE_QUESTION)


@pytest.mark.parametrize(
    "text",
    [
        "Valence \u20141.5", "Valence\u20141.5", "Valence \u2014 1.5", "<valence>1.5",
        f"{TAGGED}<|begin_of_box|>{OTHER[8:-9]}<|end_of_box|>",
        f"<|begin_of_box|>{FACTS}<|end_of_box|>{OTHER}",
        f"{TAGGED}\n{OTHER[8:-9]}",
        f"{TAGGED} so $\\boxed{{{OTHER[8:-9]}}}$",
        "Emotion: fear \u274c; Valence: high",
    ],
)  # fmt: skip
def test_what_has_two_readings_is_not_read(text):
    assert stated_values(text, JUDGE_QUESTION) == {}


FREE = Question(id="r", task="rewrite", images=(), split="test", text="?")


@pytest.mark.parametrize(
    "text",
    [
        "<think>dark</think><answer>a boat, grey</answer>",
        "<THINK>dark</THINK>\n<Answer> a boat, grey </ANSWER>",
        "<think>dark</think><|begin_of_box|>a boat, grey<|end_of_box|>",
        "<think>dark</think><answer><|begin_of_box|>a boat, grey<|end_of_box|></answer>",
        "<think>a < b, <answer>a cat</answer>?</think><answer>a boat, grey</answer>",
        f"<think>{'long ' * 5000}</think><answer>a boat, grey</answer>",
        "It is dark.\n<answer>a boat, grey</answer>",
        "[THINK]dark[/THINK]<answer>a boat, grey</answer>",
        "<|channel|>analysis<|message|><answer>a cat</answer>?<|end|><|start|>assistant"
        "<|channel|>final<|message|><answer>a boat, grey</answer>",
    ],
)
def test_a_free_answer_is_rewritten_to_the_asked_form(text):
    form = in_asked_form(text)
    assert parse(form, FREE).values == {"prompt": "a boat, grey"}
    assert parse(form, FREE).well_formed
    assert len(form) <= PARSED


@pytest.mark.parametrize(
    "text",
    ["", "a boat", "<answer>a boat", "<answer>a</answer><answer>b</answer>", "<think>a boat"],
)
def test_what_is_no_single_answer_stays_as_it_is(text):
    assert in_asked_form(text) == text


def test_long_texts_are_not_read():
    assert stated_values("x" * (LONGEST - len(TAGGED)) + TAGGED, JUDGE_QUESTION) == VALUES
    assert stated_values("x" * (LONGEST - len(TAGGED) + 1) + TAGGED, JUDGE_QUESTION) == {}


@pytest.mark.parametrize(
    "flood",
    ["<think>", "</think>", "<answer>", "<answer></answer>", "valence: ", "valence:1 ", "(", "(a)",
     "\t", "scale ", "(1-", "1-", "[1,", "should be ", "actually 1", "example ", "for example:\n",
     "a\u2639", "\u2014", "valence score ", "<think ", "[think]", "<valence>", "i can", "a (",
     " ", "\n", "a,", "emotion,valence\n", "emotion|", "|-", "awe ", "emotion: awe ", "i ", "I am ",
     "<|channel|>", "<|channel|>final<|message|>", "valence\n\n", "{",
     "valence is ", "valence, a", "<", ".5", "*"],
)  # fmt: skip
def test_any_flood_is_read_in_time(flood):
    """Quadratic work on this length would take hours."""
    stated_values(flood * (LONGEST // len(flood)), JUDGE_QUESTION)


def test_the_strict_form_of_rewards_stays_strict():
    for name in ("bold key", "commas", "full stop", "JSON", "upper-case tags", "box", "minus sign"):
        answer = parse(SAME[name], JUDGE_QUESTION)
        assert not answer.well_formed
        assert answer.values != VALUES
