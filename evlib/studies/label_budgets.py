"""The label-budget study: how good each method is with 1, 2, 5, ... labels per type.

A unit of the study is one simulated bell frame at one signal-to-noise ratio, or one split of recordings: some of which
a few events are labelled, and others to judge. All methods of a unit see the same labels. What is done is kept on disk,
a file per unit, budget and method; a study that was cut off goes on there.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..detection.detector import detect
from ..detection.fit import fit_from
from ..detection.oracle import oracle_detector
from ..detection.prepare import prepare
from ..detection.pretrain import PRETEXTS, pretrain
from ..detection.templates import whiten_and_learn
from ..scoring.comparison import compare
from ..scoring.statistics import bootstrap_interval, timing_statistics
from ..signals.errors import OptionError
from ..signals.files import replace_file
from ..signals.synthetic import make_recording, make_templates
from ..templates.discover import discover

# Budget that stands for all labels.
ALL = 0
# Signal-to-noise ratio of recordings that are not simulated: nobody knows it.
UNKNOWN_SNR = 0.0
# Methods in the order of tables: templates alone, networks on top of them, networks that read the signal itself and
# know nothing but labels, and such ones that the self-trained filter teaches where nothing is labelled.
FILTERS = ("averaged snippets", "matched filter", "self-trained filter")
NETWORKS = ("network", "discovery + network")
READERS = ("frames", *(f"frames, {name}" for name in PRETEXTS), *(f"probe, {name}" for name in PRETEXTS))
TAUGHT = ("taught frames", *(f"taught frames, {name}" for name in PRETEXTS))
METHODS = FILTERS + NETWORKS + READERS + TAUGHT
ORACLE = "oracle"
# What each method stands on; the others know nothing but labels.
_GROUND = {"averaged snippets": "averaged", "discovery + network": "discovered"}
_GROUND |= dict.fromkeys(("self-trained filter", "network", *TAUGHT), "self-trained")


@dataclass(frozen=True)
class StudyConfig:
    """Seconds to learn from and to judge, kinds, how they follow one another and how much they vary, how long networks
    train."""

    train_s: float = 1200.0
    test_s: float = 300.0
    n_types: int = 16
    schedule: str = "rounds"
    variation: float = 0.0
    max_epochs: int = 12
    frame_epochs: int = 28
    pretext_windows: int = 2048
    pretext_epochs: int = 20


@dataclass(frozen=True, eq=False)
class Split:
    """Recordings to learn from and to judge, two lists of (Recording, Events), and what their kinds of events ask for.

    ``refractory_s`` as in `evlib.fit`; ``tolerance_s``: how far a hit may lie from a label; ``oracle``: a Detector that
    knows the templates, where there is one.
    """

    train: list
    test: list
    refractory_s: float | dict = 2.0
    tolerance_s: float = 0.005
    oracle: object = None


def run_study(folder, seeds, snrs, budgets, methods=METHODS, size=None, n_jobs=1, progress=True):
    """Fit every method at every budget, on one bell frame per seed and ratio.

    Parameters
    ----------
    folder : where results are kept; what lies there from the same settings is not done again
    seeds : bell frames; the same seed also draws the labels
    snrs : signal-to-noise ratios
    budgets : labels per type; 0 stands for all
    methods : names out of ``METHODS``
    size : StudyConfig
    n_jobs : processes at once
    progress : show a progress bar

    Returns
    -------
    pandas table : snr, seed, labels_per_type (0: all), method, f1, precision, recall, rmse_ms, seconds; the oracle,
        which
    needs no labels, has a row at each budget

    Raises
    ------
    OptionError : an unknown method, no seeds, ratios or budgets, or a budget below 0
    """
    size = size or StudyConfig()
    for name, values in (("seeds", seeds), ("snrs", snrs)):
        if len(values) == 0 or min(values) < 0:
            raise OptionError(f"{name} must be numbers of at least 0, and not empty; got {values!r}")
    units = [
        (snr, seed, repr((snr, seed, sorted(asdict(size).items()))), partial(_simulate, seed, snr, size))
        for seed in seeds
        for snr in snrs
    ]
    return _run(folder, units, budgets, methods, size, n_jobs, progress, bounds=(ORACLE,))


def run_on_splits(folder, splits, budgets, methods=READERS, size=None, n_jobs=1, progress=True):
    """Fit every method at every budget, on recordings: arguments and table as in :func:`run_study`.

    ``splits`` : list of Split, one for each draw of labels; of ``size`` only how networks train counts. In the table
    ``seed`` is the number of the split, and ``snr`` is 0.
    """
    size = size or StudyConfig()
    training = [getattr(size, name) for name in ("max_epochs", "frame_epochs", "pretext_windows", "pretext_epochs")]
    units = []
    for seed, split in enumerate(splits):
        prints = [prepare(pairs, (), None, 0, split.refractory_s).fingerprint() for pairs in (split.train, split.test)]
        labels = [(e.names, e.time_samples.tolist(), e.type.tolist()) for _, e in (*split.train, *split.test)]
        key = repr((UNKNOWN_SNR, seed, prints, labels, split.refractory_s, split.tolerance_s, training))
        units.append((UNKNOWN_SNR, seed, key, lambda split=split: split))
    return _run(folder, units, budgets, methods, size, n_jobs, progress)


def _run(folder, units, budgets, methods, size, n_jobs, progress, bounds=()):
    """The table of all units, each (snr, seed, key, a function that makes its Split); ``bounds``: methods that are not
    fitted."""
    import joblib
    import pandas as pd
    from tqdm.auto import tqdm

    if unknown := set(methods) - set(METHODS):
        raise OptionError(f"methods must be among {', '.join(METHODS)}; got {', '.join(sorted(unknown))}")
    if len(budgets) == 0 or min(budgets) < 0:
        raise OptionError(f"budgets must be numbers of at least 0, and not empty; got {budgets!r}")
    jobs = (joblib.delayed(_run_unit)(Path(folder), *unit, tuple(budgets), (*methods, *bounds), size) for unit in units)
    done = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs)
    rows = [
        row for unit in tqdm(done, total=len(units), desc="study", unit="unit", disable=not progress) for row in unit
    ]
    table = pd.DataFrame(rows)
    order = {name: k for k, name in enumerate((*METHODS, ORACLE))}
    rank = {budget: k for k, budget in enumerate(sorted(budgets, key=lambda n: n or np.inf))}
    keys = [table["snr"].rsub(0), table["labels_per_type"].map(rank), table["method"].map(order), table["seed"]]
    return table.iloc[np.lexsort(keys[::-1])].reset_index(drop=True)


def _run_unit(folder, snr, seed, key, make, budgets, methods, size):
    """Rows of one unit, all budgets."""
    key = hashlib.sha256(key.encode()).hexdigest()[:12]
    files = {(n, m): folder / f"{key}_{n}_{_slug(m)}.json" for n in budgets for m in methods}
    missing = {n: [m for m in methods if not files[n, m].is_file()] for n in budgets}
    if any(missing.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for budget, row in _fresh_rows(make(), seed, missing, size):
            with replace_file(files[budget, row["method"]]) as temporary:
                temporary.write_text(json.dumps({"snr": snr, "seed": seed, "labels_per_type": budget} | row))
    return [json.loads(file.read_text()) for file in files.values()]


def _slug(method):
    return "".join(c for c in method.replace(" ", "_") if c.isalnum() or c == "_")


def _simulate(seed, snr, size):
    templates = make_templates(size.n_types, seed=seed)
    options = {"snr": snr, "schedule": size.schedule, "variation": size.variation}
    train = make_recording(templates, size.train_s, seed=1000 + seed, **options)
    test = make_recording(templates, size.test_s, seed=2000 + seed, **options)
    return Split([(train.recording, train.events)], [(test.recording, test.events)], oracle=oracle_detector(train))


def _fresh_rows(split, seed, missing, size):
    """(budget, row) of everything that is missing, as soon as it is known."""
    if any(ORACLE in methods for methods in missing.values()):
        bound = _judge(split.oracle, split, 0.0) | {"method": ORACLE}
        yield from ((budget, bound) for budget, methods in missing.items() if ORACLE in methods)
    wanted = {method for methods in missing.values() for method in methods}
    recordings = [recording for recording, _ in split.train]
    found = discover(recordings, seed=seed, progress=False) if "discovery + network" in wanted else None
    training = {"n_windows": size.pretext_windows, "max_epochs": size.pretext_epochs, "progress": False}
    encoders = {
        pretext: pretrain(recordings, pretext, seed=seed, **training)
        for pretext in PRETEXTS
        if any(method.endswith(f", {pretext}") for method in wanted)
    }
    for budget, methods in missing.items():
        data = prepare(split.train, (), budget or None, seed, split.refractory_s)
        grounds = {}
        for method in methods:
            if method == ORACLE:
                continue
            start = time.perf_counter()
            name, options = _recipe(method, size, encoders)
            ground = _GROUND.get(method, "labelled")
            if ground not in grounds:
                grounds[ground] = whiten_and_learn(
                    data,
                    discovery=found if ground == "discovered" else None,
                    self_training=ground in ("self-trained", "discovered"),
                    shrink=ground != "averaged",
                    seed=seed,
                )
            detector = fit_from(grounds[ground], name, seed=seed, progress=False, **options)
            yield budget, _judge(detector, split, time.perf_counter() - start) | {"method": method}


def _recipe(method, size, encoders):
    """Method and options of :func:`fit_from`."""
    if method in FILTERS:
        return "matched_filter", {}
    if method in NETWORKS:
        return "lstm", {"max_epochs": size.max_epochs}
    kind, _, pretext = method.partition(", ")
    return "frames", {
        "max_epochs": size.frame_epochs,
        "pretrain": encoders.get(pretext),
        "freeze_encoder": kind == "probe",
    }


def _judge(detector, split, seconds):
    """F1, precision, recall and timing over all recordings to judge; None where nothing was found."""
    reports = [compare(events, detect(detector, recording), split.tolerance_s) for recording, events in split.test]
    tp, estimated, reference = (sum(getattr(r, name) for r in reports) for name in ("tp", "n_estimated", "n_reference"))
    errors = np.concatenate([report.dt_s for report in reports])
    return {
        "f1": 2 * tp / (estimated + reference) if estimated + reference else None,
        "precision": tp / estimated if estimated else None,
        "recall": tp / reference if reference else None,
        "rmse_ms": timing_statistics(errors)["rmse_ms"] if len(errors) else None,
        "seconds": float(seconds),
    }


def summarise(table, value="f1"):
    """Mean over bell frames with its 95 % bootstrap interval, for each ratio, budget and method.

    Returns a pandas table with the columns snr, labels_per_type, method, mean, low, high, n; a missing value (no event
    found, so no timing error either) is left out and not counted in n.
    """
    import pandas as pd

    rows = []
    for (snr, budget, method), part in table.groupby(["snr", "labels_per_type", "method"], sort=False):
        values = part[value].dropna().to_numpy(float)
        low, high = bootstrap_interval(values) if len(values) else (np.nan, np.nan)
        rows.append((snr, budget, method, values.mean() if len(values) else np.nan, low, high, len(values)))
    return pd.DataFrame(rows, columns=["snr", "labels_per_type", "method", "mean", "low", "high", "n"])


def paired_differences(table, pairs, value="f1"):
    """Mean difference of two methods on the same bell frames and labels, with its 95 % bootstrap interval.

    ``pairs``: (method, baseline) names. The describe_difference is "better" or "worse" where the interval leaves zero
    out and there are at least three bell frames, else "open".
    """
    import pandas as pd

    wide = table.pivot_table(index=["snr", "labels_per_type", "seed"], columns="method", values=value, sort=False)
    rows = []
    for method, baseline in pairs:
        difference = (wide[method] - wide[baseline]).dropna()
        for (snr, budget), part in difference.groupby(level=[0, 1], sort=False):
            low, high = bootstrap_interval(part.to_numpy())
            sure = len(part) >= 3 and (low > 0 or high < 0)
            describe_difference = ("better" if low > 0 else "worse") if sure else "open"
            rows.append((method, baseline, snr, budget, part.mean(), low, high, describe_difference))
    return pd.DataFrame(
        rows,
        columns=["method", "baseline", "snr", "labels_per_type", "difference", "low", "high", "describe_difference"],
    )
