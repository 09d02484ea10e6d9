"""ThresholdExplorer, TemplateView and TimingView without a front end: methods, what they refuse, static figures."""

import base64

import numpy as np
import pytest

import evlib
from evlib.detection.oracle import oracle_detector
from evlib.inspection.widget import Stepper
from evlib.signals.errors import DataError, OptionError, ShapeError, UnitError
from evlib.signals.synthetic import make_templates
from evlib.templates.bank import TemplateBank


@pytest.fixture(scope="module")
def simulation():
    return evlib.make_recording(make_templates(3, seed=2), 30.0, snr=12.0, seed=1)


@pytest.fixture(scope="module")
def fitted(simulation):
    train = evlib.make_recording(simulation.templates, 30.0, snr=12.0, seed=0)
    return evlib.fit([tuple(train)], method="matched_filter", progress=False)


@pytest.fixture
def detector(fitted, tmp_path):
    """A detector of one's own: widgets write into it."""
    fitted.save(tmp_path / "detector.ckpt")
    return evlib.load_detector(tmp_path / "detector.ckpt")


@pytest.fixture
def explorer(detector, simulation):
    return evlib.ThresholdExplorer(detector, *simulation)


@pytest.fixture(scope="module")
def report(fitted, simulation):
    return evlib.compare(simulation.events, evlib.detect(fitted, simulation.recording), 0.005, duration_s=30.0)


# ---- the static figure


def widgets(detector, simulation, report):
    yield evlib.ThresholdExplorer(detector, *simulation)
    yield evlib.TemplateView(detector, simulation.recording, simulation.events)
    yield evlib.TemplateView(detector)
    yield evlib.TimingView(report)
    yield evlib.TimingView(report, detector, simulation.recording)


def test_every_widget_brings_a_picture_along(detector, simulation, report, tmp_path):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for k, widget in enumerate(widgets(detector, simulation, report)):
        bundle = widget._repr_mimebundle_()
        assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert len(bundle["text/plain"]) < 200
        assert bytes(widget.picture.value).startswith(b"\x89PNG")
        widget.save(tmp_path / f"{k}.png")
        assert (tmp_path / f"{k}.png").stat().st_size > 5000
    assert plt.get_fignums() == before


def test_a_stepper_goes_round():
    stepper = Stepper([("A", "a"), ("none", None), ("all types", "c")], "kind")
    stepper.step(-1)
    assert stepper.value == "c"
    stepper.children[2].click()
    stepper.children[2].click()
    assert stepper.value is None


# ---- ThresholdExplorer


def test_a_threshold_changes_its_type_alone(explorer):
    before = explorer.comparison.per_type()
    explorer.choose("event_01").set(threshold=1 - 1e-12)
    after = explorer.comparison.per_type()
    assert after.recall["event_01"] < before.recall["event_01"]
    assert after.drop("event_01").equals(before.drop("event_01"))
    explorer.for_all()
    assert (explorer.comparison.per_type().recall < before.recall).all()


def test_moving_a_slider_is_the_same_as_the_method(explorer):
    pictures = [explorer.picture.value]
    explorer.threshold.value = explorer.threshold.options[-1][1]
    assert explorer.thresholds[explorer.type] == 10.0
    pictures.append(explorer.picture.value)
    explorer.refractory.value = 0.5
    assert explorer.refractory_s[explorer.name] == 0.5
    pictures.append(explorer.picture.value)
    explorer.tolerance.value = 0.5
    assert explorer.tolerance_s == 0.0005 and explorer.comparison.tolerance_s == 0.0005
    pictures.append(explorer.picture.value)
    explorer.types.step(1)
    pictures.append(explorer.picture.value)
    assert len(set(pictures)) == 5


def test_what_is_set_exactly_stays_exact_though_sliders_have_steps(explorer):
    explorer.set(threshold=0.77, refractory_s=1.2345, tolerance_s=0.0042)
    assert explorer.thresholds[explorer.type] == pytest.approx(np.log(0.77 / 0.23), abs=1e-12)
    assert explorer.refractory_s[explorer.name] == 1.2345 and explorer.tolerance_s == 0.0042
    explorer.types.step(1)
    explorer.types.step(-1)
    assert explorer.thresholds[explorer.type] == pytest.approx(np.log(0.77 / 0.23), abs=1e-12)


def test_apply_makes_a_new_detector_and_reset_goes_back(explorer, detector, simulation):
    thresholds, periods = detector.thresholds.copy(), dict(detector.refractory_s)
    explorer.set(threshold=0.999, refractory_s=1.0)
    assert explorer.detector is detector and not explorer.is_applied
    assert "does not have this choice yet" in explorer.message.value
    chosen = explorer.apply()
    assert chosen is explorer.detector and explorer.is_applied and "has these thresholds" in explorer.message.value
    assert np.array_equal(detector.thresholds, thresholds) and detector.refractory_s == periods
    assert "chosen_by_hand" not in detector.metadata
    found = evlib.compare(simulation.events, evlib.detect(chosen, simulation.recording), 0.005)
    assert (found.tp, found.fp) == (explorer.comparison.tp, explorer.comparison.fp)
    assert chosen.metadata["chosen_by_hand"]["development_f1"] == explorer.comparison.f1
    explorer.reset()
    assert explorer.detector is detector and explorer.is_applied


def test_an_applied_choice_survives_saving(explorer, detector, tmp_path):
    explorer.set(threshold=0.9, refractory_s=1.5).apply().save(tmp_path / "chosen.ckpt")
    again = evlib.load_detector(tmp_path / "chosen.ckpt")
    assert np.allclose(again.thresholds, explorer.thresholds) and again.refractory_s == explorer.refractory_s
    assert again.metadata["chosen_by_hand"]["tolerance_s"] == 0.005


def test_best_is_no_worse(explorer):
    explorer.set(threshold=0.999999)
    worse = explorer.comparison.per_type().f1[explorer.name]
    explorer.buttons["best F1"].click()
    assert explorer.comparison.per_type().f1[explorer.name] >= worse


def test_a_period_that_the_labels_break_is_said(explorer):
    assert explorer.message.value == ""
    explorer.set(refractory_s=9.0)
    assert "sooner than its refractory period" in explorer.message.value


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"threshold": 90}, OptionError, "percent"),
        ({"threshold": True}, OptionError, "probability"),
        ({"refractory_s": -1.0}, UnitError, "negative"),
        ({"tolerance_s": -5}, UnitError, "seconds"),
        ({"tolerance_s": 0}, UnitError, "matches nothing"),
    ],
)
def test_the_explorer_refuses_what_cannot_be(explorer, options, error, words):
    with pytest.raises(error, match=words):
        explorer.set(**options)


def test_the_explorer_refuses_other_data(detector, simulation):
    with pytest.raises(OptionError, match="read_events"):
        evlib.ThresholdExplorer(detector, simulation.recording, "events.tsv")
    with pytest.raises(UnitError, match="1000 Hz"):
        evlib.ThresholdExplorer(detector, simulation.recording.resample(1000), simulation.events)
    with pytest.raises(OptionError, match="whistle"):
        evlib.ThresholdExplorer(detector, *simulation).choose("whistle")


# ---- TemplateView


def test_templates_of_each_type_with_their_events(detector, simulation):
    view = evlib.TemplateView(detector, simulation.recording, simulation.events, truth=oracle_detector(simulation))
    counts = simulation.events.counts()
    pictures = {view.picture.value}
    for k in range(3):
        assert view.type == k
        assert view.snippets.shape == (counts[k], detector.bank.length, 6)
        template = detector.bank.templates[k]
        assert np.corrcoef(view.snippets.mean(0).ravel(), template.ravel())[0, 1] > 0.85
        assert np.corrcoef(view.truth[k].ravel(), template.ravel())[0, 1] > 0.85
        assert view.delays.n_events == counts[k] and (view.delays.low_s < view.delays.high_s).all()
        view.step(1)
        pictures.add(view.picture.value)
    view.shown.value = 2
    pictures.add(view.picture.value)
    assert len(pictures) == 4


def test_without_a_recording_the_template_itself_has_delays(detector):
    view = evlib.TemplateView(detector)
    assert view.delays.n_events == 1 and np.isnan(view.delays.low_s).all()
    assert view.shown.layout.display == "none"


def test_a_kind_that_looks_like_another_is_warned_of(detector):
    detector.bank.templates[1] = 0.97 * detector.bank.templates[0]
    view = evlib.TemplateView(detector).choose("event_01")
    assert "event_01 looks like event_00" in view.message.value and view.message.warning
    assert "No other type" in view.choose("event_02").message.value


def test_templates_refuse_what_does_not_fit(detector, simulation):
    recording, events = simulation
    with pytest.raises(OptionError, match="need the recording"):
        evlib.TemplateView(detector, events=events)
    with pytest.raises(UnitError, match="events of another recording"):
        evlib.TemplateView(detector, recording.between(0, 10), events)
    with pytest.raises(OptionError, match="TemplateBank"):
        evlib.TemplateView(detector, truth=np.ones((3, 5, 6)))
    with pytest.raises(OptionError, match="truth knows"):
        evlib.TemplateView(detector, truth=TemplateBank(np.ones((1, 5, 6)), 0, ("a",)))
    with pytest.raises(ShapeError, match="channels"):
        evlib.TemplateView(detector, truth=TemplateBank(np.ones((3, 5, 2)), 0, detector.names))


# ---- TimingView


def test_errors_of_the_hits_with_and_without_bias(report):
    view = evlib.TimingView(report)
    assert np.array_equal(view.errors(), report.dt_s)
    first = view.picture.value
    view.set(type="event_01")
    kind = report.reference.type[report.pairs[:, 0]] == 1
    assert np.array_equal(view.errors(), report.dt_s[kind])
    view.set(without_bias=True)
    assert np.median(view.errors()) == pytest.approx(0, abs=1e-12)
    assert view.set(view="between types").picture.value != first


def test_channels_date_each_hit_in_its_row(detector, simulation, report):
    view = evlib.TimingView(report, detector, simulation.recording)
    assert view.channel_error_s.shape == (report.tp, 6)
    # What all channels say together is between what they say alone: rows belong to each other.
    known = np.isfinite(view.channel_error_s).sum(axis=1) >= 3
    middle = np.nanmedian(view.channel_error_s[known], axis=1)
    assert known.mean() > 0.5
    assert np.median(np.abs(middle - report.dt_s[known])) < 0.0003
    late = evlib.compare(simulation.events.shift(-3), report.estimated, 0.005)
    moved = evlib.TimingView(late, detector, simulation.recording)
    assert np.nanmedian(moved.channel_error_s) - np.nanmedian(view.channel_error_s) == pytest.approx(0.0015, abs=2e-4)


def test_timing_refuses_what_has_none(report, detector):
    with pytest.raises(OptionError, match="evlib.compare"):
        evlib.TimingView(report.estimated)
    with pytest.raises(DataError, match="tolerance too small"):
        evlib.TimingView(evlib.compare(report.reference, report.estimated[:0]))
    with pytest.raises(OptionError, match="both detector and recording"):
        evlib.TimingView(report, detector)
    for options, words in (
        ({"view": "errers"}, "must be one of"),
        ({"type": "whistle"}, "unknown event name 'whistle'"),
    ):
        with pytest.raises(OptionError, match=words):
            evlib.TimingView(report).set(**options)


def test_buttons_show_what_is_refused(explorer):
    explorer.button("broken", lambda: explorer.set(threshold=2.0)).click()
    assert "probability" in explorer.message.value
