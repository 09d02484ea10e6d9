"""The snippets of the original README run as they stand, with ``lstm_classifier.<module>`` replaced by ``evlib``."""

import re

import numpy as np
import pytest
import torch

import evlib

SUPERVISED = """
from lstm_classifier.models import LSTMEventClassifier
from lstm_classifier.data import EventDataset, collate_fn_supervised
from lstm_classifier.training import EventTimingLoss, SupervisedTrainer
from torch.utils.data import DataLoader
import torch

# Create model
model = LSTMEventClassifier(
    input_size=6,
    hidden_size=128,
    num_layers=2,
    num_events=16,
    dropout=0.3,
    bidirectional=True,
)

# Prepare your data
# data: numpy array of shape (num_samples, seq_len, 6)
# event_labels: numpy array of shape (num_samples, 16) - binary labels
# event_timings: numpy array of shape (num_samples, 16) - timing in samples

dataset = EventDataset(data, event_labels, event_timings)
train_loader = DataLoader(dataset, batch_size=32, collate_fn=collate_fn_supervised)

# Setup training
loss_fn = EventTimingLoss(
    event_weight=1.0,
    timing_weight=1.0,
    refractory_weight=0.1,
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

trainer = SupervisedTrainer(model, loss_fn, optimizer)
trainer.fit(train_loader, num_epochs=100)
"""

UNSUPERVISED = """
from lstm_classifier.models import LSTMAutoencoder
from lstm_classifier.data import UnsupervisedDataset
from lstm_classifier.training import AutoencoderLoss, UnsupervisedTrainer

# Create autoencoder
autoencoder = LSTMAutoencoder(
    input_size=6,
    hidden_size=128,
    num_layers=2,
    latent_size=64,
)

# Prepare unlabeled data
dataset = UnsupervisedDataset(data)  # Only needs input data
train_loader = DataLoader(dataset, batch_size=32)

# Train autoencoder
loss_fn = AutoencoderLoss()
optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-3)

trainer = UnsupervisedTrainer(autoencoder, loss_fn, optimizer)
trainer.fit(train_loader, num_epochs=50)

# Transfer learned weights to classifier
classifier = LSTMEventClassifier(input_size=6, hidden_size=128, num_layers=2)
autoencoder.transfer_encoder_to_classifier(classifier)

# Now fine-tune classifier on labeled data when available
"""

CONTRASTIVE = """
from lstm_classifier.models import ContrastiveLSTM, TemporalAugmentation
from lstm_classifier.data import ContrastiveDataset, collate_fn_contrastive
from lstm_classifier.training import ContrastiveTrainer

# Create contrastive model
model = ContrastiveLSTM(
    input_size=6,
    hidden_size=128,
    projection_size=64,
)

# Create dataset with augmentations
dataset = ContrastiveDataset(
    data,
    augmentation=TemporalAugmentation.random_augment,
)
train_loader = DataLoader(dataset, batch_size=32, collate_fn=collate_fn_contrastive)

# Train with contrastive learning
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
trainer = ContrastiveTrainer(model, optimizer)
trainer.fit(train_loader, num_epochs=50)

# Transfer to classifier
classifier = LSTMEventClassifier(input_size=6, hidden_size=128)
model.transfer_encoder_to_classifier(classifier)
"""

EVENT_SPECIFIC = """
from lstm_classifier.models import EventTemplateBank

template_bank = EventTemplateBank(
    num_events=16,
    num_features=6,
    template_length=80,  # 40ms @ 2000Hz
)

# Compute template match scores
template_scores = template_bank(x)  # (batch, seq_len, num_events)

from lstm_classifier.models import EventSpecificCNN

event_cnn = EventSpecificCNN(
    num_events=16,
    input_channels=6,
    output_channels=32,
    use_shared=True,
)

# Extract event-specific features
event_features, shared_features = event_cnn(x)
# event_features: (batch, seq_len, num_events, 32)
# shared_features: (batch, seq_len, 32)

from lstm_classifier.models import EventSpecificTimingHeads

timing_heads = EventSpecificTimingHeads(
    num_events=16,
    hidden_size=128,
    dropout=0.2,
)

# Predict timing for each event
timing_logits = timing_heads(lstm_features, event_mask)

from lstm_classifier.models import EventSpecificClassifier
from lstm_classifier.training import EventSpecificLoss
from lstm_classifier.utils import visualize_learned_templates

# Create model
model = EventSpecificClassifier(
    input_size=6,
    hidden_size=128,
    num_layers=2,
    num_events=16,
    dropout=0.3,
    template_length=80,
    bidirectional=True,
)

# Forward pass
event_logits, timing_logits, template_scores = model(x, lengths)

# Training with event-specific loss
criterion = EventSpecificLoss(
    event_weight=1.0,
    timing_weight=1.0,
    template_weight=0.5,
    refractory_weight=0.1,
)

loss_dict = criterion(
    event_logits, timing_logits, template_scores,
    event_labels, event_timings
)

# Visualize learned templates
visualize_learned_templates(model, 'templates.png')
"""

INFERENCE = """
from lstm_classifier.utils import detect_events_from_sequence
import numpy as np

# Load trained model
model = LSTMEventClassifier(...)
checkpoint = torch.load("checkpoints/best_model.pth")
model.load_state_dict(checkpoint["model_state_dict"])

# Detect events from new sequence
sequence = np.random.randn(2000, 6)  # 1 second @ 2000 Hz
results = detect_events_from_sequence(
    model=model,
    sequence=sequence,
    threshold=0.5,
    apply_refractory=True,
)

print("Detected events:", results["detected_events"])
print("Event timings (samples):", results["event_timings"])
print("Event probabilities:", results["event_probs"])
"""

REFRACTORY = """
from lstm_classifier.utils import RefractoryPeriodEnforcer

enforcer = RefractoryPeriodEnforcer(
    num_events=16,
    refractory_period_samples=4000,
)

# Process sequences with refractory enforcement
for sequence in sequences:
    results = detect_events_from_sequence(model, sequence)
    filtered_events, filtered_timings = enforcer.enforce(
        results["detected_events"],
        results["event_timings"],
        global_offset=current_time,
    )
"""

CONFIGURATION = """
LSTMEventClassifier(
    input_size=6,                    # Number of input features
    hidden_size=128,                 # LSTM hidden units
    num_layers=2,                    # Number of LSTM layers
    num_events=16,                   # Number of event classes
    dropout=0.3,                     # Dropout probability
    bidirectional=True,              # Bidirectional LSTM
    timing_resolution_samples=10,    # 5ms @ 2000Hz
    refractory_period_samples=4000,  # 2s @ 2000Hz
)
"""


def run(snippet, names):
    exec(re.sub(r"from lstm_classifier\.\w+ import", "from evlib import", snippet), names)  # noqa: S102
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
        names = run(SUPERVISED, original_windows())
        # The README leaves the constructor's arguments out with an ellipsis.
        names = run(INFERENCE.replace("LSTMEventClassifier(...)", "LSTMEventClassifier()"), names)
        rng = np.random.default_rng(1)
        names.update(sequences=[rng.normal(size=(2000, 6)) for _ in range(2)], current_time=0)
        yield run(REFRACTORY, names)


def test_quick_start_1_trains(session):
    history = session["trainer"].history
    assert len(history) == 100
    assert history[-1]["train_total_loss"] < 0.5 * history[0]["train_total_loss"]


@pytest.fixture(scope="module")
def imports():
    """What the snippets of Quick Start 2 and 3 take over from that of 1."""
    names = {}
    exec("from torch.utils.data import DataLoader\nimport torch\nfrom evlib import LSTMEventClassifier", names)  # noqa: S102
    return names


def encoders_are_equal(model, classifier):
    weights = classifier.encoder.state_dict()
    return all(torch.equal(weights[name], weight) for name, weight in model.encoder.state_dict().items())


def test_quick_start_2_pretrains_and_transfers(imports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(UNSUPERVISED, {**imports, **original_windows()})
    history = names["trainer"].history
    assert len(history) == 50 and history[-1]["train_total_loss"] < history[0]["train_total_loss"]
    assert encoders_are_equal(names["autoencoder"], names["classifier"])


def test_quick_start_3_pretrains_and_transfers(imports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run(CONTRASTIVE, {**imports, **original_windows()})
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
    exec(CONFIGURATION.replace("\nLSTM", "\nmodel = LSTM", 1), names)  # noqa: S102
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
    run(EVENT_SPECIFIC, names)
    assert names["event_features"].shape == (2, 100, 16, 32) and names["shared_features"].shape == (2, 100, 32)
    assert names["template_scores"].shape == (2, 100, 16) and names["timing_logits"].shape == (2, 10, 16)
    assert names["loss_dict"]["total_loss"].isfinite()
    assert (tmp_path / "templates.png").stat().st_size > 10_000
