"""The keys of every command's --json output: other programs read them, so they do not change."""

from __future__ import annotations

import typer

from emosym.affect.taxonomies import MIKELS8
from emosym.cli import app
from tests.emosym.cli.command import commands, emosym

REQUEST = {"prompt", "emotion", "valence", "arousal"}
ENTRY = {
    *("id", "image", "sha256", "suffix", "source", "prompt", "emotion"),
    *("valence", "arousal", "predicted", "predicted_valence", "predicted_arousal"),
    *(
        "confidence",
        "contrast",
        "fingerprint",
        "scores",
        "seed",
        "model_hash",
        "step",
        "reason",
        "added",
    ),
}


def options(path: tuple[str, ...]) -> set[str]:
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return {option for parameter in command.params for option in parameter.opts}


def paths_of(value: object, depth: int = 9) -> object:
    """Return the keys of nested objects; a list stands for its first item."""
    if isinstance(value, dict):
        return {key: paths_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [paths_of(value[0])] if value else []
    return None


PINNED = {
    *("understand", "generate", "refine", "doctor"),
    *("zoo list", "zoo show"),
    *("data world", "data import", "data validate", "data stats"),
    *("bank init", "bank add", "bank search", "bank ls", "bank show", "bank stats", "bank log"),
    *("bank diff", "bank tag", "bank rollback", "bank rm", "bank verify", "bank compact"),
    *("bank export", "bank import", "bank rebuild"),
}


def test_these_are_all_commands_that_print_json():
    assert {" ".join(path) for path in commands() if "--json" in options(path)} == PINNED


def test_models(model, pictures, tmp_path):
    use = ("--model", model, "--json")
    seen = {"image", "emotion", "probabilities", "valence", "arousal", "answer"}
    seen |= {"thought", "unlike_training"}
    (record,) = emosym("understand", pictures / "a.png", *use).json
    assert set(record) == seen
    assert set(record["probabilities"]) == set(MIKELS8)
    (record,) = emosym("understand", pictures / "a.png", "--task", "valence", *use).json
    assert set(record) == {"image", "task", "answer", "thought", "value", "unlike_training"}
    draw = ("generate", "--prompt", "x", "--num-inference-steps", 1, *use)
    (record,) = emosym(*draw, "--out", tmp_path / "x.png").json
    assert set(record) == {"image", *REQUEST, "seed"}
    swept = emosym(*draw, "--sweep", "plane", "--points", 2, "--out", tmp_path / "s.png").json
    measures = dict.fromkeys(("spearman", "colour_step", "embedding_step", "unevenness"))
    judged = ("judged_valence", "judged_arousal", "judged_emotion")
    assert paths_of(swept) == {
        "sheet": None,
        "images": [dict.fromkeys(("image", *REQUEST, "seed", *judged))],
        "continuity": {"valence": measures, "arousal": measures},
    }


def test_refine(model, tmp_path):
    affect = ("--valence", 3, "--arousal", 3)
    common = ("--num-inference-steps", 1, "--model", model, "--json", *affect)
    found = emosym(
        *("refine", "--prompt", "x", "--rounds", 2, "--images", 2, "--epsilon", 0),
        *(*common, "--out", tmp_path / "a"),
    ).json
    drawing = dict.fromkeys(("seed", "valence", "arousal", "error"))
    rounds = found["rounds"]
    assert set(rounds[0]["critique"]) == {"words", "analysis", "suggestions"}
    for one in rounds:
        del one["critique"]
    own = dict.fromkeys(("prompt", "state", "best", "worst", "rewrite", "kept", "mean_error"))
    assert paths_of(found) == {
        **dict.fromkeys(("image", "model", "judge", "feedback", "epsilon", "stopped")),
        "request": dict.fromkeys(REQUEST),
        "best": {**dict.fromkeys(("round", "prompt")), **drawing},
        "rounds": [{**own, "drawings": [drawing]}],
    }
    mixed = emosym(
        *("refine", "--feedback", "state", "--rounds", 2, "--images", 2, "--epsilon", 0),
        *(*common, "--out", tmp_path / "c"),
    ).json["rounds"][1]["state"]
    assert set(mixed) == {"images", "emotions", "valence", "arousal"}
    single = emosym("refine", "--best-of", 1, *common, "--out", tmp_path / "b").json
    assert set(single) == set(found)


def test_zoo_and_doctor():
    assert set(emosym("zoo", "list", "--json").json[0]) == {"name", "description", "weights"}
    shown = emosym("zoo", "show", "emosym-tiny", "--json").json
    assert set(shown) == {
        *("name", "preset", "weights", "files", "card", "model", "parts", "hash", "license")
    }
    assert set(shown["parts"][0]) == {"name", "architecture", "parameters", "dtype"}
    import json

    checks = json.loads(emosym("doctor", "--json").out)
    assert set(checks[0]) == {"name", "status", "found", "fix"}


def test_data(world, tmp_path):
    drawn = emosym("data", "world", tmp_path / "w", "--count", 8, "--size", 32, "--json").json
    assert set(drawn) == {"dataset", "count", "seed", "size"}
    imported = emosym("data", "import", "emoset", world, tmp_path / "d", "--json").json
    report = {"imported", "quarantined", "by_split", "by_emotion", "ignored", "unlisted"}
    assert set(imported) == {"manifest", *report}
    checked = emosym("data", "validate", tmp_path / "d", "--json").json
    assert set(checked) == {"manifest", "valid", "problems"}
    import json

    broken = tmp_path / "manifest.jsonl"
    broken.write_text('{"id": 3}\n')
    (problem, *_) = json.loads(emosym("data", "validate", broken, "--json").out)["problems"]
    assert set(problem) == {"file", "line", "field", "why", "sample", "usable"}
    stats = emosym("data", "stats", world, "--json").json
    axes = ("valence", "arousal", "dominance")
    assert set(stats) - {"dominance"} == {"samples", "splits", "emotions", "questions", *axes[:2]}
    assert set(stats["valence"]) == {"count", "mean", "std", "min", "max"}


def test_banks(bank, pictures, model, tmp_path):
    use = ("--model", model)
    made = emosym("bank", "init", tmp_path / "new", *use, "--json").json
    assert set(made) == {"bank", "version", "size", "dim", "model_hash"}
    added = emosym("bank", "add", tmp_path / "new", pictures / "a.png", *use, "--json").json
    image = ("image", "id", "admitted", "reason", "emotion", "predicted", "confidence")
    assert paths_of(added) == {
        **dict.fromkeys(("bank", "version", "size", "admitted", "refused")),
        "unchecked": {},
        "images": [dict.fromkeys(image)],
        "sheets": [],
    }
    listed = emosym("bank", "ls", bank, "--json").json
    entry = set(listed[0])
    assert entry == ENTRY
    assert set(emosym("bank", "show", bank, 1, "--json").json[0]) == entry
    for query, measure in (("valence=0 arousal=0", "distance"), (pictures / "a.png", "cosine")):
        (hit, *_) = emosym("bank", "search", bank, query, *use, "--json").json
        assert set(hit) == {measure, *entry}
    stats = emosym("bank", "stats", bank, "--json").json
    assert set(stats) == {
        *("bank", "index", "version", "oldest", "size", "real", "synthetic", "admitted", "refused"),
        *("dim", "model_hash", "by_emotion", "by_emotion_synthetic"),
    }
    (event, *_) = emosym("bank", "log", bank, "--json").json
    assert set(event) == {"time", "what", "version", "added", "removed", "refused"}
    assert emosym("bank", "tag", bank, "first", "--json").json == {"first": 1}
    removed = emosym("bank", "rm", bank, 1, "--json").json
    assert set(removed) == {"version", "size", "removed"}
    assert set(removed["removed"][0]) == entry
    changed = emosym("bank", "diff", bank, "first", "--json").json
    assert set(changed) == {"came", "left"}
    assert set(changed["left"][0]) == entry
    checked = emosym("bank", "verify", bank, "--json").json
    assert set(checked) == {"bank", "version", "size", "problems"}
    exported = emosym("bank", "export", bank, tmp_path / "x.parquet", "--json").json
    assert set(exported) == {"out", "count"}
    taken = emosym("bank", "import", tmp_path / "other", tmp_path / "x.parquet", "--json").json
    assert set(taken) == {"bank", "size", "version", "admitted", "refused"}
    rolled = emosym("bank", "rollback", bank, "first", "--json").json
    assert set(rolled) == {"version", "before", "size", "dropped_tags"}
    compacted = emosym("bank", "compact", bank, "--json").json
    assert set(compacted) == {"entries", "refusals", "tags", "oldest", "bytes", "bytes_before"}
    rebuilt = emosym("bank", "rebuild", bank, *use, "--json").json
    assert set(rebuilt) == {"version", "size", "dim", "model_hash", "dropped_tags"}
