"""Images as sequences of events: the places of bright pixels, row by row, are the times of events."""

import gzip
import math
import struct
import zlib

import numpy as np

from .errors import DataError, OptionError, ShapeError
from .options import check_whole


def image_events(images, threshold=0.9):
    """Places (n,) and intensities (n, 1) of the pixels of each image over a share ``threshold`` of full brightness.

    Images (N, height, width) are unsigned bytes or lie in 0..1. One without a bright pixel is one event at 0.

    >>> times, features = image_events(np.array([[[0.0, 1.0], [0.95, 0.2]], [[0.0, 0.0], [0.0, 0.0]]]))
    >>> [time.tolist() for time in times]
    [[1, 2], [0]]
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.size == 0:
        raise ShapeError(f"images must have shape (images, height, width) without an empty axis, got {images.shape}")
    flat = images.reshape(len(images), -1) / (255 if images.dtype == np.uint8 else 1)
    if not (flat.min(initial=0) >= 0 and flat.max(initial=0) <= 1):
        raise DataError(f"intensities must lie in 0..1 or be unsigned bytes, got {flat.min():g}..{flat.max():g}")
    if not 0 <= threshold < 1:
        raise OptionError(f"threshold must lie in [0, 1), got {threshold!r}")
    times = [np.flatnonzero(row > threshold) if row.max(initial=0) > threshold else np.zeros(1, int) for row in flat]
    return times, [row[time][:, None] for row, time in zip(flat, times, strict=True)]


def read_idx(path):
    """An array of unsigned bytes of an IDX file (gzipped or not), the format of MNIST."""
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
        zero, kind, n_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{n_axes}I", content[4 : 4 + 4 * n_axes])
        data = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
        if zero != 0 or kind != 8 or len(data) != math.prod(shape):
            raise ValueError(f"{len(data)} bytes for shape {shape}")
    except (OSError, EOFError, struct.error, zlib.error, ValueError) as error:
        raise DataError(f"{path} is no IDX file of unsigned bytes, or a truncated one: {error}") from error
    return data.reshape(shape)


class VariedEvents(list):
    """Items of `evlib.sequences.sequence_items` whose events are moved and thinned out anew each time one is asked for.

    Parameters
    ----------
    items : items with ``input``, ``times`` and ``target``
    shape : (height, width) of the images
    shift : pixels an image moves at most, in each direction; events that leave it are lost
    thinning : the largest probability with which an event is left out (each image draws its own, from 0 to this one)
    seed : of the draws

    Iterating gives the items as they are; if nothing would be left of an image it stays as it is too.
    """

    def __init__(self, items, shape, shift=1, thinning=0.5, seed=0):
        super().__init__(items)
        check_whole(0, shift=shift)
        if any(item["times"].max() >= shape[0] * shape[1] for item in items):
            raise ShapeError(f"events lie outside of images of shape {tuple(shape)}")
        if not (shift < min(shape) and 0 <= thinning < 1):
            raise OptionError(f"shift must lie in 0..{min(shape) - 1} and thinning in [0, 1), got {shift!r} and {thinning!r}")
        self.shape, self.shift, self.thinning = shape, shift, thinning
        self.rng = np.random.default_rng(seed)

    def __getitem__(self, index):
        item = super().__getitem__(index)
        move = self.rng.integers(-self.shift, self.shift + 1, 2)
        share, draw = self.rng.uniform(0, self.thinning), self.rng.random(len(item["times"]))
        height, width = self.shape
        row, column = item["times"] // width + move[0], item["times"] % width + move[1]
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        left = inside.numpy() & (draw >= share)
        if not left.any():
            return item
        return item | {"times": (row * width + column)[left], "input": item["input"][left]}
