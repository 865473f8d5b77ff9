from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections import Counter

import pytest

from tests.emosym.cli.command import ROOT, emosym, refused


def test_the_zoo_is_listed_and_shown():
    from model_zoo import catalogue

    listed = emosym("zoo", "list", "--json").json
    assert [record["name"] for record in listed] == catalogue.members()
    for record in listed:
        assert list(record) == ["name", "description", "weights"]
        shown = emosym("zoo", "show", record["name"], "--json").json
        assert list(shown)[:5] == ["name", "preset", "weights", "files", "card"]
        assert shown["preset"] == catalogue.preset(record["name"])
        assert shown["weights"] == record["weights"]
        assert bool(shown["files"]) == (shown["weights"] is not None)
        assert record["description"] in emosym("zoo", "list").out
        assert record["description"] in emosym("zoo", "show", record["name"]).out
    refused(emosym("zoo", "show", "emosym-tini"), "did you mean 'emosym-tiny'?")


@pytest.mark.parametrize(
    "arguments",
    [
        ("zoo", "show", "emosym-tini"),
        ("zoo", "space", "emosym-tini", "--data", "x"),
        ("bank", "search", "x", "docs/images/reinforced-plane.png", "--model", "emosym-tini"),
    ],
)
def test_a_wrong_name_is_an_error_before_torch_is_imported(arguments):
    code = (
        "import sys\nfrom emosym.cli import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n"
        "    print(left.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "2 False\n"
    assert done.stderr.endswith("did you mean 'emosym-tiny'?\n")


def test_a_member_with_weights_shows_its_card_and_hashes(model, tmp_path, monkeypatch):
    from model_zoo import catalogue, zoo

    folder = tmp_path / "weights" / "emosym-tiny"
    shutil.copytree(model, folder)
    (folder / "README.md").write_text("# The card\n\nMade by hand.\n")
    shutil.copytree(catalogue.ROOT / "presets", tmp_path / "presets")
    monkeypatch.setattr(catalogue, "ROOT", tmp_path)
    weights = {one["name"]: one["weights"] for one in emosym("zoo", "list", "--json").json}
    assert weights == {"emosym-tiny": str(folder), "emosym-tiny-unet": None}
    shown = emosym("zoo", "show", "emosym-tiny", "--json").json
    assert shown["files"] == zoo.model_files(model)
    assert shown["card"] == "# The card\n\nMade by hand.\n"
    text = emosym("zoo", "show", "emosym-tiny").out
    assert "Made by hand." in text
    files = Counter(shown["files"].values())  # two files may be the same
    assert {digest: text.count(digest) for digest in files} == files


def test_hashes_are_printed_once(tmp_path, monkeypatch):
    """Those of the card in the card; one that the card lacks, of a changed file, beside it."""
    from model_zoo import catalogue, zoo

    folder = tmp_path / "tiny"
    shutil.copytree(catalogue.folder_of("emosym-tiny"), folder)
    listed = Counter(zoo.model_files(folder).values())  # two files are the same
    with (folder / "emosym.json").open("a") as file:
        file.write(" ")
    changed = zoo.model_files(folder)["emosym.json"]
    monkeypatch.setenv("COLUMNS", "200")
    text = emosym("zoo", "show", folder).out
    assert {digest: text.count(digest) for digest in listed} == listed
    assert text.count(changed) == 1
    assert f"emosym.json\t{changed}" in text


def test_what_compose_made_is_shown(model, tmp_path):
    """Its numbers are those of the loaded model."""
    from model_zoo import zoo

    made = tmp_path / "models" / "my own"
    done = emosym("zoo", "compose", made, "--backbone", model / "backbone", "--decoder", model)
    assert done.code == 0, done.err
    path, *steps = done.out.splitlines()
    assert path == str(made)
    assert steps[0].startswith("Reasoning tokens and heads are new: train it before use")
    make, show = steps[1].split(), shlex.split(steps[3])
    assert make[:2] == ["make", "train-compress"]
    assert shlex.split(steps[1])[-1] == f"OVERRIDES='model={made}'"
    assert show == ["emosym", "zoo", "show", str(made)]

    shown = emosym(*show[1:], "--json").json
    loaded = zoo.load(made)
    tensors = {one.data_ptr(): one.numel() for one in loaded.state_dict().values()}  # tied once
    assert sum(part["parameters"] for part in shown["parts"]) == sum(tensors.values())
    parts = {part["name"]: part for part in shown["parts"]}
    assert set(parts) == {
        *("backbone", "decoder/transformer", "decoder/text_encoder", "decoder/vae", "heads")
    }
    assert parts["backbone"]["architecture"] == "Qwen2_5_VLForConditionalGeneration"
    assert parts["decoder/transformer"]["architecture"] == "SD3Transformer2DModel"
    assert {part["dtype"] for part in shown["parts"]} == {"F32"}
    assert shown["hash"] == zoo.fingerprint(made)
    assert shown["model"]["model"]["reasoning_tokens"] == 8
    assert (shown["preset"], shown["card"], shown["license"]) == (None, None, None)
    (made / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Mine\n\x1b[31mred\n")
    assert emosym("zoo", "show", made, "--json").json["license"] == "cc-by-4.0"
    text = emosym("zoo", "show", made).out
    for word in (
        shown["hash"],
        "cc-by-4.0",
        "SD3Transformer2DModel",
        "reasoning_tokens: 8",
        "Mine",
    ):
        assert word in text
    assert "\x1b" not in text

    donor = emosym("zoo", "compose", tmp_path / "b", "--backbone", model, "--decoder", model)
    assert "The decoder's conditioner is new" in donor.out
    assert "make train-joint" in donor.out


def test_what_cannot_be_shown(model, tmp_path):
    refused(emosym("zoo", "show", tmp_path), "is not a model folder")
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "heads.safetensors").write_bytes(b"\xff" * 20)
    refused(emosym("zoo", "show", copy), "heads.safetensors cannot be loaded")


def test_doctor_tells_every_check_and_its_exit_code_is_their_verdict():
    done = emosym("doctor", "--json")
    checks = json.loads(done.out)
    assert all(list(check) == ["name", "status", "found", "fix"] for check in checks)
    assert {"python", "accelerator", "memory", "disk"} <= {check["name"] for check in checks}
    assert done.code == (2 if any(check["status"] == "fail" for check in checks) else 0)
    shown = emosym("doctor")
    assert shown.code == done.code
    assert all(check["name"] in shown.out for check in checks)
