"""The model card of a detector: what it reads, what it was made of, its numbers and its limits, as Markdown.

After Mitchell et al., *Model cards for model reporting* (2019). Every number stands in the detector; nothing is
measured here, and what the detector does not know is called unknown.
"""

from collections.abc import Iterable
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

from scipy.special import expit

from ..signals.paths import sha256_of
from ..signals.refractory import Refractory
from ..signals.text import one_line
from .detector import Detector

UNKNOWN = "unknown"
# What the metadata of a detector say of its data.
DATA = {
    "duration_s": "labelled signal, seconds",
    "label_jitter_s": "uncertainty of the labels' times, seconds",
    "crowded_share": "share of events that overlap others",
    "self_train": "learned from its own detections too",
    "pretrain": "pretrained by",
    "data_hash": "hash of the data",
    "seed": "seed",
}
# Letters of a cell that are shown at most.
MOST_LETTERS = 400
USE = """With onnxruntime as what runs the networks (`pip install 'evlib[export]'`):

```python
import evlib
from evlib.detection.export import load_exported

events = evlib.detect(load_exported("THIS FOLDER"), evlib.read_recording("RECORDING"))
```

`evlib.load_detector("detector.ckpt")` is the same detector with PyTorch. The ONNX files read whitened signal, or
features of candidates; whitening, templates and the decision are in `detector.ckpt` and in evlib."""


def model_card(detector: Detector, name: str, paths: Iterable[Path] = ()) -> str:
    """What a user of a detector must know, as Markdown: what it reads, its data, its numbers, its limits.

    Everything stands in the detector; what is not known there is said to be unknown. ``paths`` : files to list with
    their SHA-256.
    """
    known, n_types = detector.metadata, len(detector.names)
    named = zip_longest(detector.channels, detector.units, fillvalue="")
    reads = {
        "method": detector.method,
        "sampling rate": f"{detector.sampling_rate_hz:g} Hz",
        "channels": ", ".join(f"{channel} ({unit})" if unit else channel for channel, unit in named)
        or f"{len(detector.whitener.taps)}, without names",
    }
    data = {text: known.get(name, UNKNOWN) for name, text in DATA.items()}
    f1, labels = known.get("development_f1", {}), known.get("n_labelled", {})
    least_s = Refractory(detector.refractory_s, detector.names).period_s
    kinds = [
        (
            kind,
            labels.get(kind, UNKNOWN),
            f"{min(f1[kind], 1.0):.3f}" if kind in f1 else UNKNOWN,  # rounding may lift it over 1
            f"{expit(threshold):.3g}",
            f"{least:g} s" if least else "none",
        )
        for kind, threshold, least in zip(detector.names, detector.thresholds, least_s, strict=True)
    ]
    tolerance = f" within {1e3 * known['tolerance_s']:g} ms" if "tolerance_s" in known else ""
    compared = [(row["method"], f"{row['f1']:.3f}", "kept" if row["kept"] else "") for row in known.get("compared", [])]
    files = [(path.name, path.stat().st_size, sha256_of(path)) for path in paths]
    parts = [
        f"# {one_line(name)}",
        f"A detector of {n_types} kinds of events in recordings of sensors, made by evlib {version('evlib')}.",
        "## What it reads",
        _table(("", ""), reads.items()),
        "## Data",
        _table(("", ""), data.items()),
        "## Numbers",
        f"F1{tolerance} on the development data that also chose the thresholds, so it may be less on other recordings. "
        "Nothing was measured on test data for this card.",
        _table(("kind", "labels", "F1", "threshold (probability)", "least interval"), kinds),
    ]
    if compared:
        parts += ["It was chosen on the same data among:", _table(("method", "F1", ""), compared)]
    parts += ["## Limits", "\n".join(f"- {line}" for line in _limits(detector)), "## How to use it", USE]
    if files:
        parts += ["## Files", _table(("file", "bytes", "SHA-256"), files)]
    return "\n\n".join(parts) + "\n"


def _limits(detector):
    yield "It finds the kinds above and no others; what else is loud may be taken for one of them."
    yield f"It reads recordings at {detector.sampling_rate_hz:g} Hz with these channels; others are refused."
    if detector.uses_templates:
        yield "An event has the shape that it had in training, or nearly so."
    if detector.network is not None:
        yield "A network reads the rhythm. Where that is strange, evidence alone decides; a log says so."
    yield "A probability (`score`) is true for recordings like those of training."
    yield "A channel whose noise is far above that of the training recordings counts less; a log says so."


def _table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[one_line(cell, MOST_LETTERS).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
