"""evlib: when do which events happen in a multichannel sensor recording?

The public names are here, flat: ``evlib.read_recording``, ``from evlib import LSTMEventClassifier``. Each is
imported when it is first used, so that ``import evlib`` takes no time.
"""

import importlib

__version__ = "0.1.0"

# Module: the public names that it holds. A name must not equal a module's: the module would hide it.
_MODULES = {
    "errors": "EvlibError ShapeError UnitError OptionError DataError MissingExtraError",
    "events": "Events read_events write_events",
    "recording": "Recording",
    "formats": "read_recording write_recording",
    "validation": "validate",
    "refractory": "decode_refractory decode_events find_violations refractory_penalty",
    "refractory_streams": "RefractoryPeriodEnforcer StreamingDecoder",
    "matching": "match_events",
    "metrics": "compare Comparison",
    "synthetic": "make_recording make_templates Simulation SyntheticTemplates cramer_rao_bound_s",
    "datasets": "EventDataset collate_fn_supervised SyntheticEventDataset UnsupervisedDataset collate_fn_unsupervised "
    "ContrastiveDataset collate_fn_contrastive",
    "encoders": "LSTMEncoder",
    "patch_encoder": "DualBranchEncoder PatchFrameEncoder",
    "event_output": "EventOutput",
    "frame_encoder": "FrameEncoder",
    "models.frame": "FrameNetwork",
    "models.classifier": "LSTMEventClassifier",
    "models.event_specific": "EventTemplateBank EventSpecificCNN EventSpecificTimingHeads EventSpecificClassifier",
    "models.autoencoder": "LSTMAutoencoder VariationalLSTMAutoencoder",
    "models.contrastive": "ContrastiveLSTM",
    "models.masked": "MaskedPatchModel",
    "models.semantic": "TextAlignedModel",
    "models.sequence": "HeartRateLSTM LSTMClassifier TimeLSTM",
    "transfer": "transfer_encoder freeze_encoder unfreeze_encoder parameter_groups",
    "losses": "EventTimingLoss EventSpecificLoss AutoencoderLoss VariationalAutoencoderLoss MaskedMSELoss nt_xent",
    "templates": "TemplateBank",
    "checkpoints": "load_checkpoint latest_checkpoint save_encoder load_encoder",
    "training": "SupervisedTrainer UnsupervisedTrainer ContrastiveTrainer",
    "inference": "detect_events_from_sequence batch_inference",
    "discovery": "discover Discovery",
    "pretraining": "pretrain Pretrained",
    "fitting": "fit",
    "annotations": "AnnotationLog",
    "proposals": "propose snap changes Changes",
    "oracle": "oracle_detector",
    "augment": "Augmentation Compose WhiteNoise PinkNoise Gain ChannelDropout MagnitudeWarp Rotation",
    "augment_time": "TimeShift Crop TimeWarp TemporalAugmentation",
    "augment_fitted": "RecordedBackground DataDrivenAugmentation",
    "plots_templates": "visualize_learned_templates",
    "detection": "Detector detect load_detector",
    "annotating": "AnnotationSession",
    "ambiguity": "look_alikes",
    "delays": "channel_delays ChannelDelays time_to_next_kind",
    "sessions": "Session SessionSet open_sessions validate_sessions write_sessions",
    "motion": "MotionWindows cut_sessions",
    "synthetic_motion": "make_motion",
    "motion_training": "MotionModel pretrain_motion align_motion load_motion_model",
    "motion_evaluation": "compare_on_labels zero_shot",
    "text": "text_encoder",
    "widgets": "EventBrowser Annotator ThresholdExplorer TemplateView TimingView",
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
