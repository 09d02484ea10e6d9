"""Models: one family a file. A checkpoint names its model by one of the classes here."""

from .classifier import EventOutput, LSTMEventClassifier

__all__ = ["EventOutput", "LSTMEventClassifier"]
