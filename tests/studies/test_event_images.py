"""Images as events: brute force over pixels, files of digits, and files that are none."""

import gzip
import struct

import numpy as np
import pytest
import torch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.studies.sequences import AugmentedSequences, image_events, read_idx, sequence_items


def test_events_are_the_bright_pixels(rng):
    images = rng.integers(0, 256, (30, 7, 5)).astype(np.uint8)
    images[3] = 0
    times, features = image_events(images, 0.9)
    for image, time, feature in zip(images, times, features, strict=True):
        expected = [(i, value / 255) for i, value in enumerate(image.ravel().tolist()) if value / 255 > 0.9] or [
            (0, 0.0)
        ]
        if time.tolist() == [0] and len(expected) == 1:
            assert feature.tolist() == [[image[0, 0] / 255]]
        assert time.tolist() == [i for i, _ in expected] and feature.shape == (len(expected), 1)
        assert all(abs(value - want) < 1e-9 for value, (i, want) in zip(feature[:, 0], expected, strict=True) if want)
    again, _ = image_events(images / 255, 0.9)
    assert all(np.array_equal(a, b) for a, b in zip(times, again, strict=True))


def test_bad_images():
    with pytest.raises(ShapeError, match="height, width"):
        image_events(np.zeros((3, 4)))
    with pytest.raises(DataError, match="0..1 or be unsigned"):
        image_events(np.full((1, 2, 2), 255.0))
    with pytest.raises(OptionError, match="threshold"):
        image_events(np.zeros((1, 2, 2)), threshold=90)


def test_idx_files(tmp_path, rng):
    images = rng.integers(0, 256, (5, 3, 4)).astype(np.uint8)
    content = struct.pack(">HBB3I", 0, 8, 3, 5, 3, 4) + images.tobytes()
    (tmp_path / "images-idx3-ubyte").write_bytes(content)
    (tmp_path / "images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    for path in tmp_path.iterdir():
        assert np.array_equal(read_idx(path), images)
    slips = {
        "cut": content[:-1],
        "long": content + b"0",
        "float": b"\0\0\x0d" + content[3:],
        "short": b"\0",
        "text": b"hello world",
    }
    for name, slip in slips.items():
        (tmp_path / name).write_bytes(slip)
        with pytest.raises(DataError, match="no IDX file"):
            read_idx(tmp_path / name)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(content)[:-9])
    for name in ("cut.gz", "none"):
        with pytest.raises(DataError, match="no IDX file"):
            read_idx(tmp_path / name)


def test_mnist(data_home):
    images = read_idx(data_home / "mnist_t10k" / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(data_home / "mnist_t10k" / "t10k-labels-idx1-ubyte.gz")
    assert images.shape == (10_000, 28, 28) and np.bincount(labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    times, _ = image_events(images)
    lengths = np.array([len(time) for time in times])
    assert 40 < lengths.mean() < 90 and lengths.min() >= 1


def test_varied_events_are_events_of_the_moved_image(rng):
    images = np.zeros((20, 6, 7))
    images[:, 2:4, 2:5] = rng.choice([0.0, 1.0], (20, 2, 3))
    images[:, 2, 3] = 1.0
    times, features = image_events(images, 0.5)
    varied = AugmentedSequences(sequence_items(features, list(range(20)), times), (6, 7), shift=2, thinning=0.0)
    moves = set()
    for k in [*range(20)] * 5:
        item = varied[k]
        drawn = np.zeros(42)
        drawn[item["times"].long().numpy()] = 1
        fits = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(np.roll(images[k], (down, right), (0, 1)).ravel(), drawn)
        ]
        assert fits and item["target"] == k and len(item["input"]) == len(item["times"])
        moves |= set(fits)
    assert len(moves) == 25
    assert [len(item["times"]) for item in varied] == [len(one) for one in times]  # as they are


def test_thinning_leaves_a_share_and_never_nothing():
    n = 4000
    items = sequence_items([np.ones((n, 1)), np.ones((1, 1))], [0, 1], [np.arange(n), np.array([3])])
    varied = AugmentedSequences(items, (80, 50), shift=0, thinning=0.5)
    shares = np.array([len(varied[0]["times"]) / n for _ in range(200)])
    assert 0.48 < shares.min() < 0.55 and 0.95 < shares.max() <= 1.0 and shares.mean() == pytest.approx(0.75, abs=0.04)
    assert all(len(varied[1]["times"]) == 1 for _ in range(50))
    assert (varied[0]["times"].diff() > 0).all()
    again = (AugmentedSequences(items, (80, 50), seed=4) for _ in range(2))
    assert torch.equal(*(one[0]["times"] for one in again))


@pytest.mark.parametrize("options", [{"shift": -1}, {"shift": 6}, {"thinning": 1.0}, {"thinning": -0.1}])
def test_bad_variations(options):
    with pytest.raises(OptionError, match=r"shift must (lie in 0..5|be a whole number of at least 0)"):
        AugmentedSequences([], (6, 7), **options)


def test_images_of_another_shape():
    with pytest.raises(ShapeError, match=r"outside of images of shape \(4, 8\)"):
        AugmentedSequences(sequence_items([np.ones((1, 1))], [0], [np.array([63])]), (4, 8))
    with pytest.raises(ShapeError, match="without an empty axis"):
        image_events(np.zeros((0, 8, 8)))
