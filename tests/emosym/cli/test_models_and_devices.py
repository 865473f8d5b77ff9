from __future__ import annotations

import os
import shutil

import pytest

from tests.emosym.cli.command import emosym, refused


def test_a_model_that_is_not_there(pictures, tmp_path):
    image = pictures / "a.png"
    refused(
        emosym("understand", image, "--model", "emosym-tini"),
        "unknown model 'emosym-tini'",
        "did you mean 'emosym-tiny'?",
    )
    refused(emosym("understand", image, "--model", tmp_path), f"{tmp_path} is not a model folder")


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        ("heads.safetensors", lambda data: data[:1000], "heads.safetensors cannot be loaded"),
        ("emosym.json", lambda data: b"{", "emosym.json: not JSON: "),
        ("emosym.json", lambda data: data.replace(b'"hidden"', b'"hiden"'), "hiden"),
        ("emosym.json", lambda data: data.replace(b'"hidden": 192', b'"hidden": 96'), "do not fit"),
        ("decoder/vae/diffusion_pytorch_model.safetensors", None, "no file named"),
    ],
    ids=["cut", "not json", "unknown key", "another shape", "missing"],
)
def test_a_damaged_model_folder_is_one_line(model, pictures, tmp_path, file, change, problem):
    folder = tmp_path / "model"
    shutil.copytree(model, folder, copy_function=os.link)
    path = folder / file
    data = path.read_bytes()
    path.unlink()  # a hard link: the model of the other tests stays whole
    if change is not None:
        assert change(data) != data
        path.write_bytes(change(data))
    refused(emosym("understand", pictures / "a.png", "--model", folder), problem)


def test_a_device_that_is_not_there(model, pictures):
    for device in ("gpu9", "cuda:99", "meta"):
        done = emosym("understand", pictures / "a.png", "--model", model, "--device", device)
        refused(done, f"cannot use the device '{device}'", "expected cpu, cuda, cuda:NUMBER or mps")
