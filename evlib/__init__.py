"""evlib: when do which events happen in a multichannel sensor recording?

What is needed daily is here, flat: ``evlib.read_recording``, ``from evlib import LSTMEventClassifier``. Each name is
imported when it is first used, so that ``import evlib`` takes no time. Everything else is imported from its file:
``from evlib.templates.bank import TemplateBank``.
"""

import importlib

__version__ = "0.2.0"

# File: the public names that it holds. A name must not equal a folder's: the folder would hide it.
_MODULES = {
    "signals.errors": "EvlibError",
    "signals.recording": "Recording",
    "signals.events": "Events",
    "signals.labels": "read_events write_events",
    "signals.files": "read_recording write_recording",
    "signals.validate": "validate",
    "signals.dataset": "open_dataset",
    "signals.synthetic": "make_recording",
    "signals.examples": "example",
    "signals.joined": "join_streams",
    "scoring.comparison": "compare Comparison",
    "scoring.refractory": "RefractoryPeriodEnforcer non_maximum_suppression",
    "templates.discover": "discover",
    "networks.classifier": "LSTMEventClassifier EventOutput",
    "networks.event_specific": "EventTemplateBank EventSpecificCNN EventSpecificTimingHeads EventSpecificClassifier",
    "networks.pretext": "LSTMAutoencoder VariationalLSTMAutoencoder ContrastiveLSTM",
    "networks.encoders": "transfer_encoder",
    "networks.losses": "EventTimingLoss EventSpecificLoss AutoencoderLoss VariationalAutoencoderLoss MaskedMSELoss",
    "training.data": "EventDataset collate_fn_supervised SyntheticEventDataset UnsupervisedDataset "
    "collate_fn_unsupervised ContrastiveDataset collate_fn_contrastive",
    "training.augment": "TemporalAugmentation",
    "training.loop": "SupervisedTrainer UnsupervisedTrainer ContrastiveTrainer",
    "training.checkpoints": "load_encoder",
    "detection.fit": "fit",
    "detection.estimator": "EventDetector",
    "detection.detector": "detect load_detector Detector detect_events_from_sequence",
    "detection.pretrain": "pretrain",
    "detection.archive": "detect_all",
    "live.streaming": "StreamingDetector",
    "inspection.plots": "visualize_learned_templates",
    "inspection.browser": "EventBrowser",
    "inspection.annotator": "Annotator",
    "inspection.explorers": "ThresholdExplorer TemplateView TimingView",
    "inspection.live": "LiveView",
    "studies.sequences": "HeartRateLSTM LSTMClassifier",
    "pretrained": "load_pretrained",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}
# Names of version 0.1 that are imported from their file, by file; and those that have another name.
_MOVED = {
    "signals.errors": "ShapeError UnitError OptionError DataError MissingExtraError",
    "signals.synthetic": "make_templates Simulation SyntheticTemplates cramer_rao_bound_s",
    "scoring.refractory": "decode_refractory find_violations refractory_penalty StreamingDecoder",
    "scoring.matching": "match_events",
    "templates.bank": "TemplateBank",
    "templates.discover": "Discovery",
    "templates.waveforms": "similar_templates channel_delays ChannelDelays inter_event_intervals",
    "networks.encoders": "LSTMEncoder parameter_groups",
    "networks.transformer": "DualBranchEncoder PatchFrameEncoder",
    "networks.frames": "FrameEncoder FrameNetwork",
    "networks.pretext": "MaskedPatchModel",
    "networks.losses": "nt_xent",
    "training.checkpoints": "load_checkpoint latest_checkpoint save_encoder",
    "training.augment": "Augmentation Compose WhiteNoise Gain ChannelDropout MagnitudeWarp Rotation TimeShift "
    "Crop TimeWarp DataDrivenAugmentation",
    "detection.detector": "batch_inference",
    "detection.pretrain": "Pretrained",
    "detection.oracle": "oracle_detector",
    "inspection.annotations": "AnnotationLog",
    "motion.align": "TextAlignedModel",
    "motion.sessions": "Session SessionSet open_sessions validate_sessions write_sessions",
    "motion.windows": "cut_sessions make_motion",
    "motion.train": "MotionModel pretrain_motion align_motion load_motion_model",
    "motion.evaluate": "label_efficiency zero_shot",
    "motion.words": "text_encoder",
    "studies.sequences": "TimeLSTM",
}
_RENAMED = {name: f"{module}.{name}" for module, names in _MOVED.items() for name in names.split()} | {
    "time_to_next_kind": "templates.waveforms.inter_event_intervals",
    "look_alikes": "templates.waveforms.similar_templates",
    "MotionWindows": "training.windows.Windows",
    "compare_on_labels": "motion.evaluate.label_efficiency",
    "propose": "inspection.annotate.suggest",
    "snap": "inspection.annotate.refine_onset",
    "changes": "inspection.annotate.diff_events",
    "Changes": "inspection.annotate.EventDiff",
}
# Names of version 0.1 that are gone, and what to write instead.
_GONE = {
    "AnnotationSession": "evlib.Annotator, which has its methods",
    "decode_events": "events[evlib.scoring.refractory.decode_refractory(times, types, scores, period)]",
    "freeze_encoder": "model.encoder.requires_grad_(False)",
    "unfreeze_encoder": "model.encoder.requires_grad_(True)",
    "PinkNoise": "evlib.training.augment.DataDrivenAugmentation, with the spectrum of your recordings",
    "RecordedBackground": "evlib.training.augment.DataDrivenAugmentation, with the spectrum of your recordings",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value  # the next use does not come here
        return value
    if name in _RENAMED:
        module, _, new = _RENAMED[name].rpartition(".")
        # An AttributeError would lose its words in ``from evlib import ...``.
        raise ImportError(f"evlib.{name} has moved: from evlib.{module} import {new}", name=name)
    if name in _GONE:
        raise ImportError(f"evlib.{name} is gone; write {_GONE[name]}", name=name)
    try:  # evlib.templates, evlib.workbook, ...
        return importlib.import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module 'evlib' has no attribute {name!r}") from None


def __dir__():
    return sorted(__all__)
