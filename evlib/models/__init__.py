"""Models: one family a file. A checkpoint names its model by one of the classes here."""

from .autoencoder import LSTMAutoencoder, VariationalLSTMAutoencoder
from .classifier import EventOutput, LSTMEventClassifier
from .contrastive import ContrastiveLSTM, ContrastiveOutput

__all__ = [
    "ContrastiveLSTM",
    "ContrastiveOutput",
    "EventOutput",
    "LSTMAutoencoder",
    "LSTMEventClassifier",
    "VariationalLSTMAutoencoder",
]
