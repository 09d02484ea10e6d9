"""Models that come with evlib: small, described, read without a network, and as good as their cards say."""

import re

import numpy as np
import pytest
import torch

import evlib
from evlib.motion.windows import make_motion
from evlib.pretrained import FOLDER, PRETRAINED, load_pretrained, model_card
from evlib.signals.errors import DataError, OptionError
from evlib.training.checkpoints import load, save, write_safetensors
from evlib.training.windows import Windows

pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize("name", PRETRAINED)
def test_each_is_small_and_has_a_card(name):
    file = FOLDER / f"{name}.safetensors"
    assert file.stat().st_size < 5e6
    card = model_card(name)
    for part in (PRETRAINED[name].licence, "**Data.**", "**Numbers.**", "**Limits.**", "95 % interval"):
        assert part in card
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(
        f"{n}.{e}" for n in PRETRAINED for e in ("md", "safetensors")
    )


def stated(name):
    """Accuracy of a card with its interval."""
    return map(
        float, re.search(r"accuracy ([\d.]+) \(95 % interval[a-z ]* ([\d.]+) to ([\d.]+)\)", model_card(name)).groups()
    )


def test_motion_is_as_good_as_its_card_says(data_home):
    model, phone = evlib.load_pretrained("motion"), make_motion("phone", 1, 1)
    with np.load(data_home / "har_uci_subset" / "har_uci_subset.npz") as file:
        labels = file["label_text"].astype(str)[file["y_test"].astype(int) - 1]
        units = ("g",) * 3 + ("rad/s",) * 3
        x = file["x_test"][..., :6].astype(np.float32)
    test = Windows("uci_har", x, 50.0, phone.channels, phone.descriptions, labels, units=units)
    accuracy, low, high = stated("motion")
    found = np.mean(model.predict(test) == labels)
    assert low <= found <= high and found == pytest.approx(accuracy, abs=0.005)
    assert np.mean(model.predict(test.resample(10.0)) == labels) > accuracy - 0.03


def test_digits_are_as_good_as_their_card_says(data_home):
    with np.load(data_home / "audio_fsdd_mel" / "audio_fsdd_mel.npz") as file:
        frames, offset = file["frames"].astype(np.float32), file["offset"]
        digit, fold = file["label"].astype(str), file["fold"]
    rows = np.flatnonzero(fold == 5)
    accuracy, low, high = stated("digits")
    found = np.mean(load_pretrained("digits").predict([frames[offset[k] : offset[k + 1]] for k in rows]) == digit[rows])
    assert low <= found <= high and found == pytest.approx(accuracy, abs=0.005)


def test_motion_recognises_simulated_people_without_any_data():
    model, judge = load_pretrained("motion"), make_motion(n_people=3, activities=("walking", "lying"))
    predicted = model.predict(judge, ["walking", "laying"])
    assert np.mean((predicted == "walking") == (judge.labels == "walking")) > 0.9


def test_unknown_names_are_refused_with_those_that_there_are():
    for ask in (load_pretrained, model_card):
        with pytest.raises(OptionError, match="name must be one of motion, digits"):
            ask("../motion")


def test_what_safetensors_hold_is_what_a_file_holds(tmp_path):
    content = {"offset": torch.arange(3.0), "names": ["a", "b"], "gains": [1.0, 0.5]}
    save(tmp_path / "a.pth", "Anything", {"size": 3}, {"layer.weight": torch.eye(2)}, {"seed": 1}, **content)
    written = load(tmp_path / "a.pth")
    write_safetensors(written, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    assert again.keys() == written.keys()
    for name, value in written.items():
        if name == "model_state_dict":
            assert torch.equal(again[name]["layer.weight"], value["layer.weight"])
        else:
            assert torch.equal(again[name], value) if torch.is_tensor(value) else again[name] == value
    with pytest.raises(OptionError, match="must end with .safetensors"):
        write_safetensors(written, tmp_path / "b.pth")


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty", "no text"])
def test_damaged_safetensors_are_refused(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    save(tmp_path / "a.pth", "Anything", {}, {"weight": torch.eye(9)})
    write_safetensors(load(tmp_path / "a.pth"), path)
    whole = path.read_bytes()
    if damage == "no text":
        from safetensors.torch import save_file

        save_file({"weight": torch.eye(2)}, path)
    else:
        changed = {
            "cut": whole[:-40],
            "flipped": b"\xff" * 8 + whole[8:],
            "foreign": b"PK\x03\x04" + whole,
            "empty": b"",
        }
        path.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"a\.safetensors is not a"):
        load(path)
