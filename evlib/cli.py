"""The command line: the public functions of evlib on files. A session from nothing::

    $ evlib simulate -o day1 --duration-s 120 --seed 1
    $ evlib simulate -o day2 --duration-s 120 --seed 2
    $ evlib validate day1/recording.npz day1/events.tsv --refractory-s 2
    no problems found
    $ evlib fit day1/recording.npz day1/events.tsv -o bells.ckpt --method matched_filter --refractory-s 2
    $ evlib detect bells.ckpt day2/recording.npz -o day2/estimated.tsv
    $ evlib score day2/events.tsv day2/estimated.tsv --tolerance-ms 5

Options are the arguments of the Python functions: names, defaults and help are read from their signatures and
docstrings. Times of a few milliseconds are given in milliseconds. Results go to standard output, progress and errors
to standard error. The exit code is 0 when all is well, 1 when ``validate`` found errors, and 2 when something could
not be used: then one line says what.
"""

import argparse
import importlib
import inspect
import os
import re
import shlex
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from itertools import chain
from json import dumps
from pathlib import Path

from .signals.errors import EvlibError, OptionError, UnitWarning, require_known

# Times of a few milliseconds: their options are in milliseconds.
IN_MILLISECONDS = ("template_s", "tolerance_s", "window_s", "event_s")
# Whole numbers whose default is None, so that the signature does not say what they are.
COUNTS = ("labels_per_type", "hidden_size", "max_epochs", "n_types", "n_channels", "skip_rows")
PER_TYPE = "a number, or NAME=NUMBER,NAME=NUMBER"
# Arguments of make_recording that would only lengthen the help of `evlib simulate`.
DETAILS = ("templates", "refractory_s", "amplitude_spread", "noise_std", "pink_share", "sway_ratio", "transients_per_s")
# Name of each command: the Python function behind it, what runs it on files, arguments that are no options, and what
# argparse must know beside names and defaults.
COMMANDS: dict[str, tuple[str, Callable, tuple, dict]] = {}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code.

    >>> folder = tempfile.mkdtemp()
    >>> main(["simulate", "-o", folder, "--duration-s", "10"])
    Recording(synthetic_rounds_snr12_seed0: 20000 samples, 6 channels, 2000 Hz, 10 s)
    Events(61 events, 16 types, 2000 Hz)
    0
    >>> main(["validate", f"{folder}/recording.npz", f"{folder}/events.tsv"])
    Recording(recording: 20000 samples, 6 channels, 2000 Hz, 10 s)
    Events(61 events, 16 types, 2000 Hz)
    no problems found
    0
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    name, said = arguments[0] if arguments else "", {}
    _make_printable()
    try:
        said = options = vars(make_parser(name).parse_args(arguments))
        _require_another_output(options)
        from .signals.files import read_recording

        said = dict(options)
        reading = {name: options.pop(name) for name in _reading_options(read_recording) if name in options}
        read = partial(read_recording, **reading)
        with warnings.catch_warnings():
            # The name of an option says its unit.
            warnings.simplefilter("ignore", UnitWarning)
            warnings.showwarning = lambda text, *_: _say("warning", text, said)
            return COMMANDS[name][1](_function(name), read, **options) or 0
    except BrokenPipeError:  # the reader of a pipe has seen enough (evlib ... | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (EvlibError, OSError) as error:
        _say("error", error, said)
        return 2
    except KeyboardInterrupt:
        print("evlib: interrupted", file=sys.stderr)
        return 130


def _say(kind, text, options):
    """Print a message on one line; where it names an argument of Python, the option of this command stands there.

    >>> sys.stderr = sys.stdout
    >>> _say("error", 'pass time_unit="ms", regrid=True or sep=', ["time_unit", "regrid", "sep"])
    evlib: error: pass --time-unit ms, --regrid or --sep
    """
    names = "|".join(options) or "(?!)"
    text = re.sub(
        rf"""(?<![\w/.-])({names})=(?:True|"([^"]*)"|'([^']*)'|(\d[\d.e+-]*\d|\d))?(?=[\s,;:?!)]|$)""",
        lambda found: " ".join(["--" + found[1].replace("_", "-"), *filter(None, found.groups()[1:])]),
        " ".join(str(text).split()),
    )
    text = re.sub(r"recording\.resample\([^)]*\)", "--resample", text) if "resample" in options else text
    print(f"evlib: {kind}:", text, file=sys.stderr)


def _make_printable():
    """Let names that the terminal's encoding lacks be shown escaped, and let a closed standard output be."""
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w", encoding="utf-8") for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _require_another_output(options):
    """Refuse an output that is one of the inputs, by whatever path or link."""
    paths = {name: value if isinstance(value, list) else [value] for name, value in options.items()}
    outputs = [path for path in paths.pop("output", []) if path and os.path.exists(path)]
    for path in chain(*paths.values()):
        if not (isinstance(path, str | Path) and os.path.exists(path)):
            continue
        for output in outputs:
            if os.path.samefile(path, output):
                raise OptionError(f"-o {output} is {path}, which is read: it would be lost. Choose another name")


def _require_no_labels(output):
    """Refuse to write detections over labels, which have no scores; and, before the work, with an unknown ending."""
    from .signals.labels import format_of, read_events

    if output is None or not (format_of(output) and output.is_file()):
        return
    try:
        scores = read_events(output).score
    except EvlibError:  # what is no labels is refused in its own words when it is written
        return
    if (scores != scores).any():  # NaN
        raise OptionError(
            f"-o {output} holds labels without scores, which may be yours: choose another name, or remove it"
        )


def _require_new(*paths):
    """Refuse to write a recording and its labels over others."""
    for path in paths:
        if path.exists():
            raise OptionError(f"{path} is there already; choose another folder, or remove it")


class _Parser(argparse.ArgumentParser):
    """A parser whose refusals are evlib's: one line, without the whole usage before it."""

    def error(self, message):
        raise OptionError(f"{message} (see {self.prog} --help)")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, where there is one to show."""

    def _get_help_string(self, action):
        hidden = action.default is None or action.default is False or action.dest in ("progress", "unlabelled")
        return action.help if hidden else super()._get_help_string(action)


def make_parser(command: str = "") -> argparse.ArgumentParser:
    """The parser of all commands; only ``command`` has its options, so that nothing else is imported."""
    parser = _Parser(prog="evlib", description="When do which events happen in a multichannel sensor recording?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (_, run, _, _) in COMMANDS.items():
        about = inspect.getdoc(run)
        subparser = commands.add_parser(name, help=about, description=about, formatter_class=_Help, allow_abbrev=False)
        if name == command:
            _add_options(subparser, name)
    return parser


def command(function: str, *without: str, **known):
    """Make a command of ``_name(function, read, files..., options...)``; its docstring is the command's help.

    ``without`` : arguments of the function that are no options; ``known`` : what ``add_argument`` gets for an argument
    beside what is read from the signature.
    """

    def register(run):
        COMMANDS[run.__name__[1:]] = function, run, without, known
        return run

    return register


def _function(name):
    """The Python function of a command."""
    module, _, function = COMMANDS[name][0].rpartition(".")
    return getattr(importlib.import_module(f"evlib.{module}"), function)


def _add_options(parser, name):
    """Files and options: the arguments of what runs the command, and then of its function."""
    function, (_, run, without, known) = _function(name), COMMANDS[name]
    texts = _parameter_texts(function)
    own = dict(list(inspect.signature(run).parameters.items())[2:])  # without function and read
    own.pop("options", None)
    for name, parameter in (own | dict(inspect.signature(function).parameters) | own).items():
        required, more = parameter.default is parameter.empty, known.get(name, {})
        if name == "output":
            parser.add_argument("-o", "--output", **{"type": Path, "required": required} | more)
        elif name in own and (required or more.get("nargs") == "?"):
            parser.add_argument(name, **{"metavar": name.upper()} | more)
        elif not required and name not in (*without, "sampling_rate_hz"):
            settings = {"help": texts.get(name, "")} | _settings(name, parameter.default) | more
            if "choices" in settings:  # a constant beside the function
                settings["choices"] = tuple(getattr(sys.modules[function.__module__], settings["choices"]))
            flag = "quiet" if name == "progress" else name[:-1] + "ms" if name in IN_MILLISECONDS else name
            parser.add_argument(("--" if len(flag) > 1 else "-") + flag.replace("_", "-"), dest=name, **settings)
    if {"files", "recording", "recordings", "source"} & set(own):
        from .signals.files import read_recording

        group, texts = parser.add_argument_group("reading of recordings"), _parameter_texts(read_recording)
        for name, default in _reading_options(read_recording).items():
            settings = {"help": texts[name]} | _settings(name, default)
            group.add_argument("--" + name.replace("_", "-"), **settings)


def _reading_options(read_recording):
    """Arguments of `read_recording` that are options of every command that reads recordings, with their defaults."""
    parameters = list(inspect.signature(read_recording).parameters.values())
    return {p.name: p.default for p in parameters if p.name not in ("path", "channels", "units")}


def _settings(name, default):
    """What argparse must know of an argument, from its name and default."""
    if name == "progress":
        return {"action": "store_false", "default": True, "help": "show no progress bars"}
    if default is False:
        return {"action": "store_true", "default": False}
    if default is True or name == "self_train":
        return {"action": argparse.BooleanOptionalAction, "default": default}
    if name in IN_MILLISECONDS:  # argparse converts a default that is text like one that was typed
        return {"type": milliseconds, "metavar": "MS", "default": default if default is None else f"{1e3 * default:g}"}
    guess = int if name in COUNTS else float if name.endswith(("_s", "_hz")) else str
    return {"type": guess if default is None else type(default), "default": default}


def _parameter_texts(function):
    """What a numpydoc docstring says about each argument."""
    section = inspect.getdoc(function).partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    texts = {}
    for names, text in re.findall(r"^([\w, ]+) : (.*(?:\n +.*)*)", section, re.MULTILINE):
        plain = re.sub(r":\w+:|`", "", " ".join(text.split())).replace("%", "%%")
        texts |= dict.fromkeys(names.split(", "), plain)
    return texts


def milliseconds(text: str) -> float:
    """Seconds, from milliseconds as text."""
    return float(text) / 1e3


def processes(text: str) -> int | str:
    """A number of processes, or the address of a scheduler.

    >>> processes("2"), processes("tcp://head:8786")
    (2, 'tcp://head:8786')
    """
    return int(text) if text.isdecimal() else text


def per_type(text: str) -> float | dict[str, float]:
    """A number, or a dict by event name.

    >>> per_type("2"), per_type("step=0.25,default=2")
    (2.0, {'step': 0.25, 'default': 2.0})
    """
    try:
        if "=" not in text:
            return float(text)
        parts = [part.rpartition("=") for part in text.split(",")]
        values = {name.strip(): float(number) for name, _, number in parts}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {PER_TYPE}, got {text!r}") from None
    if len(values) < len(parts) or "" in values:
        raise argparse.ArgumentTypeError(f"must give each name once, got {text!r}")
    return values


_BY_TYPE = {"type": per_type, "metavar": "NUMBER"}


@command(
    "detection.fit.fit",
    files={
        "nargs": "+",
        "metavar": "RECORDING EVENTS",
        "help": "each recording, followed by its event table; or a data set",
    },
    output={"metavar": "DETECTOR", "help": "the detector to write"},
    method={"choices": "METHODS"},
    refractory_s=_BY_TYPE | {"help": f"least time between events of a type: {PER_TYPE}"},
    unlabelled={"type": str, "nargs": "+", "action": "extend", "default": [], "metavar": "RECORDING"},
    pretrain={"help": "discovery, autoencoder, variational, contrastive, masked, or what evlib pretrain wrote"},
    template_s={"nargs": 2, "metavar": ("BEFORE", "AFTER"), "help": "reach of templates; default: found from the data"},
    types={"type": str, "nargs": "+", "metavar": "TYPE", "help": "learn only these; default: all in the event tables"},
)
def _fit(fit, read, files, output, types=None, **options):
    """Train a detector from recordings and their labelled events, or from the split "train" of a data set."""
    from .signals.dataset import open_dataset
    from .signals.labels import read_events

    if output.is_dir():
        raise OptionError(f"the detector is one file, but -o {output} is a folder")
    unlabelled = [read(path) for path in options.pop("unlabelled")]
    if len(files) == 1 and Path(files[0], "dataset.json").is_file():
        data = open_dataset(files[0])
        pairs, unlabelled = data.pairs("train"), data.unlabelled("train") + unlabelled
    elif len(files) % 2:
        raise OptionError(f"fit takes recordings, each followed by its event table; got {len(files)} files")
    else:
        files = zip(files[::2], files[1::2], strict=True)
        pairs = [(read(recording), read_events(events)) for recording, events in files]
    if types is not None:
        require_known(types, {name: None for _, events in pairs for name in events.names}, "--types")
        pairs = [(recording, events.select(set(types) & set(events.names))) for recording, events in pairs]
    detector = fit(pairs, unlabelled=unlabelled, **options)
    detector.save(output)
    print(detector)


@command(
    "detection.pretrain.pretrain",
    "whitened",
    recordings={"nargs": "+", "metavar": "RECORDING"},
    output={"metavar": "ENCODER", "help": "the encoder to write"},
    pretext={"choices": "PRETEXTS"},
)
def _pretrain(pretrain, read, recordings, output, **options):
    """Pretrain an encoder on recordings without labels, for evlib fit --pretrain."""
    encoder = pretrain([read(path) for path in recordings], **options)
    encoder.save(output)
    print(encoder)


@command("templates.discover.discover", output={"metavar": "EVENTS", "help": "the event table to write"})
def _discover(discover, read, recording, output, **options):
    """Find the types of events that recur in a recording, without labels."""
    from .signals.labels import write_events

    _require_no_labels(output)
    found = discover([read(recording)], **options)
    write_events(found.events[0], output)
    print(found)


@command(
    "detection.detector.detect",
    recording={"help": "a recording, or a folder of recordings"},
    output={"metavar": "EVENTS", "help": "the event table to write, standard output without it; of a folder a folder"},
    threshold=_BY_TYPE | {"help": f"probability from which an event is kept, not as fitted: {PER_TYPE}"},
    resample={"help": "bring the recording to the detector's rate"},
    dask={
        "type": processes,
        "metavar": "N",
        "help": "of a folder: work in N processes, or on a dask scheduler (address)",
    },
    pattern={"help": "of a folder: only recordings with such names, as in '2024/*.zarr'"},
)
def _detect(detect, read, detector, recording, output=None, resample=False, dask=None, pattern=None, **options):
    """Find events in a recording, or in all recordings of a folder that it has not found them in yet."""
    from .detection.detector import load_detector
    from .signals.labels import write_events

    if Path(recording).is_dir() and Path(recording).suffix.lower() != ".zarr":
        from .detection.archive import detect_all

        if output is None:
            raise OptionError("the events of a folder of recordings go into a folder: -o FOLDER")
        options |= {"dask": dask, "pattern": pattern or "*", "resample": resample, "reading": read.keywords}
        archive = detect_all(load_detector(detector), recording, output, **options)
        print(archive)
        return 2 if archive.failed else 0
    if dask is not None or pattern is not None:
        raise OptionError(f"--dask and --pattern are for a folder of recordings; {recording} is none")
    _require_no_labels(output)
    detector, recording = load_detector(detector), read(recording)
    if resample:
        recording = recording.resample(detector.sampling_rate_hz)
    events = detect(detector, recording, **options)
    if output is not None:
        write_events(events, output)
        print(events)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_events(events, Path(folder, "events.tsv"))
        table = Path(folder, "events.tsv")
        if hasattr(sys.stdout, "buffer"):  # as it is in a file, whatever the encoding of the terminal is
            sys.stdout.buffer.write(table.read_bytes())
            sys.stdout.flush()
        else:
            sys.stdout.write(table.read_text(encoding="utf-8"))


@command(
    "live.session.open_session",
    "outputs",
    "read",
    source={"help": "-, tcp://HOST:PORT, serial:DEVICE, lsl:NAME, mqtt://HOST/TOPIC, or a recording to replay"},
    output={
        "type": str,
        "action": "append",
        "metavar": "OUTPUT",
        "help": "-, a file, tcp://HOST:PORT, lsl:NAME, mqtt://HOST/TOPIC; more than one may be given; default: -",
    },
    state={"type": Path, "metavar": "FOLDER", "help": "go on from this folder after a stop or kill"},
    channels={"nargs": "+", "metavar": "NAME"},
    units={"metavar": "UNIT"},
    format={"choices": "FORMATS"},
    scale={"type": float, "metavar": "NUMBER"},
)
def _stream(open_session, read, detector, source, output=None, state=None, **options):
    """Find events in a live signal, and tell them as lines of JSON as soon as they are final."""
    from .detection.detector import load_detector

    with tempfile.TemporaryDirectory() as folder:
        session = open_session(load_detector(detector), source, state or folder, output or ["-"], read=read, **options)
        signal.signal(signal.SIGTERM, lambda *_: session.stop())
        session.run()


@command("detection.export.export", output={"metavar": "FOLDER", "help": "the folder to write"})
def _export(export, read, detector, output, **options):
    """Write a detector for other programs: ONNX, safetensors and a model card."""
    from .detection.detector import load_detector

    print(*sorted(export(load_detector(detector), output, **options).iterdir()), sep="\n")


@command(
    "scoring.comparison.compare",
    tolerance_s={"help": "how far a hit may lie from its reference event, inclusive"},
    refractory_s=_BY_TYPE | {"help": f"count events that are closer than this: {PER_TYPE}"},
    json={"help": "print the whole report as one JSON object"},
)
def _score(compare, read, reference, estimated, json=False, **options):
    """Compare estimated events with reference events."""
    from .signals.labels import read_events

    report = compare(read_events(reference), read_events(estimated), **options)
    print(dumps(report.summary(), indent=2, allow_nan=False) if json else report)


@command(
    "signals.validate.validate",
    events={"nargs": "?", "metavar": "EVENTS"},
    names={"nargs": "+", "metavar": "NAME"},
    refractory_s=_BY_TYPE | {"help": f"warn of events that are closer than this: {PER_TYPE}"},
)
def _validate(validate, read, recording, events=None, detector=None, **options):
    """Say what is wrong with a recording, and with its events, or with a data set; exit code 1 on errors."""
    from .detection.detector import load_detector
    from .signals.dataset import validate_dataset
    from .signals.labels import read_events

    if events is None and (Path(recording) / "dataset.json").is_file():
        report = validate_dataset(recording)
        print(report)
        return 0 if report.ok else 1
    detector = None if detector is None else load_detector(detector)
    events = None if events is None else read_events(events)
    recording = read(recording)
    print(*(one for one in (recording, events) if one is not None), sep="\n")
    report = validate(recording, events, detector=detector, **options)
    print(report)
    return 0 if report.ok else 1


@command(
    "signals.synthetic.make_recording",
    *DETAILS,
    output={"metavar": "FOLDER", "help": "the folder to write"},
    schedule={"choices": "SCHEDULES"},
    templates_seed={"help": "of the events' shapes: keep it for recordings of the same events"},
)
def _simulate(make_recording, read, output, templates_seed=0, **options):
    """Write a synthetic recording.npz and its true events.tsv."""
    from .signals.files import write_recording
    from .signals.labels import write_events
    from .signals.synthetic import make_templates

    _require_new(output / "recording.npz", output / "events.tsv")
    recording, events = make_recording(make_templates(seed=templates_seed), **options)
    write_recording(recording, output / "recording.npz")
    write_events(events, output / "events.tsv")
    print(recording, events, sep="\n")


@command(
    "signals.examples.example",
    name={"nargs": "?", "metavar": "NAME", "help": "which one; without it they are listed"},
    output={"metavar": "FOLDER", "help": "the folder to write; default: NAME"},
)
def _example(example, read, name=None, output=None):
    """Write a small recording.npz and its events.tsv, simulated or real; without a name, list what there is."""
    from .signals.events import write_events
    from .signals.examples import EXAMPLES
    from .signals.files import write_recording

    if name is None:
        print(*(f"{name}: {e.about}; {e.size}; {e.licence}" for name, e in EXAMPLES.items()), sep="\n")
        return
    output = output or Path(name)
    _require_new(output / "recording.npz", output / "events.tsv")
    recording, events = example(name)
    write_recording(recording, output / "recording.npz")
    write_events(events, output / "events.tsv")
    print(recording, events, sep="\n")


@command("workbook.new_workbook")
def _new(new_workbook, read, folder):
    """Copy the notebooks into a new folder: a workbook of your own to start from."""
    notebooks = new_workbook(folder)
    print(f"notebooks: {notebooks}\nopen them: cd {shlex.quote(str(notebooks.parent))} && jupyter lab notebooks")


@command(
    "signals.labels.write_events",
    "path",
    source={"metavar": "IN", "help": "a recording or a file of labels"},
    target={"metavar": "OUT", "help": "the file to write"},
    read_format={"type": str, "help": "format of IN; default: by the file"},
    type_column={"help": "where the types stand in IN, if not in the usual place"},
    format={"help": "format of OUT; default: by its ending"},
)
def _convert(write_events, read, source, target, read_format=None, type_column=None, **options):
    """Convert a recording or labels from one format to another."""
    from .signals.files import FORMATS, LABELS_TOO, WRITERS, write_recording
    from .signals.labels import read_events

    if Path(target).exists() and Path(target).samefile(source):
        raise OptionError(f"{target} is the file that is read; write to another one")
    ends = [Path(name).suffix.lower() for name in (source, target)]
    if ends[0] in FORMATS and ends[1] in WRITERS and not set(ends) <= set(LABELS_TOO):
        recording = read(source)
        write_recording(recording, target)
        print(recording)
        return
    given = {"type_column": type_column, "start_time": options["start_time"]}
    given["sampling_rate_hz"] = read.keywords["sampling_rate_hz"]
    events = read_events(source, format=read_format, **given)
    write_events(events, target, **options)
    print(events)


@command(
    "workbook.run_notebooks",
    "parameters",
    notebooks={"nargs": "+", "metavar": "NOTEBOOK"},
    params={"metavar": "FOLDER", "help": "folder of <notebook>.yaml files (notebooks/params: full runs)"},
    p={"nargs": 2, "action": "append", "metavar": ("NAME", "VALUE"), "help": "set one parameter (VALUE as in YAML)"},
    sweep={"metavar": "FILE", "help": "run one notebook for each combination of the values in a YAML file"},
    dask={"type": processes, "metavar": "N", "help": "of a sweep: as in evlib detect"},
)
def _run(run_notebooks, read, notebooks, params=None, p=None, sweep=None, dask=None):
    """Execute notebooks into build/ and print their results."""
    from .workbook import notebook_parameters, sweep_notebook

    if (params is not None) + (p is not None) + (sweep is not None) > 1:
        raise OptionError("give --params, a folder of files, or -p NAME VALUE, or --sweep FILE; not both")
    if sweep is not None:
        if len(notebooks) > 1:
            raise OptionError(f"a sweep runs one notebook, got {len(notebooks)}")
        table = sweep_notebook(notebooks[0], sweep, dask)
        print(table.to_string(index=False))
        return 2 if table["problem"].any() else 0
    if dask is not None:
        raise OptionError("--dask is for a --sweep")
    declared = {
        name: value for path in notebooks if Path(path).is_file() for name, value in notebook_parameters(path).items()
    }
    run_notebooks(notebooks, {name: _value(name, text, declared.get(name)) for name, text in p} if p else params)


def _value(name, text, default):
    """A parameter as its default is: text as it stands, anything else as in YAML."""
    import yaml

    if isinstance(default, str) or (default is None and name.endswith("_path")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OptionError(f"-p {name} {text!r} is no value in YAML: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
