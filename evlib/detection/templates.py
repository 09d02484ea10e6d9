"""What every method starts from: whitened signals, and the templates that labels and unlabelled signal give.

Noise is estimated together with the templates, because strong events are part of both. Where asked, kinds that recur in
the signal (discovery) are added to the labels, and the bank trains itself on what it detects. Several detectors can be
made from the same learned templates.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..signals.clock import distance_to_nearest, duration_to_samples, split_time
from ..signals.errors import OptionError, warn_if_long
from ..signals.events import Events
from ..signals.recording import numbered, require_rate_of
from ..signals.streams import stream
from ..templates.bank import TemplateBank
from ..templates.discover import Discovery, discover_in, find_kinds
from ..templates.hybrid import HybridRecordings, one_at_a_time
from ..templates.learn import choose_window, learn_templates, self_train, typical
from ..templates.overlaps import can_separate
from ..templates.pursue import explain
from ..templates.whiten import Whitener, estimate_whitener, refine_whitener, tell_apart
from .detector import Detector, detect
from .noise import different_noise, noise_problems, usual_noise
from .prepare import TrainingData, add_events

# Events are subtracted and the noise is estimated again, at most this often, until its spectrum changes by less than
# 5 %; this many seconds of signal are enough for a spectrum.
WHITENING_ROUNDS, SMALL_CHANGE, SPECTRUM_S = 4, 0.05, 300.0
# Seconds before and after the onset; of longer templates a warning says that they may be milliseconds.
LONG_TEMPLATE_S = 1.0
# Seconds: a discovered event this close to a labelled one of its type is that event.
SAME_EVENT_S = 0.02


@dataclass(frozen=True, eq=False)
class LearnedTemplates:
    """Checked data, whitener, whitened signals (n, C) and template bank.

    ``jitter`` : standard deviation of labels around events, in samples; ``cache`` : candidates in development data, by
    what finds them (`evlib.detection.calibrate`).
    """

    data: TrainingData
    whitener: Whitener
    signals: list
    bank: TemplateBank
    jitter: float
    metadata: dict
    cache: dict = field(default_factory=dict)

    @cached_property
    def hybrids(self) -> HybridRecordings:
        """Hybrid recordings made from these recordings and templates."""
        return HybridRecordings(self.bank, self.signals, self.data.train, self.data.apart_samples)

    @cached_property
    def isolated(self) -> list:
        """Held-out events placed one at a time (`evlib.templates.hybrid.one_at_a_time`), from recordings in which most
        events overlap: pairs of whitened signal and Events."""
        rng, out = stream("isolated events"), []
        for signal, *tables in zip(self.signals, self.data.train, self.data.development, strict=True):
            train, held = (table[table.is_labelled(table.sample)] for table in tables)
            every = Events.concatenate([train, held])
            if len(held) and can_separate([signal], [every.time_samples], [every.type], self.bank.length):
                out.append(one_at_a_time(self.bank, signal, held, train, rng))
        return out


def whiten_and_learn(
    data: TrainingData,
    *,
    discovery=None,
    self_training: bool = False,
    template_s=None,
    shrink: bool = True,
    whitener: Whitener | None = None,
    advance: Callable = lambda stage: None,
) -> LearnedTemplates:
    """Learn the noise and the templates.

    Parameters
    ----------
    data : TrainingData, from `evlib.detection.prepare.prepare`
    discovery : "discovery", or a Discovery: what recurs is an event too, under the name that the labels give it; or a
        Detector, whose detections are events of the types that have no label
    self_training : train the bank further on what it detects where nothing is labelled
    template_s : (before, after) seconds that templates reach around the onset; default: found from the data
    shrink : Wiener shrinkage of averaged snippets
    whitener : that of a pretrained encoder; default: estimated from these recordings
    advance : called with the name of each stage
    """
    rate, find_window = data.rate, template_s is None
    shortest_s = min(recording.duration_s for recording in data.recordings)
    given = None if find_window else _given_window(template_s, rate, shortest_s)
    _check_discovery(discovery, data)
    advance("whiten and learn templates")
    rounds = 1
    if whitener is None:
        rounds, whitener = WHITENING_ROUNDS, estimate_whitener(data.recordings)
    for attempt in range(rounds):
        whitener = tell_apart(whitener, data.recordings, data.train)
        signals = [whitener(recording) for recording in data.recordings]
        if attempt == 0:
            data = data.outside(signals)
        labels = typical(signals, data.train)
        window = given or choose_window(signals, labels)
        bank, jitter = learn_templates(signals, labels, *window, shrink=shrink)
        if attempt == rounds - 1:
            break
        longest = int(SPECTRUM_S * rate / len(signals)) + 4 * bank.length
        refined = refine_whitener(whitener, [explain(bank, signal[:longest])[1] for signal in signals])
        if refined.change < SMALL_CHANGE:
            break
        whitener = refined
    if discovery is not None:
        advance("discover recurring kinds")
        found = _found_before(discovery, data, whitener, signals, None if find_window else window[1] / rate)
        labels = typical(signals, _with_found(data, *found))
        window = choose_window(signals, labels) if find_window else window
        bank, jitter = learn_templates(signals, labels, *window, shrink=shrink)
    self_training = bool(self_training and data.has_unlabelled)
    if self_training:
        # Held-out blocks are no unlabelled signal, and their labels are not known here.
        known = [
            replace(train, labelled_spans=np.concatenate([train.labelled_spans, held.labelled_spans]))
            for train, held in zip(data.train, data.development, strict=True)
        ]
        stage = {"progress": lambda: advance("self-train")}
        bank = self_train(bank, signals, known, shrink=shrink, widen=find_window, **stage)
    moments, channels = [whitener.noise_levels(recording) for recording in data.recordings], data.recordings[0].channels
    noise = usual_noise(moments)
    for text in different_noise(noise, channels):
        logging.getLogger(__name__).warning(text)
    for k, own in enumerate(moments):
        for text in noise_problems(own, channels, whitener.limits[0]):
            logging.getLogger(__name__).warning("recording %d, %s", k, text)
    metadata = {
        "noise": noise,
        "self_train": self_training,
        "shrink": bool(shrink),
        "n_labelled": {name: int(n) for name, n in zip(data.names, sum(t.counts() for t in data.train), strict=True)},
        "duration_s": float(sum(recording.duration_s for recording in data.recordings)),
        "label_jitter_s": float(jitter / rate),
        "data_hash": data.fingerprint(),
    }
    return LearnedTemplates(data, whitener, signals, bank, jitter, metadata)


def is_discovery(pretrain) -> bool:
    """Whether an option ``pretrain`` means kinds of events, not an encoder."""
    return isinstance(pretrain, Discovery | Detector) or (isinstance(pretrain, str) and pretrain == "discovery")


def _check_discovery(discovery, data):
    """Refuse a Discovery or a Detector of other recordings."""
    if isinstance(discovery, Detector):
        for recording in data.recordings:
            discovery.accept(recording)
        if not set(discovery.names) & set(data.names):
            known, wanted = ", ".join(discovery.names), ", ".join(data.names)
            raise OptionError(
                f"the detector to start from knows {known}, the labels name {wanted}: no name in common (another "
                "detector?)"
            )
    elif isinstance(discovery, Discovery):
        whitener = discovery.whitener
        recording = data.recordings[0]
        require_rate_of(recording, whitener.sampling_rate_hz, "the discovery", "discover in these recordings")
        recording.like(numbered(len(whitener.taps)), None, "the discovery", "position")


def _found_before(discovery, data, whitener, signals, event_s):
    """Events that were found without labels: a table for each recording, the kind of each of the labels' types (E,), -1
    for none, and how many samples the labels lie behind the kind's times (E,).

    What a detector finds has names: it is used for types without labels, of all others the labels know better.
    """
    if isinstance(discovery, Detector):
        tables = [detect(discovery, recording) for recording in data.recordings]
        n_labels = sum(table.counts() for table in data.train)
        names, known = list(discovery.names), discovery.bank.known_names
        kind = [
            names.index(name) if name in known and not n else -1 for name, n in zip(data.names, n_labels, strict=True)
        ]
        return tables, np.array(kind), np.zeros(len(kind))
    shortest = min(data.refractory.values())
    if isinstance(discovery, Discovery):
        tables = [find_kinds(discovery.bank, discovery.whitener(r), data.rate, shortest) for r in data.recordings]
        found = replace(discovery, events=tables)
    else:
        options = {} if event_s is None else {"event_s": event_s}
        found = Discovery(*discover_in(signals, data.rate, None, shortest, seed=data.seed, **options), whitener)
    return found.events, *found.name(data.train)


def _with_found(data, tables, kind, offset):
    """The training labels and, where nothing is labelled, what was found there."""
    out = []
    for found, train, held in zip(tables, data.train, data.development, strict=True):
        for e in np.flatnonzero(kind >= 0):
            time = found.time_samples[found.type == kind[e]] + offset[e]
            sample, _ = split_time(time)
            known = train.is_labelled(sample) | held.is_labelled(sample)
            known |= distance_to_nearest(time, train.time_samples[train.type == e]) < SAME_EVENT_S * data.rate
            train = add_events(train, time[~known], e)
        out.append(train)
    return out


def _given_window(template_s, rate, most_s) -> tuple[int, int]:
    """(samples before the onset, length) of templates."""
    wanted = "template_s is (seconds before, seconds after the onset)"
    try:
        before_s, after_s = (float(value) for value in template_s)
    except (TypeError, ValueError):
        raise OptionError(f"{wanted}, got {template_s!r}") from None
    if not (0 <= before_s <= most_s and 4 / rate <= after_s <= most_s):
        raise OptionError(f"{wanted}: at least 4 samples, at most the {most_s:g} s recorded; got {template_s!r}")
    warn_if_long(LONG_TEMPLATE_S, template_s=max(before_s, after_s))
    before = duration_to_samples(before_s, rate)
    return before, before + duration_to_samples(after_s, rate) + 1
