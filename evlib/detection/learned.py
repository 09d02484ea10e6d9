"""The groundwork of every method: whitened signals, and the templates that labels and signal without labels give.

Noise is estimated together with the templates, because strong events are part of both; then, where asked, what recurs
in the signal joins the labels (discovery), and the bank trains itself on what it detects. Several detectors can stand
on one groundwork.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..signals.clock import distance_to_nearest, duration_to_samples, split_time
from ..signals.errors import OptionError, ShapeError, UnitError
from ..signals.events import Events
from ..templates.bank import TemplateBank
from ..templates.discover import Discovery, discover_in, find_kinds, name_kinds, naming_reach_s
from ..templates.hybrid import HybridRecordings, one_at_a_time
from ..templates.learn import PRIOR_LOGIT, choose_window, learn_templates, self_train
from ..templates.overlaps import can_separate
from ..templates.pursue import explain
from ..templates.whiten import Whitener, estimate_whitener, refine_whitener
from .detector import Detector, detect
from .prepare import TrainingData

# Events in the noise estimate: subtract them and estimate again, until the spectrum moves by less than 5 %.
WHITENING_ROUNDS, WHITE_ENOUGH, RESIDUAL_S = 4, 0.05, 300.0
# Longer templates are not events but stretches of signal.
MAX_TEMPLATE_S = 1.0
# A discovered event this close to a labelled one of its type is that event.
SAME_EVENT_S = 0.02


@dataclass(eq=False)
class LearnedTemplates:
    """Checked data, whitener, whitened signals (n, C), bank; ``jitter``: samples by which labels scatter."""

    data: TrainingData
    whitener: Whitener
    signals: list
    bank: TemplateBank
    jitter: float
    metadata: dict
    # What was found in development data, by what it was found with (`evlib.detection.development`).
    looks: dict = field(default_factory=dict)

    @cached_property
    def remixer(self):
        """Re-mixes of the recordings."""
        apart = self.data.apart_samples
        return HybridRecordings(
            self.bank, self.signals, self.data.train, PRIOR_LOGIT, self.data.rate, apart_samples=apart
        )

    @cached_property
    def alone(self):
        """Held-out events set one at a time (`evlib.templates.hybrid.one_at_a_time`), of recordings in which events
        mostly overlap."""
        rng, out = np.random.default_rng(23), []
        for signal, train, held in zip(self.signals, self.data.train, self.data.development, strict=True):
            known = [table[table.is_labelled(table.sample)] for table in (train, held)]
            time, type = (np.concatenate([getattr(e, name) for e in known]) for name in ("time_samples", "type"))
            if len(known[1]) and can_separate([signal], [time], [type], self.bank.length):
                out.append(one_at_a_time(self.bank, signal, known[1], known[0], rng))
        return out


def lay_groundwork(
    data,
    *,
    discovery=None,
    self_training=False,
    template_s=None,
    shrink=True,
    whitener=None,
    seed=0,
    advance=lambda stage: None,
) -> LearnedTemplates:
    """Learn the noise and the templates.

    Parameters
    ----------
    data : TrainingData
    discovery : "discovery", or a Discovery: what recurs is an event too, under the name that the labels give it; or a
        Detector, whose detections are events of the kinds that have no label
    self_training : train the bank further on what it detects where nothing is labelled
    template_s : (before, after) seconds that templates reach around the onset; default: found from the data
    shrink : Wiener shrinkage of averaged snippets
    whitener : what a pretrained encoder has heard through; default: made for these recordings
    advance : called with the name of each stage
    """
    rate, find_window = data.rate, template_s is None
    if isinstance(discovery, Discovery):
        _check_discovery(discovery, data)
    elif isinstance(discovery, Detector):
        _check_detector(discovery, data)
    advance("whiten and learn templates")
    rounds = 1
    if whitener is None:
        rounds, whitener = WHITENING_ROUNDS, estimate_whitener(data.recordings)
    for attempt in range(rounds):
        signals = [whitener(recording) for recording in data.recordings]
        window = choose_window(signals, data.train, rate) if find_window else _given_window(template_s, rate)
        bank, jitter, _ = learn_templates(signals, data.train, *window, rate, shrink=shrink)
        if attempt == rounds - 1:
            break
        refined = refine_whitener(whitener, _residuals(bank, signals, rate))
        if refined.change < WHITE_ENOUGH:
            break
        whitener = refined
    if discovery is not None:
        advance("discover recurring kinds")
        seen = _with_discovered(discovery, data, signals, None if find_window else window[1] / rate, seed)
        window = choose_window(signals, seen, rate) if find_window else window
        bank, jitter, _ = learn_templates(signals, seen, *window, rate, shrink=shrink)
    self_training = bool(self_training and data.has_unlabelled)
    if self_training:
        bank = self_train(
            bank, signals, _known(data), shrink=shrink, widen=find_window, progress=lambda: advance("self-train")
        )
    metadata = {
        "self_train": self_training,
        "shrink": bool(shrink),
        "n_labelled": {name: int(n) for name, n in zip(data.names, sum(t.counts() for t in data.train), strict=True)},
        "duration_s": float(sum(recording.duration_s for recording in data.recordings)),
        "label_jitter_s": float(jitter / rate),
        "data_hash": data.fingerprint(),
    }
    return LearnedTemplates(data, whitener, signals, bank, jitter, metadata)


def is_discovery(pretrain):
    """Whether an option ``pretrain`` means kinds of events, not an encoder."""
    return isinstance(pretrain, Discovery | Detector) or (isinstance(pretrain, str) and pretrain == "discovery")


def _check_discovery(discovery, data):
    rate, n_channels = discovery.whitener.sampling_rate_hz, len(discovery.whitener.taps)
    if rate != data.rate:
        raise UnitError(
            f"kinds were discovered at {rate:g} Hz, the recordings have {data.rate:g} Hz; discover in these recordings"
        )
    if n_channels != data.recordings[0].n_channels:
        raise ShapeError(
            f"kinds were discovered in {n_channels} channels, the recordings have {data.recordings[0].n_channels}; "
            "discover in these recordings"
        )


def _check_detector(detector, data):
    for recording in data.recordings:
        detector.check(recording)
    if not set(detector.names) & set(data.names):
        raise OptionError(
            f"the detector to start from knows {', '.join(detector.names)}, the labels name {', '.join(data.names)}: "
            "no name in common (another detector?)"
        )


def _known(data):
    """Labels of training with held-out blocks marked too: their labels are not known here, and their signal is not
    used."""
    return [
        replace(train, labelled_spans=np.concatenate([train.labelled_spans, development.labelled_spans]))
        for train, development in zip(data.train, data.development, strict=True)
    ]


def _with_discovered(pretrain, data, signals, event_s, seed):
    """The training labels and, where nothing is labelled, what recurs there under the names that labels give it.

    What a detector finds has names: it stands for kinds without labels, of all others the labels know better.
    """
    shortest = min(data.refractory.values())
    if isinstance(pretrain, Detector):
        tables = [detect(pretrain, recording) for recording in data.recordings]
        known = dict(zip(data.names, sum(table.counts() for table in data.train), strict=True))
        wanted = [name in pretrain.bank.known_names and not known[name] for name in data.names]
        kind = np.array([pretrain.names.index(n) if w else -1 for n, w in zip(data.names, wanted, strict=True)])
        offset = np.zeros(len(kind))
    else:
        if isinstance(pretrain, Discovery):
            bank, whitener = pretrain.bank, pretrain.whitener
            tables = [find_kinds(bank, whitener(recording), data.rate, shortest) for recording in data.recordings]
        else:
            options = {} if event_s is None else {"event_s": event_s}
            bank, tables = discover_in(signals, data.rate, None, shortest, seed=seed, **options)
        kind, offset = name_kinds(data.train, tables, naming_reach_s(bank, data.rate))
    out = []
    for found, train, held in zip(tables, data.train, data.development, strict=True):
        for e in np.flatnonzero(kind >= 0):
            time = found.time_samples[found.type == kind[e]] + offset[e]
            sample, _ = split_time(time)
            known = train.is_labelled(sample) | held.is_labelled(sample)
            known |= distance_to_nearest(time, train.time_samples[train.type == e]) < SAME_EVENT_S * data.rate
            train = _add(train, time[~known], e)
        out.append(train)
    return out


def _add(table, time, type):
    """A label table with more events of one type."""
    time = np.r_[table.time_samples, time]
    types = np.r_[table.type, np.full(len(time) - len(table), type)]
    return Events(*split_time(time), types, table.names, table.sampling_rate_hz, labelled_spans=table.labelled_spans)


def _given_window(template_s, rate):
    try:
        before_s, after_s = (float(value) for value in template_s)
    except (TypeError, ValueError):
        raise OptionError(f"template_s is (seconds before, seconds after the onset), got {template_s!r}") from None
    if not (0 <= before_s <= MAX_TEMPLATE_S and 4 / rate <= after_s <= MAX_TEMPLATE_S):
        raise OptionError(
            "template_s is (seconds before, seconds after the onset), at least 4 samples and at most "
            f"{MAX_TEMPLATE_S:g} s "
            f"each; got {template_s!r}"
        )
    before = duration_to_samples(before_s, rate)
    return before, before + duration_to_samples(after_s, rate) + 1


def _residuals(bank, signals, rate):
    """What is left of the signals without their events, from the beginning of each (a few minutes tell the
    spectrum)."""
    longest = int(RESIDUAL_S * rate / len(signals)) + 4 * bank.length
    return [explain(bank, signal[:longest])[1] for signal in signals]
