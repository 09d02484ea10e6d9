"""Widgets for JupyterLab and Voila: look at detections and templates, choose thresholds, correct labels.

There is no science here: numbers come from the modules below, pictures from the functions in ``plots*.py``. Everything
that a button, a slider or a key does is a method too, and every widget has a static twin (`twin.py`).
"""

from .annotator import Annotator
from .browser import EventBrowser
from .templates import TemplateView
from .thresholds import ThresholdExplorer
from .timing import TimingView

__all__ = ["Annotator", "EventBrowser", "TemplateView", "ThresholdExplorer", "TimingView"]
