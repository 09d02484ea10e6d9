"""Archives: one detector on all recordings of a folder, in one process or on many machines, with the same result.

The output is a folder::

    detections.json               detector and options that everything in it was found with
    detector.ckpt                 the detector, as the workers read it
    events/NAME.parquet           a part for each recording, named as it is in its folder
    events.tsv                    the events of all parts, with a column ``recording``
    recordings.tsv                a row for each recording: events, duration, what was unusual, what went wrong

A part appears whole or not at all. A second call finds only what is missing: recordings without a part, that failed, or
that changed since (by size and time of modification). So a call that was killed is simply made again.
"""

import json
import logging
import os
import tempfile
import threading
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..signals.atomic import kind_of, replace_file
from ..signals.errors import DataError, OptionError, path_of, require, require_extra, require_instance
from ..signals.events import COLUMNS, Events, events_of, table_of
from ..signals.files import FORMATS, LABELS_TOO, read_recording
from ..training.checkpoints import load
from ..training.provenance import fingerprint
from .cluster import run_tasks
from .detector import BLOCK_S, Detector, detect, load_detector

# Where a Parquet file of evlib says what recording it is of.
ABOUT_PART = b"evlib"
# Columns of recordings.tsv.
REPORT = ("recording", "events", "duration_s", "notes", "problem")


@dataclass(frozen=True)
class Archive:
    """The detections in a folder.

    ``folder`` : the output of :func:`detect_all`; ``names`` : recordings with a part; ``failed`` : what went wrong, by
    recording; ``n_new`` : parts that the last call made
    """

    folder: Path
    names: tuple
    failed: dict
    n_new: int = 0

    def __repr__(self):
        counts = f"{len(self.names)} recordings, {self.n_new} of them new, {len(self.failed)} failed"
        return f"Archive({self.folder}: {counts})" + "".join(f"\n  {n}: {why}" for n, why in self.failed.items())

    def read(self, name: str) -> Events:
        """The events of one recording; DataError where there is no part."""
        part = _part(self.folder, name)
        return events_of(_read_part(part).drop(columns="recording"), _about(part)["names"])


def detect_all(
    detector: Detector,
    folder: str | Path,
    output: str | Path,
    *,
    dask: str | int | None = None,
    pattern: str = "*",
    threshold: float | dict | None = None,
    block_s: float = BLOCK_S,
    match_channels: str = "name",
    adapt: bool = False,
    resample: bool = False,
    reading: dict | None = None,
    progress: bool = False,
) -> Archive:
    """Find events in all recordings of a folder; one that fails never stops the others.

    Parameters
    ----------
    detector : from :func:`evlib.fit` or :func:`evlib.load_detector`
    folder : with recordings, also in folders inside of it; tables of events beside them are left alone
    output : another folder, described at the top of this file; of an earlier call with the same detector and options,
        what is missing is added
    dask : None for one recording after another; a number of processes; or the address of a dask scheduler. The result
        is the same, byte for byte
    pattern : which recordings, by their names in the folder, as in ``"2024/*.zarr"``
    threshold, block_s, match_channels, adapt : as in :func:`evlib.detect`
    resample : bring recordings to the detector's rate
    reading : options of :func:`evlib.read_recording`
    progress : show a progress bar

    Returns
    -------
    Archive, which names the recordings that failed

    Raises
    ------
    DataError : no recording in the folder
    OptionError : an output inside of the folder, or of another detector or other options; options that
        :func:`evlib.detect` refuses

    Examples
    --------
    >>> import evlib
    >>> recording, reference = evlib.make_recording(duration_s=20.0, seed=1)
    >>> detector = evlib.fit([(recording, reference)], method="matched_filter", progress=False)
    >>> place = Path(tempfile.mkdtemp())
    >>> (place / "in").mkdir()
    >>> evlib.write_recording(recording, place / "in" / "night.npz")
    >>> archive = detect_all(detector, place / "in", place / "out")
    >>> archive.names, archive.n_new, detect_all(detector, place / "in", place / "out").n_new
    (('night.npz',), 1, 0)
    >>> len(archive.read("night.npz")) == len(evlib.detect(detector, recording))
    True
    """
    from tqdm.auto import tqdm

    require_extra("pyarrow", "data")
    require_instance(Detector, "from fit or load_detector", detector=detector)
    folder, output = path_of(folder).resolve(), path_of(output).resolve()
    require(folder.is_dir(), DataError, f"no folder of recordings at {folder}")
    require(not output.is_relative_to(folder), OptionError, f"the output {output} must lie outside of {folder}")
    found = {name: state for name, state in list_recordings(folder).items() if fnmatch(name, pattern)}
    require(found, DataError, f"no recording in {folder} is named like {pattern!r}; its ending tells what it is")
    reading = {option: value for option, value in (reading or {}).items() if value not in (None, False)}
    options = {"threshold": threshold, "match_channels": match_channels, "adapt": adapt}
    _claim(output, detector, options | {"resample": bool(resample), "reading": reading})
    missing = [(name, state) for name, state in found.items() if _about(_part(output, name)).get("state") != state]
    how = {"resample": resample, "reading": reading, "options": options | {"block_s": block_s}}
    work, failed = partial(_detect_one, folder=folder, output=output, **how), {}
    with tqdm(total=len(found), initial=len(found) - len(missing), unit="recording", disable=not progress) as bar:
        for (name, _), _, problem in run_tasks(work, missing, dask):
            if problem:
                failed[name] = problem
                _part(output, name).unlink(missing_ok=True)  # of what the recording was before
                bar.set_postfix_str(f"{len(failed)} failed")
            bar.update()
    names = _summarize(output, failed)
    return Archive(output, names, dict(sorted(failed.items())), len(missing) - len(failed))


def list_recordings(folder: Path) -> dict[str, list]:
    """The recordings in a folder by their names in it, sorted, each with what changes when its files do: their number,
    bytes and last time of modification (ns). Links to folders are not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        stores = [name for name in folders if Path(name).suffix.lower() == ".zarr"]
        folders[:] = [name for name in folders if name not in stores]
        beside = defaultdict(list)  # a recording may have several files: .npy and .json, .hea and .dat
        for name in files:
            beside[Path(name).stem].append(os.path.join(place, name))
        for name in [*stores, *(name for name in files if name[0] != ".")]:
            path = Path(place, name)
            if path.suffix.lower() not in FORMATS or (name in files and _is_labels(path)):
                continue
            own = path.rglob("*") if name in stores else beside[path.stem]
            stats = [os.stat(file) for file in own if os.path.isfile(file)]  # a link may lead nowhere
            state = [len(stats), sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]
            found[path.relative_to(folder).as_posix()] = state
    return dict(sorted(found.items()))


def _is_labels(path):
    return path.suffix.lower() in LABELS_TOO and os.access(path, os.R_OK) and kind_of(path) == "events"


def _claim(output, detector, options):
    """Bind an output to a detector and options, or refuse one that is bound to others."""
    with tempfile.TemporaryDirectory() as place:
        saved = Path(place, "detector.ckpt")
        detector.save(saved)
        claim = {"evlib": version("evlib"), "detector": fingerprint(load(saved)), "options": options}
        text = json.dumps(claim, indent=1, sort_keys=True) + "\n"
        bond = output / "detections.json"
        if bond.is_file():
            before = bond.read_text(encoding="utf-8")
            hint = "choose another folder, or remove it"
            require(before == text, OptionError, f"{output} holds detections of {before}, not of {text}; {hint}")
            return
        held = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
        require(not held, OptionError, f"the output {output} holds {', '.join(held[:3])}: choose a new folder")
        output.mkdir(parents=True, exist_ok=True)
        for name, content in {"detector.ckpt": saved.read_bytes(), "detections.json": text.encode()}.items():
            with replace_file(output / name) as temporary:
                temporary.write_bytes(content)


@lru_cache(maxsize=1)
def _detector(path, changed_ns):
    """The detector of a file; a worker reads it once."""
    return load_detector(path)


def _detect_one(task, folder, output, resample, reading, options):
    """Find the events of one recording and write its part."""
    name, state = task
    part = _part(output, name)
    if _about(part).get("state") == state:  # made by a worker that died before it said so
        return
    path = output / "detector.ckpt"
    detector = _detector(path, path.stat().st_mtime_ns)
    with _log_lines() as notes:
        recording = read_recording(folder / name, **reading)
        recording = recording.resample(detector.sampling_rate_hz) if resample else recording
        events = detect(detector, recording, **options)
    about = {"state": state, "duration_s": recording.duration_s, "notes": notes, "names": events.names}
    _write_part(events, part, name, about)


@contextmanager
def _log_lines():
    """A list that gets what evlib warns of in this thread, so that it is not lost in the log of a worker."""
    lines: list[str] = []
    thread = threading.get_ident()

    class Keep(logging.Handler):
        def emit(self, record):
            if record.thread == thread:
                lines.append(record.getMessage())

    logger, handler = logging.getLogger("evlib"), Keep(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


# ---- parts ----------------------------------------------------------------------------------------------------------


def _part(output, name):
    return output / "events" / f"{name}.parquet"


def _write_part(events, path, name, about):
    """A Parquet file of the events of a recording, with the same columns whatever is in it."""
    arrow, parquet = require_extra("pyarrow", "data"), require_extra("pyarrow.parquet", "data")
    kinds = {"recording": arrow.string(), "trial_type": arrow.string(), "sample": arrow.int64()}
    schema = arrow.schema([(column, kinds.get(column, arrow.float64())) for column in ("recording", *COLUMNS)])
    table = arrow.Table.from_pandas(table_of(events).assign(recording=name), schema, preserve_index=False)
    with replace_file(path) as temporary:
        parquet.write_table(table.replace_schema_metadata({ABOUT_PART: json.dumps(about)}), temporary)


def _read_part(path):
    """The table of a part."""
    import pandas as pd

    require(path.is_file(), DataError, f"no detections at {path}")
    return pd.read_parquet(path, engine="pyarrow")


def _about(path) -> dict[str, Any]:
    """What a part says of its recording; nothing where there is no part, or a damaged one."""
    try:
        return json.loads(require_extra("pyarrow.parquet", "data").read_schema(path).metadata[ABOUT_PART])
    except (OSError, ValueError, TypeError, KeyError):  # pyarrow's own error is a ValueError
        return {}


def _summarize(output, failed):
    """Write the two tables of all parts; returns the names of their recordings."""
    import pandas as pd

    events = output / "events"
    paths = [path.relative_to(events).as_posix() for path in events.glob("**/*.parquet")]
    names = sorted(path.removesuffix(".parquet") for path in paths if "/." not in f"/{path}")  # none half written
    rows = [(name, None, None, "", problem) for name, problem in failed.items()]
    order = [*COLUMNS, "recording"]
    with replace_file(output / "events.tsv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        _to_tsv(pd.DataFrame(columns=order), file)
        for name in names:
            part = _part(output, name)
            table, about = _read_part(part), _about(part)
            rows.append((name, len(table), about["duration_s"], "; ".join(about["notes"]), ""))
            table["onset"] = [f"{onset:.6f}" for onset in table["onset"]]
            _to_tsv(table[order], file, header=False)
    with replace_file(output / "recordings.tsv") as temporary:
        _to_tsv(pd.DataFrame(sorted(rows), columns=REPORT).astype({"events": "Int64"}), temporary)
    return tuple(names)


def _to_tsv(table, place, **options):
    table.to_csv(place, sep="\t", index=False, na_rep="n/a", lineterminator="\n", **options)
