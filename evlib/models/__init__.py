"""Models: one family a file. A checkpoint names its model by one of the classes here."""

from ..event_output import EventOutput
from .autoencoder import LSTMAutoencoder, VariationalLSTMAutoencoder
from .classifier import LSTMEventClassifier
from .contrastive import ContrastiveLSTM, ContrastiveOutput
from .event_specific import EventSpecificClassifier, EventSpecificCNN, EventSpecificTimingHeads, EventTemplateBank
from .frame import FrameNetwork
from .masked import MaskedPatchModel
from .semantic import TextAlignedModel
from .sequence import HeartRateLSTM, LSTMClassifier, TimeLSTM

__all__ = [
    "ContrastiveLSTM",
    "ContrastiveOutput",
    "EventOutput",
    "EventSpecificCNN",
    "EventSpecificClassifier",
    "EventSpecificTimingHeads",
    "EventTemplateBank",
    "FrameNetwork",
    "HeartRateLSTM",
    "LSTMAutoencoder",
    "LSTMClassifier",
    "LSTMEventClassifier",
    "MaskedPatchModel",
    "TextAlignedModel",
    "TimeLSTM",
    "VariationalLSTMAutoencoder",
]
