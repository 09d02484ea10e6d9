"""The snippets of the original README run as they stand, with ``lstm_classifier.<module>`` replaced by ``evlib``."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import evlib

TEXT = (Path(__file__).parent / "original_api.md").read_text()
SNIPPETS = dict(re.findall(r"^## (.*?)\n+```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))


def run(snippet, names):
    exec(re.sub(r"from lstm_classifier\.\w+ import", "from evlib import", snippet), names)
    return names


def original_windows(n=4, seq_len=100):
    """Arrays as the original's README describes them: times are multiples of 10, and 0 where there is no event."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n, 16)) < 0.3).astype(np.float32)
    timings = (rng.integers(0, seq_len, (n, 16)) // 10 * 10 * labels).astype(np.float32)
    return {
        "data": rng.normal(size=(n, seq_len, 6)).astype(np.float32),
        "event_labels": labels,
        "event_timings": timings,
    }


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What the snippets leave behind, run one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("original"))
        names = run(SNIPPETS["supervised"], original_windows())
        # The README leaves the constructor's arguments out with an ellipsis.
        names = run(SNIPPETS["inference"].replace("LSTMEventClassifier(...)", "LSTMEventClassifier()"), names)
        rng = np.random.default_rng(1)
        names.update(sequences=[rng.normal(size=(2000, 6)) for _ in range(2)], current_time=0)
        yield run(SNIPPETS["refractory"], names)


def test_quick_start_1_trains(session):
    history = session["trainer"].history
    assert len(history) == 100
    assert history[-1]["train_total_loss"] < 0.5 * history[0]["train_total_loss"]


@pytest.fixture(scope="module")
def imports():
    """What the snippets of Quick Start 2 and 3 take over from that of 1."""
    names = {}
    exec("from torch.utils.data import DataLoader\nimport torch\nfrom evlib import LSTMEventClassifier", names)
    return names


def encoders_are_equal(model, classifier):
    weights = classifier.encoder.state_dict()
    return all(torch.equal(weights[name], weight) for name, weight in model.encoder.state_dict().items())


def test_quick_start_2_pretrains_and_transfers(imports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(SNIPPETS["unsupervised"], {**imports, **original_windows()})
    history = names["trainer"].history
    assert len(history) == 50 and history[-1]["train_total_loss"] < history[0]["train_total_loss"]
    assert encoders_are_equal(names["autoencoder"], names["classifier"])


def test_quick_start_3_pretrains_and_transfers(imports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(SNIPPETS["contrastive"], {**imports, **original_windows()})
    history = names["trainer"].history
    assert len(history) == 50 and history[-1]["train_total_loss"] < 0.5 * history[0]["train_total_loss"]
    assert encoders_are_equal(names["model"], names["classifier"])


def test_quick_start_4_detects(session):
    assert session["checkpoint"]["epoch"] > 50
    for name in ("detected_events", "event_timings", "event_probs"):
        assert isinstance(session["results"][name], np.ndarray) and session["results"][name].shape == (16,)
    missing = session["results"]["detected_events"] == 0
    np.testing.assert_array_equal(np.isnan(session["results"]["event_timings"]), missing)


def test_refractory_snippet_filters(session):
    assert np.shape(session["filtered_events"]) == np.shape(session["filtered_timings"]) == (16,)
    assert np.sum(session["filtered_events"]) <= np.sum(session["results"]["detected_events"])


def test_model_configuration_is_the_default():
    names = {"LSTMEventClassifier": evlib.LSTMEventClassifier}
    exec("model = " + SNIPPETS["configuration"], names)
    assert names["model"].config == evlib.LSTMEventClassifier().config


def test_event_specific_snippets_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_up = original_windows(n=2)
    names = {
        "x": torch.from_numpy(made_up["data"]),
        "lengths": torch.tensor([100, 80]),
        "lstm_features": torch.zeros(2, 20, 128),
        "event_mask": torch.ones(2, 16),
        "event_labels": torch.from_numpy(made_up["event_labels"]),
        "event_timings": torch.from_numpy(made_up["event_timings"]),
    }
    run(SNIPPETS["event specific"], names)
    assert names["event_features"].shape == (2, 100, 16, 32) and names["shared_features"].shape == (2, 100, 32)
    assert names["template_scores"].shape == (2, 100, 16) and names["timing_logits"].shape == (2, 10, 16)
    assert names["loss_dict"]["total_loss"].isfinite()
    assert (tmp_path / "templates.png").stat().st_size > 10_000


def test_data_sets_of_the_original(tmp_path):
    """`EventDataset` without labels, and `input_size` of the synthetic one."""
    windows = original_windows()["data"]
    alone = evlib.EventDataset(windows)
    assert set(alone[1]) == {"input", "length"} and set(evlib.collate_fn_supervised([alone[0]])) == {"input", "lengths"}
    labelled = evlib.EventDataset(windows, original_windows()["event_labels"])
    assert labelled[0]["event_labels"].shape == (16,) and labelled[0]["event_timings"].isnan().all()
    with pytest.raises(evlib.EvlibError, match="event_timings need event_labels"):
        evlib.EventDataset(windows, None, original_windows()["event_timings"])
    synthetic = evlib.SyntheticEventDataset(num_samples=3, seq_len=200, input_size=4, num_events=5)
    assert synthetic[0]["input"].shape == (200, 4) and synthetic[0]["event_timings"].shape == (5,)


def test_outputs_are_read_by_key():
    x = torch.from_numpy(original_windows()["data"])
    contrastive = evlib.ContrastiveLSTM(input_size=6, hidden_size=8, projection_size=4)
    both, one = contrastive(x, x), contrastive(x)
    assert all(name in both for name in ("z1", "h1", "z2", "h2")) and "z3" not in both and "count" not in both
    assert "z1" in one and "z2" not in one and one["z1"].shape == (4, 4)
    z1, h1, z2, h2 = both
    assert z1 is both["z1"] is both[0] is both.z1 and h2 is both["h2"] is both[-1]
    output = evlib.LSTMEventClassifier(hidden_size=8)(x)
    for name in ("event_logits", "timing_logits", "event_probs", "timing_probs"):
        assert name in output and output[name].shape[-1] == 16
    for model in (evlib.LSTMAutoencoder, evlib.VariationalLSTMAutoencoder):
        autoencoder = model(input_size=6, hidden_size=8, latent_size=3).eval()
        latent = autoencoder(x)["latent"]
        assert torch.equal(autoencoder.decode(latent, seq_len=100), autoencoder(x)["reconstruction"])


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_non_maximum_suppression_keeps_the_strongest_peak(kind):
    rng = np.random.default_rng(0)
    probs, timings = rng.random((50, 16)) * np.linspace(0.3, 1, 16), rng.integers(0, 500, (50, 16)).astype(float)
    events, times, surest = map(np.asarray, evlib.non_maximum_suppression(kind(probs), kind(timings), threshold=0.6))
    for k in range(16):
        row = max(range(50), key=lambda t: probs[t, k])
        if probs[row, k] > 0.6:
            assert (events[k], times[k], surest[k]) == (1, timings[row, k], probs[row, k])
        else:
            assert events[k] == surest[k] == 0 and np.isnan(times[k])
    assert 0 < events.sum() < 16


def test_bad_tables_of_non_maximum_suppression():
    good = np.full((5, 2), 0.3)
    for probs, timings, words in (
        (good, good[:4], "shape"),
        (good[0], good[0], "shape"),
        (good[:0], good[:0], "shape"),
        (good - 1, good, "sigmoid"),
        (good * np.nan, good, "sigmoid"),
    ):
        with pytest.raises(evlib.EvlibError, match=words):
            evlib.non_maximum_suppression(probs, timings)
    with pytest.raises(evlib.EvlibError, match="threshold"):
        evlib.non_maximum_suppression(good, good, threshold=50)
