"""evlib: when do which events happen in a multichannel sensor recording?

The public names are here, flat: ``evlib.read_recording``, ``from evlib import LSTMEventClassifier``. Each is
imported when it is first used, so that ``import evlib`` takes no time.
"""

import importlib

__version__ = "0.1.0"

# Module: the public names that it holds. A name must not equal a module's: the module would hide it.
_MODULES = {
    "signals.errors": "EvlibError ShapeError UnitError OptionError DataError MissingExtraError",
    "signals.events": "Events read_events write_events",
    "signals.recording": "Recording",
    "signals.files": "read_recording write_recording",
    "signals.validate": "validate",
    "signals.synthetic": "make_recording make_templates Simulation SyntheticTemplates cramer_rao_bound_s",
    "scoring.refractory": "decode_refractory decode_events find_violations refractory_penalty RefractoryPeriodEnforcer StreamingDecoder",
    "scoring.matching": "match_events",
    "scoring.comparison": "compare Comparison",
    "templates.bank": "TemplateBank",
    "templates.discover": "discover Discovery",
    "templates.waveforms": "look_alikes channel_delays ChannelDelays time_to_next_kind",
    "networks.encoders": "LSTMEncoder transfer_encoder freeze_encoder unfreeze_encoder parameter_groups",
    "networks.transformer": "DualBranchEncoder PatchFrameEncoder",
    "networks.classifier": "EventOutput LSTMEventClassifier",
    "networks.frames": "FrameEncoder FrameNetwork",
    "networks.event_specific": "EventTemplateBank EventSpecificCNN EventSpecificTimingHeads EventSpecificClassifier",
    "networks.pretext": "LSTMAutoencoder VariationalLSTMAutoencoder ContrastiveLSTM MaskedPatchModel",
    "networks.losses": "EventTimingLoss EventSpecificLoss AutoencoderLoss VariationalAutoencoderLoss MaskedMSELoss nt_xent",
    "training.data": "EventDataset collate_fn_supervised SyntheticEventDataset UnsupervisedDataset collate_fn_unsupervised ContrastiveDataset collate_fn_contrastive",
    "training.checkpoints": "load_checkpoint latest_checkpoint save_encoder load_encoder",
    "training.loop": "SupervisedTrainer UnsupervisedTrainer ContrastiveTrainer",
    "training.augment": "Augmentation Compose WhiteNoise PinkNoise Gain ChannelDropout MagnitudeWarp Rotation TimeShift Crop TimeWarp TemporalAugmentation RecordedBackground DataDrivenAugmentation",
    "training.windows": "MotionWindows",
    "detection.detector": "detect_events_from_sequence batch_inference Detector detect load_detector",
    "detection.pretrain": "pretrain",
    "detection.pretrain_windows": "Pretrained",
    "detection.fit": "fit",
    "detection.oracle": "oracle_detector",
    "inspection.annotations": "AnnotationLog",
    "inspection.annotate": "propose snap changes Changes AnnotationSession",
    "inspection.plots": "visualize_learned_templates",
    "inspection.browser": "EventBrowser",
    "inspection.annotator": "Annotator",
    "inspection.explorers": "ThresholdExplorer TemplateView TimingView",
    "motion.align": "TextAlignedModel",
    "motion.sessions": "Session SessionSet open_sessions validate_sessions write_sessions",
    "motion.windows": "cut_sessions make_motion",
    "motion.train": "MotionModel pretrain_motion align_motion load_motion_model",
    "motion.evaluate": "compare_on_labels zero_shot",
    "motion.words": "text_encoder",
    "studies.sequences": "HeartRateLSTM LSTMClassifier TimeLSTM",
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
