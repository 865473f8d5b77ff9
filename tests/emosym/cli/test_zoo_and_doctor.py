from __future__ import annotations

import json
import shutil

from tests.emosym.cli.command import emosym, refused


def test_the_zoo_is_listed_and_shown():
    from model_zoo import zoo

    listed = emosym("zoo", "list", "--json").json
    assert [record["name"] for record in listed] == zoo.members()
    for record in listed:
        assert list(record) == ["name", "description", "weights"]
        shown = emosym("zoo", "show", record["name"], "--json").json
        assert list(shown) == ["name", "preset", "weights", "files", "card"]
        assert shown["preset"] == zoo.preset(record["name"])
        assert shown["weights"] == record["weights"]
        assert bool(shown["files"]) == (shown["weights"] is not None)
        assert record["description"] in emosym("zoo", "list").out
        assert record["description"] in emosym("zoo", "show", record["name"]).out
    refused(emosym("zoo", "show", "emosym-tini"), "did you mean 'emosym-tiny'?")


def test_a_member_with_weights_shows_its_card_and_hashes(model, tmp_path, monkeypatch):
    from model_zoo import zoo

    folder = tmp_path / "weights" / "emosym-tiny"
    shutil.copytree(model, folder)
    (folder / "README.md").write_text("# The card\n\nMade by hand.\n")
    shutil.copytree(zoo.ROOT / "presets", tmp_path / "presets")
    monkeypatch.setattr(zoo, "ROOT", tmp_path)
    weights = {one["name"]: one["weights"] for one in emosym("zoo", "list", "--json").json}
    assert weights == {"emosym-tiny": str(folder), "emosym-tiny-unet": None}
    shown = emosym("zoo", "show", "emosym-tiny", "--json").json
    assert shown["files"] == zoo.model_files(model)
    assert shown["card"] == "# The card\n\nMade by hand.\n"
    text = emosym("zoo", "show", "emosym-tiny").out
    assert "Made by hand." in text
    assert all(digest in text for digest in shown["files"].values())


def test_doctor_tells_every_check_and_its_exit_code_is_their_verdict():
    done = emosym("doctor", "--json")
    checks = json.loads(done.out)
    assert all(list(check) == ["name", "status", "found", "fix"] for check in checks)
    assert {"python", "accelerator", "memory", "disk"} <= {check["name"] for check in checks}
    assert done.code == (2 if any(check["status"] == "fail" for check in checks) else 0)
    shown = emosym("doctor")
    assert shown.code == done.code
    assert all(check["name"] in shown.out for check in checks)
