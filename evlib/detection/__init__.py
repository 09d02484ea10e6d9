"""Detection: fit, detect, pretrain.

From recordings and labels to a `Detector`, and from a detector and a recording to events. Imports the folders before
it.
"""
