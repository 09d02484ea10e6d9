"""Data sets: a folder of recordings with their events, splits by recording, and what is needed to trust them.

::

    dataset.json      format, name, description, provenance, sampling_rate_hz, channels, units, recordings
    night1.zarr       a recording
    night1.tsv        its events, where it has labels

``recordings`` in dataset.json maps each name to ``{"recording": FILE, "events": FILE or null, "split": WORD, "sha256":
{FILE: HEX}}``. Files lie inside of the folder, in any format that evlib reads. All recordings have the rate, channels
and units of the data set. A split is a word such as train, development or test; a recording belongs to one.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import replace_folder
from .errors import DataError, EvlibError, OptionError, path_of, require, require_rate
from .events import Events
from .files import read_recording, write_recording
from .labels import read_events, write_events
from .paths import path_inside, sha256_of
from .recording import Recording, check_alike
from .validate import Problem, ValidationReport, validate

FORMAT = "evlib data set 1"
TEXTS, LISTS = ("name", "description", "provenance"), ("channels", "units")
KEYS = {"format", *TEXTS, "sampling_rate_hz", *LISTS, "recordings"}
ENTRY_KEYS = {"recording", "events", "split", "sha256"}


@dataclass(frozen=True, eq=False)
class DataSet:
    """A folder that `open_dataset` has opened; signals are read when asked for.

    ``about`` : what dataset.json says
    """

    folder: Path
    about: dict

    def __repr__(self):
        splits = Counter(entry["split"] for entry in self.about["recordings"].values())
        counts = ", ".join(f"{split}: {n}" for split, n in sorted(splits.items()))
        return f"DataSet({self.about['name']}: {len(self.names)} recordings; {counts})"

    @property
    def names(self) -> tuple:
        """The names of the recordings, sorted."""
        return tuple(sorted(self.about["recordings"]))

    def read(self, name: str) -> tuple[Recording, Events | None]:
        """A recording and its events; None where it has no labels. Signals are read piece by piece later.

        Raises
        ------
        DataError : an unknown name, files that cannot be read, or another rate, other channels or units than the set's
        """
        entries = self.about["recordings"]
        require(name in entries, DataError, f"{self.folder} has no recording {name!r}; it has {len(entries)}")
        entry = entries[name]
        recording = read_recording(path_inside(self.folder, entry["recording"]))
        for what in ("sampling_rate_hz", *LISTS):
            found, wanted = getattr(recording, what), self.about[what]
            same = list(found) == wanted if what in LISTS else found == wanted
            require(same, DataError, f"{name}: {what} is {found}, dataset.json says {wanted}")
        labels = entry["events"]
        return recording, None if labels is None else read_events(path_inside(self.folder, labels))

    def pairs(self, split: str) -> list:
        """(recording, events) of each labelled recording of a split, as :func:`evlib.fit` takes them."""
        return [pair for pair in self._split(split) if pair[1] is not None]

    def unlabelled(self, split: str) -> list:
        """The recordings of a split that have no labels."""
        return [recording for recording, events in self._split(split) if events is None]

    def _split(self, split):
        splits = {name: entry["split"] for name, entry in self.about["recordings"].items()}
        known = ", ".join(sorted(set(splits.values())))
        require(split in splits.values(), OptionError, f"there is no split {split!r}; there are {known}")
        return [self.read(name) for name in self.names if splits[name] == split]


def write_dataset(
    folder: str | Path, recordings: Iterable, name: str, description: str = "", provenance: str = ""
) -> DataSet:
    """Write a data set, with recordings as Zarr stores; after a crash there is no half of it.

    Parameters
    ----------
    folder : a new one
    recordings : (name, Recording, Events or None, split) of each; an iterable, so that not all need be in memory
    name, description : of the data set
    provenance : where it comes from, in words: sensor, place, licence, what was done to it

    Raises
    ------
    OptionError : a folder that is there already, a name that occurs twice or is no file name
    DataError, UnitError, ShapeError : no recording, or recordings with different rates, channels or units

    Examples
    --------
    >>> import tempfile, evlib
    >>> parts = [(f"night{k}", *evlib.make_recording(duration_s=5.0, seed=k), "train") for k in range(2)]
    >>> data = write_dataset(tempfile.mkdtemp() + "/bells", parts, "bells")
    >>> data
    DataSet(bells: 2 recordings; train: 2)
    >>> print(validate_dataset(data.folder))
    no problems found
    """
    folder = path_of(folder)
    require(not folder.exists(), OptionError, f"{folder} is there already; a data set needs a new folder")
    entries: dict[str, dict] = {}
    first: Any = None
    with replace_folder(folder) as new:
        for own, recording, events, split in recordings:
            plain = isinstance(own, str) and own == Path(own).name and own not in ("", "dataset", *entries)
            require(plain, OptionError, f"each recording needs a name of its own, that of a file, got {own!r}")
            first, recording = check_alike([first or recording, recording])
            files = {"recording": f"{own}.zarr", "events": None if events is None else f"{own}.tsv"}
            write_recording(recording, new / files["recording"])
            if events is not None:
                write_events(events, new / f"{own}.tsv")
            digests = {file: sha256_of(new / file) for file in files.values() if file}
            entries[own] = files | {"split": split, "sha256": digests}
        require(first is not None, DataError, "a data set needs at least one recording")
        texts = {"name": name, "description": description, "provenance": provenance}
        about = {"format": FORMAT, **texts, "sampling_rate_hz": first.sampling_rate_hz}
        about |= {"channels": list(first.channels), "units": list(first.units), "recordings": entries}
        (new / "dataset.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        open_dataset(new)
    return open_dataset(folder)


def open_dataset(folder: str | Path) -> DataSet:
    """Open a data set. dataset.json is checked at once, files when they are read.

    Raises
    ------
    DataError : everything in dataset.json that breaks the format
    """
    folder = path_of(folder)
    about, problems = _read_about(folder)
    ValidationReport(tuple(Problem("error", "dataset.json", text) for text in problems)).raise_if_errors()
    return DataSet(folder, about)


def validate_dataset(folder: str | Path) -> ValidationReport:
    """Everything that is wrong with a data set: dataset.json, files that are lost or not as they were written, one
    recording in two splits, and what :func:`evlib.validate` finds in each recording and its events."""
    folder = path_of(folder)
    about, texts = _read_about(folder)
    found = [Problem("error", "dataset.json", text) for text in texts]
    if found:
        return ValidationReport(tuple(found))
    data = DataSet(folder, about)
    owner: dict[str, str] = {}  # of each SHA-256
    for name in data.names:
        entry = about["recordings"][name]
        for file, digest in entry["sha256"].items():
            path = path_inside(folder, file)
            if not path.exists():
                found.append(Problem("error", name, f"{file} is lost"))
            elif sha256_of(path) != digest:
                found.append(
                    Problem("error", name, f"{file} is not the file that dataset.json was written for (SHA-256)")
                )
        other = owner.setdefault(entry["sha256"][entry["recording"]], name)
        if about["recordings"][other]["split"] != entry["split"]:
            found.append(Problem("error", name, f"is the same recording as {other}, which is in another split"))
        try:
            report = validate(*data.read(name))
        except EvlibError as error:
            found.append(Problem("error", name, str(error)))
        else:
            found += [Problem(one.severity, f"{name}, {one.where}", one.message) for one in report.problems]
    return ValidationReport(tuple(found))


def _read_about(folder) -> tuple[Any, list[str]]:
    """What dataset.json says, and what breaks the format in it."""

    def once(pairs):
        twice = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        require(not twice, DataError, f"{', '.join(map(repr, twice))} stands there twice")
        return dict(pairs)

    path = folder / "dataset.json"
    require(path.is_file(), DataError, f"{folder} is no data set: there is no dataset.json in it")
    try:
        about = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        return None, [f"cannot be read: {error}"]
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        return None, [f"must hold an object with the format {FORMAT!r}"]
    if about.keys() != KEYS:
        return None, [f"must hold {', '.join(sorted(KEYS))}, got {', '.join(sorted(about))}"]
    problems = [f"{key} must be a text" for key in TEXTS if not isinstance(about[key], str)]
    problems += [f"{key} must be a list of texts" for key in LISTS if not _is_texts(about[key])]
    try:
        require_rate(about["sampling_rate_hz"])
    except EvlibError as error:
        problems.append(str(error))
    entries = about["recordings"]
    if not (isinstance(entries, dict) and entries):
        return about, [*problems, "recordings must be an object with at least one entry"]
    for name, entry in entries.items():
        if why := _wrong_entry(folder, entry):
            problems.append(f"recording {name!r}: {why}")
    return about, problems


def _wrong_entry(folder, entry):
    """Why an entry of ``recordings`` breaks the format; "" where it does not."""
    if not (isinstance(entry, dict) and entry.keys() == ENTRY_KEYS):
        return f"must be an object with {', '.join(sorted(ENTRY_KEYS))}"
    files, digests = [entry["recording"], *([] if entry["events"] is None else [entry["events"]])], entry["sha256"]
    try:
        for file in files:
            path_inside(folder, file)
    except EvlibError as error:
        return str(error)
    if not (isinstance(digests, dict) and digests.keys() == set(files) and _is_texts(list(digests.values()))):
        return f"sha256 must give the digest of {', '.join(files)}"
    return "" if isinstance(entry["split"], str) and entry["split"].strip() else "split must be a word"


def _is_texts(values):
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
