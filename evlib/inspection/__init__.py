"""Inspection: look at detections and templates, choose thresholds, correct labels.

Figures, the append-only log of annotations, and the widgets for JupyterLab and Voila. There is no science here: numbers
come from the folders before it. Whatever a button or a key does is a method too, and every widget has a static figure.
"""
