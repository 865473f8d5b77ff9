from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from PIL import Image

import memory_bank
from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import MIKELS8, NORMS
from memory_bank import admit
from tests.emosym.cli.command import emosym, names_in, refused
from train.data.bank_session import BankSession
from train.phases.remember import RememberConfig


def test_bank_add_makes_the_bank_and_says_what_the_model_sees(model, pictures, tmp_path):
    from model_zoo import zoo

    bank = tmp_path / "banks" / "one"
    done = emosym(
        *("bank", "add", bank, pictures / "a.png", pictures / "more", "--model", model),
        *("--emotion", "Content", "--valence", "1", "--arousal", "-1", "--json"),
    )
    assert done.err == ""
    record = done.json
    seen = emosym("understand", pictures / "a.png", pictures / "more", "--model", model, "--json")
    assert [one["image"] for one in record["images"]] == [one["image"] for one in seen.json]
    for one, view in zip(record.pop("images"), seen.json, strict=True):
        assert one["confidence"] == pytest.approx(view["probabilities"]["contentment"], abs=1e-6)
        assert {key: one[key] for key in ("admitted", "reason", "emotion", "predicted")} == {
            "admitted": True,
            "reason": "added by hand",
            "emotion": "contentment",
            "predicted": view["emotion"],
        }
    assert record == {
        **{
            "bank": str(bank),
            "version": 1,
            "size": 2,
            "admitted": 2,
            "refused": 0,
            "sheets": [],
            "unchecked": {},
        },
    }
    stats = emosym("bank", "stats", bank, "--json").json
    assert stats["by_emotion"] == {name: 2 * (name == "contentment") for name in MIKELS8}
    assert (stats["bank"], stats["real"], stats["synthetic"]) == (str(bank), 2, 0)
    assert (stats["dim"], stats["model_hash"]) == (160, zoo.fingerprint(model))


def test_an_image_finds_itself(bank, model, pictures):
    for name in ("a.png", "b.jpg", "c.png", "more/d.png"):
        done = emosym("bank", "search", bank, pictures / name, "--model", model, "-k", 2, "--json")
        assert done.err == ""
        first, second = done.json
        assert first["cosine"] == pytest.approx(1, abs=1e-5)
        assert first["cosine"] > second["cosine"]
        digest = hashlib.sha256((pictures / name).read_bytes()).hexdigest()
        assert first["sha256"] == digest
        assert Path(first["image"]).read_bytes() == (pictures / name).read_bytes()


def test_affect_finds_what_is_nearest_on_record(bank, model, drawn):
    """What was asked of an image counts, or else what the model saw in it."""
    norm = NORMS["awe"].to(PUBLIC)
    assert emosym("bank", "add", bank, drawn, "--model", model).code == 0
    asked = (norm.valence, norm.arousal)
    query = f"valence={norm.valence} arousal={norm.arousal}"
    found = emosym("bank", "search", bank, query, "-k", 7, "--json").json
    assert [one["distance"] for one in found[:3]] == [0, 0, 0]
    assert {one["source"] for one in found[:3]} == {"synthetic"}
    assert len(found) == 7
    for one in found[3:]:
        seen = (one["predicted_valence"], one["predicted_arousal"])
        gap = sum(abs(a - b) for a, b in zip(seen, asked, strict=True))
        assert one["distance"] == pytest.approx(gap)
    distances = [one["distance"] for one in found]
    assert distances == sorted(distances)
    shown = emosym("bank", "search", bank, "valence=0, arousal=0", "-k", 1).out
    assert "distance" in shown


def test_what_generate_made_brings_its_request_into_the_bank(bank, model, drawn):
    from model_zoo import zoo

    added = emosym("bank", "add", bank, drawn, "--model", model, "--json").json
    assert [one["emotion"] for one in added["images"]] == ["awe"] * 3
    search = ("bank", "search", bank, "valence=1 arousal=0", "--json")
    found = emosym(*search, "--source", "synthetic").json
    assert {one["seed"] for one in found} == {4, 5, 6}
    norm = NORMS["awe"].to(PUBLIC)
    for one in found:
        assert (one["prompt"], one["source"], one["emotion"]) == ("a tree", "synthetic", "awe")
        assert (one["valence"], one["arousal"]) == (norm.valence, norm.arousal)
        assert one["model_hash"] == zoo.fingerprint(model)
    assert len(emosym(*search, "--emotion", "awe").json) == 3
    assert len(emosym(*search, "--source", "real").json) == 4
    assert len(emosym(*search).json) == 7


def test_a_search_for_the_name_of_an_emotion_is_told_how_to_list_it(bank, tmp_path):
    named = emosym("bank", "search", bank, "Awe", "--json")
    assert (named.json, named.err) == ([], "")
    named = emosym("bank", "search", bank, "Awe")
    assert named.out == "nothing matches Awe\n"
    assert named.err == (
        "awe was searched in prompts;"
        f" `emosym bank ls {bank} --emotion awe` lists images by emotion\n"
    )
    assert emosym("bank", "search", bank, "awesome").err == ""


def test_options_say_more_than_the_file(bank, model, drawn):
    add = ("bank", "add", bank, drawn / "4.png", "--emotion", "fear", "--source", "real")
    assert emosym(*add, "--model", model).code == 0
    (found,) = emosym(
        *("bank", "search", bank, "valence=0 arousal=0", "--emotion", "fear", "--json")
    ).json
    assert (found["source"], found["seed"], found["prompt"]) == ("real", 4, "a tree")


def test_an_image_that_the_bank_holds_is_refused_not_an_error(bank, model, pictures):
    images = (pictures / "a.png", pictures / "a.png")
    done = emosym("bank", "add", bank, *images, "--model", model, "--json")
    assert [(one["admitted"], one["reason"]) for one in done.json["images"]] == [
        (False, "duplicate image")
    ] * 2
    assert (done.json["size"], done.json["version"], done.json["refused"]) == (4, 2, 2)
    shown = emosym("bank", "add", bank, images[0], "--model", model)
    assert "duplicate image" in shown.out
    assert f"{bank}: version 3, 4 images" in shown.out


def test_gated_images_meet_the_gates(bank, model, drawn):
    seen = emosym("understand", drawn / "4.png", "--model", model, "--json").json[0]["emotion"]
    other = next(name for name in MIKELS8 if name != seen)
    add = ("bank", "add", bank, drawn / "4.png", "--gated", "--model", model, "--json")
    (one,) = emosym(*add, "--emotion", other).json["images"]
    assert not one["admitted"]
    assert f"requested {other}, judged {seen}" in one["reason"]
    stats = emosym("bank", "stats", bank, "--json").json
    assert (stats["size"], stats["refused"]) == (4, 1)


def test_gates_that_lack_what_they_compare_are_named(bank, model, pictures, drawn):
    """The bank holds four real images without labels; one new image requests nothing."""
    new = (drawn / "4.png", pictures / "a.png")
    add = ("bank", "add", bank, *new, "--gated", "--model", model)
    lacks = {
        "label": "no emotion requested for 1 of 2 images",
        "affect": "no valence and arousal requested for 1 of 2 images",
        "novelty": "4 real images, 20 needed",
        "agreement": "0 labelled real images, 10 needed",
    }
    assert emosym(*add, "--json").json["unchecked"] == lacks
    named = ", ".join(f"{gate} ({why})" for gate, why in lacks.items())
    assert emosym(*add).out.splitlines()[-1] == f"gates not applied in full: {named}"


def test_the_gates_of_the_command_are_those_of_training(bank, model, drawn, monkeypatch):
    policies = []

    def spy(candidates, store, policy):
        policies.append(policy)
        return admit(candidates, store, policy)

    monkeypatch.setattr(memory_bank, "admit", spy)
    add = ("bank", "add", bank, drawn / "4.png", "--gated", "--model", model)
    assert emosym(*add).code == 0
    training = BankSession(None, RememberConfig(), None, None, "a model").policy
    assert policies == [training]


def test_a_broken_image_adds_nothing_and_makes_no_bank(model, pictures, tmp_path):
    cut, bank = tmp_path / "cut.png", tmp_path / "bank"
    cut.write_bytes((pictures / "a.png").read_bytes()[:200])
    done = emosym("bank", "add", bank, pictures / "b.jpg", cut, "--model", model)
    refused(done, f"cannot read image {cut}")
    assert names_in(tmp_path) == ["cut.png"]
    Image.new("RGB", (8, 8)).save(tmp_path / "x.ppm")
    refused(
        emosym("bank", "add", bank, tmp_path / "x.ppm", "--model", model),
        "not an image",
        "expected a whole JPEG, PNG, WebP, AVIF",
    )
    assert not bank.exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--emotion", "joyful"], "unknown emotion 'joyful'"),
        (["--valence", "1"], "valence and arousal belong together"),
        (["--valence", "9", "--arousal", "0"], "valence is outside its scale; got 9"),
    ],
)
def test_bad_labels_are_errors_before_a_model_is_loaded(pictures, tmp_path, options, problem):
    add = ("bank", "add", tmp_path / "bank", pictures, "--model", "no-such-model")
    refused(emosym(*add, *options), problem)
    assert list(tmp_path.iterdir()) == []


def test_a_bank_belongs_to_its_model(bank, model, pictures, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    from safetensors.torch import load_file, save_file

    heads = load_file(other / "heads.safetensors")
    name = next(iter(heads))
    save_file({**heads, name: heads[name] + 1}, other / "heads.safetensors")
    for words in (["add", bank, pictures / "a.png"], ["search", bank, pictures / "a.png"]):
        refused(emosym("bank", *words, "--model", other), "were made by another model")
    assert emosym("bank", "stats", bank, "--json").json["version"] == 1


def test_what_is_no_bank_is_an_error(model, pictures, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        add = ("bank", "add", tmp_path / name, pictures, "--model", model)
        refused(emosym(*add), f"not a memory bank: {tmp_path / name}")
    gone = tmp_path / "gone"
    refused(emosym("bank", "search", gone, "valence=0 arousal=0"), "not a memory bank")
    made_by = "got no bank.sqlite in it; `emosym bank add` makes one in a new folder\n"
    refused(emosym("bank", "stats", gone), f"not a memory bank: {gone}; {made_by}")
    assert names_in(tmp_path) == ["file", "full", "x"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("gone.png", "no such image: gone.png"),
        (" ", "a search without words; got ' '; expected words of a prompt"),
        ("!? --", "a search without words"),
        ("valence=1", "got 'valence=1'; expected"),
        ("valence=1 valence=2", "the query has no valence and arousal; got"),
        ("valence=nan arousal=0", "valence is outside its scale"),
        ("valence=1 arousal=x", "arousal is not a number; got 'x'"),
        ("valence=1, arousal=4", "arousal is outside its scale; got 4.0"),
        ("valance=1 arousal=2", "expected 'valence=V arousal=A'"),
        ("emotion=awe", "emotion is not a number"),
    ],
)
def test_a_bad_query_is_an_error(bank, model, query, problem):
    refused(emosym("bank", "search", bank, query, "--model", model), problem)


def test_predictions_that_are_guesses_are_named(model, pictures, tmp_path):
    """`a.png` is coloured noise, unlike the drawings that the model was trained on."""
    image = pictures / "a.png"
    done = emosym("bank", "add", tmp_path / "new", image)
    assert done.code == 0
    assert f"so predictions are guesses: 1: {image}" in done.err
