"""Augmentations: labels follow the signal, draws come from the generator, padding stays zero."""

import inspect

import numpy as np
import pytest
import torch
from scipy.signal import welch

from evlib.signals.errors import DataError, OptionError, ShapeError
from evlib.signals.events import Events
from evlib.signals.recording import Recording
from evlib.training import augment
from evlib.training.augment import (
    Augmentation,
    ChannelDropout,
    Compose,
    Crop,
    DataDrivenAugmentation,
    Gain,
    MagnitudeWarp,
    Resample,
    Rotation,
    Saturation,
    Slower,
    TemporalAugmentation,
    TimeShift,
    TimeWarp,
    WarpMap,
    WhiteNoise,
)
from evlib.training.data import EventDataset, collate_fn_supervised

NAN = float("nan")
RATE = 2000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def bumps(size=64, time=400, channels=3, width=6.0, seed=0, lengths=None):
    """A batch with one smooth bump for each event, exactly at its time; event k is the only one on channel k."""
    rng = np.random.default_rng(seed)
    lengths = np.full(size, time) if lengths is None else np.asarray(lengths)
    timings = rng.uniform(0, lengths[:, None] - 1, (size, channels)).astype(np.float32)
    steps = np.arange(time)[None, :, None]
    x = np.exp(-0.5 * ((steps - timings[:, None]) / width) ** 2) * (steps < lengths[:, None, None])
    return {
        "input": torch.tensor(x, dtype=torch.float32),
        "lengths": torch.tensor(lengths),
        "event_labels": torch.ones(size, channels),
        "event_timings": torch.tensor(timings),
    }


def peak_times(x):
    """(batch, channels): the maximum of each channel, finer than a sample for a bump (a parabola through its
    logarithm)."""
    best = x.argmax(1, keepdim=True).clamp(1, x.shape[1] - 2)
    left, middle, right = (x.gather(1, best + k).clamp(min=1e-12).log()[:, 0] for k in (-1, 0, 1))
    return best[:, 0] + 0.5 * (left - right) / (left - 2 * middle + right)


def everything(time=400, channels=6):
    """One of each kind, with settings that change something."""
    rng = np.random.default_rng(1)
    snippets = rng.normal(size=(5, 20, channels)).astype(np.float32)
    fitted = DataDrivenAugmentation(np.ones((channels, 65)), 0.3, snippets, 0.01, RATE, maybe_events=False)
    kinds = [
        WhiteNoise(0.1),
        Gain(),
        Gain(per_channel=True),
        ChannelDropout((0.4, 0.5)),
        Saturation(),
        Slower((2.0, 5.0)),
        MagnitudeWarp((0.2, 0.3)),
    ]
    kinds += [Rotation(), TimeShift(30), TimeShift(30, fill="zero"), Crop((0.5, 0.8)), TimeWarp((0.2, 0.3))]
    kinds += [Resample((0.9, 1.1)), fitted]
    return [*kinds, Compose([WhiteNoise(), Crop(0.7), TimeWarp(0.2)], [0.5, 0.5, 1.0])]


KINDS = [pytest.param(kind, id=f"{type(kind).__name__}{k}") for k, kind in enumerate(everything())]
NOTHING = DataDrivenAugmentation(np.ones((3, 9)), 0.3, np.ones((1, 8, 3)), 1.0, RATE, noise=0, gain=0, transients=0)
IDENTITIES = [
    WhiteNoise(0),
    Gain(1.0),
    ChannelDropout(0),
    Saturation(1.0),
    Slower(1.0, 0.0),
    MagnitudeWarp(0),
    Rotation(()),
    TimeShift(0),
    Crop(1.0),
]
IDENTITIES += [NOTHING, TimeWarp(0), Resample(1.0), Compose([]), Compose([Gain(3.0), Crop(0.5)], 0.0)]


# Times move with the signal


@pytest.mark.parametrize(
    ("augmentation", "tolerance"),
    [
        (TimeShift(60), 1e-3),
        (TimeShift(60, fill="zero"), 1e-3),
        (Crop((0.4, 0.9)), 1e-3),
        (TimeWarp(0.3), 0.15),
        (Resample((0.8, 1.2)), 0.15),
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_a_bump_is_where_its_time_says(augmentation, tolerance, padded):
    lengths = np.random.default_rng(5).integers(150, 401, 64) if padded else None
    before = bumps(lengths=lengths)
    after = augmentation(before, seeded())
    known = after["event_labels"] == 1
    # Next to an end a bump has no peak.
    inside = known & (after["event_timings"] > 20) & (after["event_timings"] < after["lengths"][:, None] - 21)
    inside &= (before["event_timings"] > 20) & (before["event_timings"] < before["lengths"][:, None] - 21)
    assert inside.sum() > 60
    assert (peak_times(after["input"]) - after["event_timings"])[inside].abs().max() < tolerance
    moved = (after["event_timings"] - before["event_timings"])[inside].abs()
    assert moved.max() > 10


@pytest.mark.parametrize("augmentation", [TimeShift(150, fill="zero"), Crop((0.3, 0.9))])
def test_moved_samples_are_found_again_by_brute_force(augmentation):
    """Every sample is unique: its value tells where it came from, and so where each event must be."""
    size, time = 40, 200
    lengths = torch.randint(160, time + 1, (size,), generator=seeded(3))
    x = torch.arange(1.0, size * time + 1).view(size, time, 1) * (torch.arange(time) < lengths[:, None])[..., None]
    timings = (torch.rand(size, 5, generator=seeded(4)) * lengths[:, None]).floor()
    batch = {"input": x, "lengths": lengths, "event_labels": torch.ones(size, 5), "event_timings": timings}
    after = augmentation(batch, seeded())
    dropped = 0
    for i in range(size):
        new = after["input"][i, :, 0]
        assert (new[after["lengths"][i] :] == 0).all()
        for k in range(5):
            places = (new == x[i, int(timings[i, k]), 0]).nonzero().flatten().tolist()
            if places:
                assert after["event_labels"][i, k] == 1 and places == [after["event_timings"][i, k]]
            else:
                dropped += 1
                assert after["event_labels"][i, k] == 0 and after["event_timings"][i, k].isnan()
    assert 20 < dropped < 180


def test_shift_fills_with_the_edge_or_with_zero():
    x = torch.arange(1.0, 7).view(1, 6, 1).repeat(50, 1, 1)
    lengths = torch.full((50,), 4)
    seen = set()
    for fill in ("edge", "zero"):
        after = TimeShift(2, fill=fill)({"input": x, "lengths": lengths}, seeded())
        seen |= {(fill, *row.int().tolist()) for row in after["input"][..., 0]}
    edge = {(1, 2, 3, 4), (1, 1, 2, 3), (1, 1, 1, 2), (2, 3, 4, 4), (3, 4, 4, 4)}
    zero = {(1, 2, 3, 4), (0, 1, 2, 3), (0, 0, 1, 2), (2, 3, 4, 0), (3, 4, 0, 0)}
    assert seen == {(fill, *row, 0, 0) for fill, rows in (("edge", edge), ("zero", zero)) for row in rows}


def test_crop_starts_everywhere_and_keeps_what_it_says():
    x = torch.arange(10.0).view(1, 10, 1).repeat(400, 1, 1)
    after = Crop(0.7)({"input": x}, seeded())
    assert (after["lengths"] == 7).all()
    counts = after["input"][:, 0, 0].int().bincount()
    assert len(counts) == 4 and counts.min() > 60
    assert Crop(0.7)(x, seeded()).shape == x.shape


def test_labels_stay_honest():
    """Lost: 0. Of unknown time where samples were lost: unknown. The rest stays."""
    timings = torch.tensor([[2.0, 60.0, NAN, NAN, NAN]]).repeat(100, 1)
    labels = torch.tensor([[1.0, 1.0, 1.0, 0.0, NAN]]).repeat(100, 1)
    batch = {"input": torch.zeros(100, 121, 1), "event_labels": labels, "event_timings": timings}
    after = TimeShift(40)(batch, seeded())
    shift = after["event_timings"][:, 1] - 60
    assert torch.equal(after["event_labels"][:, 0] == 1, shift >= -2) and (after["event_labels"][:, 0] == 0).any()
    assert torch.equal(after["event_timings"][:, 0].isnan(), shift < -2)
    assert (after["event_labels"][:, 1] == 1).all()
    assert torch.equal(after["event_labels"][:, 2].isnan(), shift != 0)
    assert (after["event_labels"][:, 3] == 0).all() and after["event_labels"][:, 4].isnan().all()
    cropped = Crop((0.9, 1.0))(batch, seeded())
    assert torch.equal(cropped["event_labels"][:, 2].isnan(), cropped["lengths"] < 121)
    assert (cropped["lengths"] == 121).any() and (cropped["event_labels"][:, 3] == 0).all()
    warped = TimeWarp(0.3)(batch, seeded())
    assert torch.equal(warped["event_labels"].nan_to_num(9), labels.nan_to_num(9))


def test_what_comes_out_is_a_valid_dataset_again():
    batch = bumps(lengths=np.random.default_rng(0).integers(100, 401, 64))
    pipeline = Compose([TimeShift(50), TimeWarp(0.3), Crop((0.5, 1.0)), TimeShift(20)])
    for seed in range(5):
        after = pipeline(batch, seeded(seed))
        dataset = EventDataset(after["input"], after["event_labels"], after["event_timings"], after["lengths"])
        again = collate_fn_supervised([dataset[i] for i in range(len(dataset))])
        assert again["lengths"].tolist() == after["lengths"].tolist()


# Time warp


@pytest.mark.parametrize("stretch", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("knots", [2, 5, 12])
def test_warped_times_agree_with_the_map_inverted_numerically(stretch, knots, rng):
    span = torch.tensor([1999, 700, 30])
    warp = WarpMap(torch.tensor(1 + stretch * rng.uniform(-1, 1, (3, knots))), span)
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64) * span[:, None]
    source = warp.source(grid)
    assert (source.diff(dim=1) > 0).all()
    assert torch.allclose(source[:, [0, -1]], torch.stack([torch.zeros(3), span], 1).double())
    times = torch.tensor(rng.uniform(0, 1, (3, 50))) * span[:, None]
    got = warp.target(times)
    for i in range(3):
        want = np.interp(times[i].numpy(), source[i].numpy(), grid[i].numpy())
        assert np.abs(got[i].numpy() - want).max() < 0.01
    assert torch.allclose(warp.source(got), times, atol=1e-8)
    # Smooth: the speed has no jump.
    speed = source.diff(dim=1) / grid.diff(dim=1)
    assert (speed.diff(dim=1).abs() < 2e-3 * speed.max()).all()
    assert speed.max() <= (1 + stretch) / (1 - stretch) * 1.001


def test_a_warp_keeps_ends_unknown_times_and_short_sequences():
    warp = WarpMap(torch.tensor([[0.5, 1.5, 1.0]]).double(), torch.tensor([99]))
    times = torch.tensor([[0.0, 99.0, 99.5, -1.0, NAN]]).double()
    assert torch.allclose(warp.target(times), times, equal_nan=True)
    short = TimeWarp(0.5)({"input": torch.full((2, 3, 1), 7.0), "lengths": torch.tensor([1, 2])}, seeded())
    assert torch.allclose(short["input"].squeeze(2), torch.tensor([[7.0, 0, 0], [7, 7, 0]]))


# What changes values


def test_white_noise_has_its_standard_deviation_for_each_sequence():
    x = torch.ones(50, 2000, 2)
    noise = WhiteNoise((0.1, 0.5))(x, seeded()) - x
    spread = noise.std((1, 2))
    assert 0.095 < spread.min() < 0.15 and 0.45 < spread.max() < 0.52
    assert noise.mean().abs() < 0.01
    fixed = WhiteNoise(0.3)(x, seeded()) - x
    assert fixed.std((1, 2)).sub(0.3).abs().max() < 0.02


def test_gain_is_one_factor_or_one_for_each_channel():
    x = torch.rand(200, 7, 3, generator=seeded(1)) + 1
    factor = Gain((0.5, 2.0))(x, seeded()) / x
    assert torch.allclose(factor, factor[:, :1, :1].expand_as(factor))
    assert 0.5 <= factor.min() < 0.55 and 1.9 < factor.max() <= 2
    factor = Gain((0.5, 2.0), per_channel=True)(x, seeded()) / x
    assert torch.allclose(factor, factor[:, :1].expand_as(factor))
    assert (factor[:, 0].std(1) > 0.01).all()


def test_channel_dropout_keeps_at_least_one():
    x = torch.ones(2000, 5, 4)
    for probability in (0.3, 1.0):
        kept = ChannelDropout(probability)(x, seeded())
        assert torch.equal(kept, kept[:, :1].expand_as(kept)) and kept.amax(2).min() == 1
        # The last channel is not dropped: it is kept where all four would go.
        assert kept.mean().item() == pytest.approx(1 - probability + probability**4 / 4, abs=0.02)


def test_magnitude_warp_is_smooth_and_bounded():
    curve = MagnitudeWarp(0.3, knots=6)(torch.ones(50, 1000, 4), seeded())
    assert 0.7 <= curve.min() < 0.75 and 1.25 < curve.max() <= 1.3 + 1e-6
    # A raised cosine between gains 0.6 apart, 200 samples long, is at most this steep.
    assert curve.diff(dim=1).abs().max() < 0.6 * np.pi / 2 / 199
    assert (curve.std(1) > 0.005).all() and (curve[:, 0].std(1) > 1e-3).all()


def rotations(rotate, size=500):
    """The matrices that a rotation of six channels applied, (size, 6, 6): what it makes of the unit vectors."""
    return rotate(torch.eye(6, dtype=torch.float64).repeat(size, 1, 1), seeded()).mT


def test_rotations_are_rotations_and_uniform():
    matrices = rotations(Rotation())
    one, other = matrices[:, :3, :3], matrices[:, 3:, 3:]
    for r in (one, other):
        assert torch.allclose(r @ r.mT, torch.eye(3).double().expand_as(r)) and torch.allclose(
            r.det(), torch.ones(500).double()
        )
        # A fixed direction goes everywhere on the sphere, and the angle has the density (1 - cos) / pi.
        assert r[:, :, 0].mean(0).abs().max() < 0.1
        assert torch.allclose(r[:, :, 0].T @ r[:, :, 0] / 500, torch.eye(3).double() / 3, atol=0.05)
        angle = ((r.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).arccos()
        assert angle.mean().item() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.1)
    assert (matrices[:, :3, 3:] == 0).all() and (matrices[:, 3:, :3] == 0).all()
    assert (one - other).abs().amax((1, 2)).min() > 1e-3
    assert (one[1:] - one[:-1]).abs().amax((1, 2)).min() > 1e-3


def test_triads_at_one_location_share_a_rotation():
    matrices = rotations(Rotation(((0, 2, 4), (5, 3, 1)), one_per_location=("wrist", "wrist")))
    first, second = matrices[:, [0, 2, 4]][:, :, [0, 2, 4]], matrices[:, [5, 3, 1]][:, :, [5, 3, 1]]
    assert torch.equal(first, second)
    x = torch.randn(20, 9, 8, generator=seeded(1))
    after = Rotation(((1, 2, 3), (5, 6, 7)))(x, seeded())
    assert torch.equal(after[..., [0, 4]], x[..., [0, 4]])
    for triad in ([1, 2, 3], [5, 6, 7]):
        assert torch.allclose(after[..., triad].norm(dim=2), x[..., triad].norm(dim=2), atol=1e-5)


# What is learned from recordings


def coloured_recording(rng, n=120_000, bursts=40, strength=4.0):
    """Noise with a resonance, and decaying bursts at known times of log-normal strength (spread 0.5)."""
    from scipy.signal import lfilter

    signal = lfilter([1.0], [1, -1.6, 0.9], rng.normal(size=(n, 2)), axis=0) * [1.0, 0.3]
    places = np.sort(rng.choice(np.arange(5, n // 500 - 5), bursts, replace=False)) * 500
    shape = np.exp(-np.arange(60) / 15)[:, None] * np.sin(np.arange(60)[:, None] * [0.9, 1.3]) * [60.0, 12.0]
    shape[:4] *= np.linspace(0, 1, 4)[:, None]
    gains = strength * np.exp(0.5 * rng.normal(size=bursts))
    for place, gain in zip(places, gains, strict=True):
        signal[place : place + 60] += gain * shape
    return Recording(signal, RATE), places, shape


@pytest.fixture(scope="module")
def coloured():
    rng = np.random.default_rng(0)
    recording, places, shape = coloured_recording(rng)
    quiet, _, _ = coloured_recording(rng, bursts=0)
    return recording, quiet, places, shape


@pytest.mark.parametrize("time", [400, 5000])
def test_noise_has_the_spectrum_of_the_recording(coloured, time):
    _, quiet, _, _ = coloured
    recording, _, _ = coloured_recording(np.random.default_rng(3), bursts=6)
    fitted = DataDrivenAugmentation.fit([recording], transients=0, gain=0, noise=1.0)
    noise = fitted(torch.zeros(60, time, 2), seeded()).numpy()
    _, made = welch(noise, nperseg=256, axis=1)
    _, wanted = welch(quiet.signal, nperseg=256, axis=0)
    ratio = made.mean(0)[2:-2] / wanted[2:-2]
    assert np.abs(np.log(ratio)).mean() < 0.2 and np.abs(np.log(ratio)).max() < 0.6
    half = DataDrivenAugmentation.fit([recording], transients=0, gain=0, noise=0.5)(torch.zeros(60, time, 2), seeded())
    assert np.allclose(half, noise / 2, atol=1e-5)


def test_transients_are_the_bursts_of_the_recording(coloured):
    recording, _, places, shape = coloured
    fitted = DataDrivenAugmentation.fit([recording], noise=0, gain=0)
    assert abs(len(fitted.snippets) - len(places)) <= 2
    assert fitted.snippets_per_sample == pytest.approx(len(places) / recording.n_samples, rel=0.06)
    assert fitted.gain_spread == pytest.approx(0.5, abs=0.2)
    # What is planted has the shape of the bursts, at every place.
    planted = fitted(torch.zeros(400, 2000, 2), seeded()).numpy()
    kernel = shape[:40] / np.linalg.norm(shape[:40])
    match = sum(np.apply_along_axis(np.correlate, 1, planted[..., c], kernel[:, c], "valid") for c in range(2))
    energy = np.sqrt(np.apply_along_axis(np.convolve, 1, (planted**2).sum(2), np.ones(100), "valid"))
    found = match.max(1) > 30
    assert (match.max(1)[found] > 0.7 * energy.max(1)[found]).mean() > 0.9
    assert found.mean() == pytest.approx(1 - np.exp(-2000 * fitted.snippets_per_sample), abs=0.1)
    assert match.argmax(1)[found].std() > 400
    # Whole snippets: each nonzero stretch is a snippet itself.
    one = planted[(planted != 0).any(2).sum(1) <= 100]
    one = one[(one != 0).any((1, 2)) & (one[:, :5] == 0).all((1, 2)) & (one[:, -5:] == 0).all((1, 2))]
    sums = np.abs(fitted.snippets).sum((1, 2))
    assert all(np.abs(np.abs(window).sum() / sums - 1).min() < 1e-4 for window in one) and len(one) > 50
    assert not (
        DataDrivenAugmentation.fit([recording], noise=0, gain=0, transients=0)(torch.zeros(9, 99, 2), seeded())
    ).any()


def test_known_events_and_unlabelled_spans_give_no_snippets(coloured):
    recording, quiet, places, _ = coloured
    types = np.zeros(20, dtype=int)
    half = Events(places[::2], np.zeros(20), types, ("a",), RATE)
    fitted = DataDrivenAugmentation.fit([recording], [half])
    assert not fitted.maybe_events and abs(len(fitted.snippets) - 20) <= 2
    end = int(places[20]) - 250
    span = Events(places[:20:2], np.zeros(10), types[:10], ("a",), RATE, labelled_spans=[[0, end]])
    fitted = DataDrivenAugmentation.fit([recording], [span])
    assert abs(len(fitted.snippets) - 10) <= 2 and fitted.snippets_per_sample == pytest.approx(10 / end, rel=0.21)
    none = DataDrivenAugmentation.fit([quiet], [Events.empty(("a",), RATE)], threshold=20)
    assert none.snippets.shape == (0, 100, 2) and none.gain_spread == 0
    assert none(torch.zeros(2, 300, 2), seeded()).shape == (2, 300, 2)


def test_a_fit_leaves_labels_alone_and_refuses_to_belie_them(coloured):
    recording = coloured[0]
    batch = bumps(channels=2)
    safe = DataDrivenAugmentation.fit([recording], transients=0)
    after = safe(batch, seeded())
    assert torch.equal(after["event_labels"], batch["event_labels"])
    assert torch.equal(after["event_timings"], batch["event_timings"])
    assert not torch.equal(after["input"], batch["input"])
    unsure = DataDrivenAugmentation.fit([recording])
    with pytest.raises(OptionError, match="may be events"):
        unsure(batch, seeded())
    unlabelled = {**batch, "event_labels": torch.full((64, 2), NAN)}
    assert unsure(unlabelled, seeded())["event_labels"].isnan().all()
    gains = DataDrivenAugmentation.fit([recording], transients=0, noise=0)(torch.ones(500, 4, 2), seeded())
    assert gains[:, 0, 0].log().std().item() == pytest.approx(unsure.gain_spread, rel=0.15)


def test_fit_refuses_what_does_not_fit(coloured, rng):
    fit, recording = DataDrivenAugmentation.fit, coloured[0]
    three, slow = (Recording(rng.normal(size=(9000, n)), rate) for n, rate in ((3, RATE), (2, 1000)))
    for recordings, options, error, words in (
        ([recording, three], {}, ShapeError, "same channels"),
        ([], {}, ShapeError, "same channels"),
        ([recording, slow], {}, OptionError, "one rate"),
        ([recording], {"events": []}, ShapeError, "one table for each"),
        ([recording], {"snippet_s": 50}, ShapeError, "longer than 4 snippets"),
        ([recording], {"noise": -1}, OptionError, "noise"),
    ):
        with pytest.raises(error, match=words):
            fit(recordings, **options)
    with pytest.raises(ShapeError, match="had 2 channels"):
        fit([recording])(torch.zeros(1, 99, 3), seeded())


# What holds for every kind


def labelled(channels=6, lengths=None):
    batch = bumps(32, 400, channels, lengths=lengths)
    batch["subject"] = ["anna"] * 32
    return batch


def test_the_list_of_kinds_is_complete():
    made = {type(kind) for kind in everything()}
    classes = {c for _, c in inspect.getmembers(augment, inspect.isclass) if issubclass(c, Augmentation)}
    assert classes - {Augmentation} == made


@pytest.mark.parametrize("kind", KINDS)
def test_draws_come_from_the_generator_only(kind):
    batch = labelled()
    saved = {name: value.clone() for name, value in batch.items() if torch.is_tensor(value)}
    state = torch.get_rng_state()
    one, same, other = kind(batch, seeded(1)), kind(batch, seeded(1)), kind(batch, seeded(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one["input"], same["input"]) and not torch.equal(one["input"], other["input"])
    assert torch.equal(one["event_timings"].nan_to_num(-1), same["event_timings"].nan_to_num(-1))
    assert all(torch.equal(batch[name], value) for name, value in saved.items()), "the batch was changed in place"
    assert one["subject"] == batch["subject"]
    assert one.keys() == batch.keys() and one["input"].dtype == torch.float32
    bare = kind(batch["input"], seeded(1))
    assert torch.equal(bare, one["input"])
    assert torch.equal(kind(batch["input"][3], seeded(1)), kind(batch["input"][3:4], seeded(1))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_get_draws_of_their_own(kind):
    x = torch.randn(1, 400, 6, generator=seeded(5)).repeat(16, 1, 1)
    after = kind(x, seeded())
    assert len({tuple(row.flatten().tolist()) for row in after}) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_padding_stays_zero_and_is_not_looked_at(kind):
    lengths = np.random.default_rng(2).integers(100, 401, 32)
    batch = labelled(lengths=lengths)
    behind = torch.arange(400) >= batch["lengths"][:, None]
    dirty = {**batch, "input": batch["input"].masked_fill(behind[..., None], NAN)}
    clean, after = kind(batch, seeded()), kind(dirty, seeded())
    assert torch.equal(clean["input"], after["input"])
    behind = torch.arange(400) >= after["lengths"][:, None]
    assert (after["input"][behind] == 0).all()
    assert (after["lengths"] <= batch["lengths"]).all() and after["input"].isfinite().all()


@pytest.mark.parametrize("kind", IDENTITIES, ids=lambda kind: type(kind).__name__)
def test_settings_of_nothing_change_nothing(kind):
    batch = bumps(lengths=np.random.default_rng(2).integers(100, 401, 64))
    after = kind(batch, seeded())
    assert torch.allclose(after["input"], batch["input"], atol=1e-6)
    for name in ("lengths", "event_labels", "event_timings"):
        assert torch.allclose(after[name], batch[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_double_precision_and_gradients_pass_through(kind):
    x = torch.randn(4, 400, 6, dtype=torch.float64, generator=seeded(3), requires_grad=True)
    after = kind(x, seeded())
    assert after.dtype == torch.float64
    after.sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()


# Composition


def test_compose_applies_in_order():
    batch, generator = labelled(), seeded(7)
    parts = [TimeShift(40), Crop(0.6), TimeWarp(0.3), WhiteNoise(0.1)]
    composed = Compose(parts)(batch, seeded(7))
    for part in parts:
        batch = part(batch, generator)
    assert torch.equal(composed["input"], batch["input"]) and torch.equal(composed["lengths"], batch["lengths"])
    assert torch.equal(composed["event_labels"], batch["event_labels"])
    x = torch.ones(2, 50, 3)
    noise_first = Compose([WhiteNoise(1.0), Gain(0.0)])(x, seeded())
    assert not noise_first.any() and Compose([Gain(0.0), WhiteNoise(1.0)])(x, seeded()).any()
    cropped = Compose([Crop(0.5), WhiteNoise(1.0)])(x, seeded())
    assert not cropped[:, 25:].any() and (cropped[:, :25] != 0).all(), "what was cropped away stays padding"


def test_compose_takes_each_sequence_with_its_probability():
    x = torch.ones(4000, 1, 2)
    after = Compose([Gain(2.0), Compose([Gain(3.0)], 0.5)], probabilities=(0.25, 0.8))(x, seeded())
    assert torch.equal(after[..., 0], after[..., 1])
    values, counts = after[:, 0, 0].unique(return_counts=True)
    assert values.tolist() == [1, 2, 3, 6]
    assert np.allclose(counts / 4000, [0.45, 0.15, 0.3, 0.1], atol=0.025)


def test_an_own_augmentation_takes_part():
    class Flip(Augmentation):
        def apply(self, batch, generator):
            return batch.with_signal(-batch.x)

    assert torch.equal(Compose([Flip(), Gain(2.0)])(torch.ones(1, 2, 1), seeded()), torch.full((1, 2, 1), -2.0))


# Refusals


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: WhiteNoise(-0.1), OptionError, "std"),
        (lambda: WhiteNoise((0.2, 0.1)), OptionError, "least, most"),
        (lambda: WhiteNoise(NAN), OptionError, "std"),
        (lambda: Gain("loud"), OptionError, "factor"),
        (lambda: ChannelDropout(1.2), OptionError, "probability must be a number in"),
        (lambda: MagnitudeWarp(2), OptionError, "strength"),
        (lambda: MagnitudeWarp(knots=1), OptionError, "knots"),
        (lambda: TimeWarp(1.0), OptionError, "stretch"),
        (lambda: TimeWarp(knots=2.5), OptionError, "whole number"),
        (lambda: TimeShift(0.5), OptionError, "whole number"),
        (lambda: TimeShift(fill="mirror"), OptionError, "edge, zero"),
        (lambda: Crop(0), OptionError, "keep"),
        (lambda: Crop((0.5, 1.1)), OptionError, "keep"),
        (lambda: Rotation(((0, 1),)), OptionError, "three channels"),
        (lambda: Rotation(((0, 1, 2), (2, 3, 4))), OptionError, "none of them twice"),
        (lambda: Rotation(((0, 1, -1),)), OptionError, "channel numbers"),
        (lambda: Rotation(one_per_location=("wrist",)), OptionError, "each of 2 triads"),
        (lambda: Compose([Gain]), OptionError, "without brackets"),
        (lambda: Compose([Gain()], 1.5), OptionError, "probabilities"),
        (lambda: Compose([Gain(), Gain()], [0.5]), OptionError, "one probability for each"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


X = torch.zeros(2, 50, 3)
LABELS = {"event_labels": torch.zeros(2, 4), "event_timings": torch.full((2, 4), NAN)}


@pytest.mark.parametrize(
    ("batch", "error", "words"),
    [
        (X.int(), DataError, "float32"),
        (X.numpy(), DataError, "float32"),
        ({"signal": X}, DataError, "NoneType"),
        (X[0, 0], ShapeError, "batch, time, channels"),
        ({"input": X[0]}, ShapeError, "batch, time, channels"),
        (X[:, :0], ShapeError, "empty axis"),
        (X + NAN, DataError, "NaN or infinity"),
        (torch.tensor([[[1.0], [float("-inf")]]]), DataError, "NaN or infinity"),
        ({"input": X, "lengths": torch.tensor([1, 51])}, ShapeError, "lengths"),
        ({"input": X, "lengths": torch.tensor([0, 50])}, ShapeError, "lengths"),
        ({"input": X, "lengths": torch.tensor([0.5, 1.0])}, ShapeError, "lengths"),
        ({"input": X, "event_labels": LABELS["event_labels"]}, ShapeError, "come together"),
        ({"input": X, **LABELS, "event_labels": torch.zeros(2, 4).int()}, ShapeError, "event_labels must be a float"),
        ({"input": X, **LABELS, "event_timings": torch.zeros(2, 3)}, ShapeError, "event_timings must have shape"),
        ({"input": X[:1], **LABELS}, ShapeError, "event_labels must have shape"),
    ],
)
def test_batches_that_cannot_be_used_are_refused(batch, error, words):
    with pytest.raises(error, match=words):
        Gain()(batch, seeded())


def test_settings_that_do_not_fit_the_batch_are_refused():
    with pytest.raises(OptionError, match="not milliseconds"):
        TimeShift(50)(X, seeded())
    with pytest.raises(OptionError, match="sequence of 10 samples"):
        TimeShift(10)({"input": X, "lengths": torch.tensor([10, 50])}, seeded())
    with pytest.raises(ShapeError, match="outside of the input's 3"):
        Rotation()(X, seeded())
    with pytest.raises(OptionError, match="torch.Generator"):
        Gain()(X, np.random.default_rng(0))


# The original's views


@pytest.mark.parametrize("name", ["add_noise", "scale", "temporal_crop", "temporal_shift", "random_augment"])
def test_the_originals_views_take_tensors_and_arrays(name):
    view = getattr(TemporalAugmentation, name)
    x = torch.randn(200, 6, generator=seeded(1))
    state = torch.get_rng_state()
    one = view(x, generator=seeded(2))
    assert torch.is_tensor(one) and one.shape == x.shape
    array = view(x.numpy(), generator=seeded(2))
    assert isinstance(array, np.ndarray) and array.dtype == np.float32 and np.array_equal(array, one.numpy())
    assert view(x[None].repeat(3, 1, 1)).shape == (3, 200, 6)
    drawn = {tuple(view(x).flatten().tolist()) for _ in range(12)}
    assert len(drawn) > 6, "without a generator every call draws anew"
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ShapeError, match="must have shape"):
        view(torch.zeros(5))


def test_the_originals_views_do_what_they_say():
    x = torch.arange(1.0, 201)[:, None].repeat(1, 2)
    assert (TemporalAugmentation.add_noise(x, generator=seeded()) - x).std().item() == pytest.approx(0.01, rel=0.2)
    factors = torch.stack([TemporalAugmentation.scale(x, generator=seeded(k)) / x for k in range(60)])
    assert torch.allclose(factors, factors[:, :1, :1].expand_as(factors))
    assert 0.8 <= factors.min() < 0.85 and 1.15 < factors.max() <= 1.2
    for seed in range(20):
        crop = TemporalAugmentation.temporal_crop(x, generator=seeded(seed))
        assert (crop[:180].diff(dim=0) == 1).all() and not crop[180:].any()
        shifted = TemporalAugmentation.temporal_shift(x, generator=seeded(seed))
        shift = 50 - int((shifted[:, 0] == 51).nonzero())
        assert -10 <= shift <= 10 and (shifted == 0).sum() == 2 * abs(shift)


def test_a_random_view_is_one_or_two_of_four_changes():
    x = torch.arange(1.0, 201)[:, None].repeat(1, 3)
    counts = np.zeros(5)
    for seed in range(300):
        view = TemporalAugmentation.random_augment(x, seeded(seed))
        kept = view[50:150] / x[50:150]
        noisy = (view[60] != view[60, 0]).any().item()
        cropped = (view[190:] == 0).all().item()
        shifted = not cropped and ((view[:5] == 0).any() or (view[-5:] == 0).any()).item()
        scaled = abs(kept.diff(dim=0).mean().item()) < 1e-4 and abs(kept.mean().item() - 1) > 2e-3
        counts += [noisy, cropped, shifted, scaled, 0]
        assert noisy + cropped + shifted <= 2
    # Each of four is chosen with probability 3/8 (1.5 of them on average).
    assert counts[:2] / 300 == pytest.approx([0.375, 0.375], abs=0.09)


def test_a_saturated_channel_stays_at_its_limit():
    x = torch.randn(4, 200, 3, generator=seeded())
    clipped = Saturation((0.2, 0.6))(x, seeded())
    most = clipped.abs().amax(1, keepdim=True)
    assert torch.equal(clipped, x.clamp(-most, most)) and (most < x.abs().amax(1, keepdim=True)).all()
    assert ((most / x.abs().amax(1, keepdim=True)) >= 0.2 - 1e-6).all()


@pytest.mark.parametrize("step", [2, 5])
def test_slower_is_what_a_sensor_of_a_lower_rate_shows(step):
    """Means over whole steps stand in their middles, with lines between them."""
    x = torch.randn(3, 60, 2, generator=seeded())
    slow = Slower(float(step), 1.0)(x, seeded()).numpy()
    means = x.numpy().reshape(3, 60 // step, step, 2).mean(axis=2)
    middles = (np.arange(60 // step) + 0.5) * step - 0.5
    inside = slice(step, 60 - step)
    for row in range(3):
        for channel in range(2):
            line = np.interp(np.arange(60), middles, means[row, :, channel])
            np.testing.assert_allclose(slow[row, inside, channel], line[inside], atol=1e-4)


def test_slower_keeps_what_is_slow_and_loses_what_is_fast():
    t = torch.arange(500) / 50.0
    for hz, least, most in ((0.5, 0.9, 1.01), (20.0, 0.0, 0.3)):
        wave = torch.sin(2 * torch.pi * hz * t)[None, :, None]
        share = float(Slower(5.0, 1.0)(wave, seeded()).std() / wave.std())
        assert least < share < most
