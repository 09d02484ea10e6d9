"""An exported detector finds what the original finds, and its files say what they are."""

import numpy as np
import pytest
import torch
from required import some_slow

import evlib
from evlib.detection import export as exporting
from evlib.detection.export import export, export_onnx, load_exported, onnx_network
from evlib.networks.classifier import LSTMEventClassifier, evaluating
from evlib.networks.context import ContextLSTM
from evlib.networks.encoders import LSTMEncoder
from evlib.networks.event_specific import EventSpecificClassifier
from evlib.networks.frames import FrameNetwork
from evlib.signals.errors import DataError, MissingExtraError, OptionError
from evlib.signals.synthetic import make_templates

MODELS = {
    "context": lambda: ContextLSTM(3, hidden_size=8),
    "embedded context": lambda: ContextLSTM(3, hidden_size=8, time_embedding="sincos"),
    "frames": lambda: FrameNetwork(2, 3, hidden_size=8),
    "classifier": lambda: LSTMEventClassifier(2, 8, 2, 3),
    "one direction": lambda: LSTMEventClassifier(2, 8, 1, 3, bidirectional=False, timing_resolution_samples=7),
    "event_specific": lambda: EventSpecificClassifier(2, 8, 1, 3, template_length=20),
}


@pytest.fixture(scope="module", params=some_slow(MODELS, "context"))
def written(request, tmp_path_factory):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    for weights in model.parameters():  # none is zero
        torch.nn.init.normal_(weights, std=0.2)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, path)
    return model, path


@pytest.fixture(scope="module")
def bells():
    templates = make_templates(3, 2, seed=4)
    return [evlib.make_recording(templates, 40.0, snr=13.0, seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def exported(bells, tmp_path_factory):
    detector = evlib.fit([tuple(bells[0])], "lstm", seed=3, hidden_size=8, max_epochs=2, progress=False)
    return detector, export(detector, tmp_path_factory.mktemp("export") / "bells")


@pytest.mark.parametrize("batch, time", [(1, 5), (1, 61), (5, 2003), (2, 6000)])
def test_any_batch_and_any_time_give_what_pytorch_gives(written, batch, time):
    model, path = written
    given = exporting._example(model, batch, time)
    given = [0.01 * given[0], *given[1:]]  # near zero too
    twin = onnx_network(model, path)
    outputs = exporting.GRAPHS[type(model).__name__][1]
    with evaluating(model):
        both = zip(*(exporting._Graph(one, outputs)(*given) for one in (model, twin)), strict=True)
        for ours, theirs in both:
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
        alone, padded = (
            twin(*(value[-1:, :n] if value.ndim > 1 else value[-1:] for value in given)) for n in (time, None)
        )
    for one, other in zip(*map(_tensors, (alone, padded)), strict=True):
        assert torch.equal(one, other)


def _tensors(out):
    return out if isinstance(out, tuple) else [out] if torch.is_tensor(out) else list(out)[:2]


def test_the_graph_names_what_it_reads_and_has_free_axes(written):
    import onnx

    model, path = written
    graph = onnx.load(path).graph
    inputs, outputs = exporting.GRAPHS[type(model).__name__]
    assert [value.name for value in graph.input] == [*inputs, "lengths"]
    assert [value.name for value in graph.output] == list(outputs)
    first = graph.input[0].type.tensor_type.shape.dim
    assert all(axis.dim_param for axis in first[:2])
    assert not any(node.domain not in ("", "ai.onnx") for node in graph.node)  # every runtime knows its operators


def test_it_detects_the_same_events(exported, bells):
    detector, folder = exported
    ours, theirs = (evlib.detect(one, bells[1].recording) for one in (detector, load_exported(folder)))
    assert ours.type.tolist() == theirs.type.tolist() and len(ours) > 20
    np.testing.assert_allclose(theirs.time_samples, ours.time_samples, atol=1e-6)
    np.testing.assert_allclose(theirs.score, ours.score, atol=1e-4)


def test_it_saves_as_the_original_does(exported, tmp_path):
    detector, folder = exported
    load_exported(folder).save(tmp_path / "again.ckpt")
    again = evlib.load_detector(tmp_path / "again.ckpt")
    for name, value in detector.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)


def test_the_weights_are_safetensors(exported):
    from safetensors.torch import load_file

    detector, folder = exported
    tensors = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(tensors["bank.templates"], detector.bank.templates)
    network = ContextLSTM(**detector.network.config)
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})


def test_the_card_says_data_numbers_and_limits(exported):
    detector, folder = exported
    card = (folder / "README.md").read_text()
    for heading in ("What it reads", "Data", "Numbers", "Limits", "How to use it", "Files"):
        assert f"## {heading}\n" in card
    for text in ("2000 Hz", detector.metadata["data_hash"], "network.onnx", *detector.names):
        assert text in card


def test_what_is_not_known_is_called_unknown(exported):
    from dataclasses import replace

    from evlib.detection.model_card import model_card

    card = model_card(replace(exported[0], metadata={}), "two\nlines | here")
    assert card.startswith("# two lines | here\n") and card.count("unknown") == 7 + 2 * 3


def test_files_that_do_not_belong_together_are_refused(exported, tmp_path):
    detector, folder = exported
    onnx = folder / "network.onnx"
    other = ContextLSTM(**detector.network.config)
    with pytest.raises(DataError, match="exported from other weights"):
        onnx_network(other, onnx)
    (tmp_path / "cut.onnx").write_bytes(onnx.read_bytes()[:500])
    for path in (tmp_path / "cut.onnx", tmp_path / "none.onnx"):
        with pytest.raises(DataError, match="no ONNX file that can be run"):
            onnx_network(detector.network, path)
    with pytest.raises(DataError, match="no detector at"):
        load_exported(tmp_path)


def test_a_difference_is_found(exported, monkeypatch, tmp_path):
    detector, folder = exported
    onnx_network(detector.network, folder / "network.onnx")
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(DataError, match="differs from its network by up to"):
        exporting._check_same(detector.network, folder / "network.onnx")


def test_what_cannot_be_exported_is_refused(exported, tmp_path, monkeypatch):
    detector, folder = exported
    with pytest.raises(OptionError, match="only FrameNetwork, .* can be exported as ONNX, got a LSTMEncoder"):
        export_onnx(LSTMEncoder(2, 8), tmp_path / "model.onnx")
    with pytest.raises(OptionError, match="detector must be Detector, got str"):
        export("bells.ckpt", tmp_path / "bells")
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(OptionError, match="is there already and no exported detector"):
        export(detector, tmp_path)
    assert (tmp_path / "diary.txt").read_text() == "mine"
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"evlib\[export\]"):
        export(detector, tmp_path / "new")
    assert not (tmp_path / "new").exists()
