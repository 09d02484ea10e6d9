"""evlib: when do which events happen in a multichannel sensor recording?

The public names are here, flat: ``evlib.read_recording``, ``from evlib import LSTMEventClassifier``. Each is
imported when it is first used, so that ``import evlib`` takes no time.
"""

import importlib

__version__ = "0.1.0"

# Module: the public names that it holds. A name must not equal a module's: the module would hide it.
_MODULES = {
    "signals.errors": "EvlibError",
    "signals.recording": "Recording",
    "signals.events": "Events read_events write_events",
    "signals.files": "read_recording write_recording",
    "signals.validate": "validate",
    "signals.synthetic": "make_recording",
    "scoring.comparison": "compare Comparison",
    "scoring.refractory": "RefractoryPeriodEnforcer",
    "templates.discover": "discover",
    "networks.classifier": "LSTMEventClassifier EventOutput",
    "networks.event_specific": "EventTemplateBank EventSpecificCNN EventSpecificTimingHeads EventSpecificClassifier",
    "networks.pretext": "LSTMAutoencoder VariationalLSTMAutoencoder ContrastiveLSTM",
    "networks.encoders": "transfer_encoder",
    "networks.losses": "EventTimingLoss EventSpecificLoss AutoencoderLoss VariationalAutoencoderLoss",
    "training.data": "EventDataset collate_fn_supervised SyntheticEventDataset UnsupervisedDataset collate_fn_unsupervised "
    "ContrastiveDataset collate_fn_contrastive",
    "training.augment": "TemporalAugmentation",
    "training.loop": "SupervisedTrainer UnsupervisedTrainer ContrastiveTrainer",
    "training.checkpoints": "load_encoder",
    "detection.fit": "fit",
    "detection.detector": "detect load_detector Detector detect_events_from_sequence",
    "detection.pretrain": "pretrain",
    "inspection.plots": "visualize_learned_templates",
    "inspection.browser": "EventBrowser",
    "inspection.annotator": "Annotator",
    "inspection.explorers": "ThresholdExplorer TemplateView TimingView",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value  # the next use does not come here
        return value
    try:  # evlib.plots, evlib.workbook, ...
        return importlib.import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module 'evlib' has no attribute {name!r}") from None


def __dir__():
    return sorted(__all__)
