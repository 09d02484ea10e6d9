"""The command line: the public functions of evlib on files. A session from nothing::

    $ evlib simulate -o day1 --duration-s 120 --seed 1
    $ evlib simulate -o day2 --duration-s 120 --seed 2
    $ evlib validate day1/recording.npz day1/events.tsv --refractory-s 2
    no problems found
    $ evlib fit day1/recording.npz day1/events.tsv -o bells.ckpt --method matched_filter --refractory-s 2
    $ evlib detect bells.ckpt day2/recording.npz -o day2/estimated.tsv
    $ evlib score day2/events.tsv day2/estimated.tsv --tolerance-ms 5

Options are the arguments of the Python functions, with the same defaults; times of a few milliseconds are given in
milliseconds. Results go to standard output, progress and errors to standard error. The exit code is 0 when all is
well, 1 when ``validate`` found errors, and 2 when something could not be used: then one line says what.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .signals.errors import EvlibError, OptionError


def main(arguments=None) -> int:
    """Run one command; returns the exit code.

    >>> folder = tempfile.mkdtemp()
    >>> main(["simulate", "-o", folder, "--duration-s", "10"])
    Recording(synthetic_rounds_snr12_seed0: 20000 samples, 6 channels, 2000 Hz, 10 s)
    Events(61 events, 16 types, 2000 Hz, all labelled)
    0
    >>> main(["validate", f"{folder}/recording.npz", f"{folder}/events.tsv"])
    no problems found
    0
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["run"]:  # the workbook has its own parser
            from .workbook import main as run

            return run(arguments[1:])
        options = make_parser().parse_args(arguments)
        return options.command(options) or 0
    except (EvlibError, OSError) as error:
        print("evlib: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evlib: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """A parser whose refusals are evlib's: one line, without the whole usage before it."""

    def error(self, message):
        raise OptionError(f"{message} (see {self.prog} --help)")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, where there is one to show."""

    def _get_help_string(self, action):
        shown = action.default not in (None, []) and action.default is not False
        return super()._get_help_string(action) if shown else action.help


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="evlib", description="When do which events happen in a multichannel sensor recording?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, function, help):
        command = commands.add_parser(name, help=help, description=help, formatter_class=_Help, allow_abbrev=False)
        command.set_defaults(command=function)
        return command.add_argument

    def add_rate(option):
        option("--sampling-rate-hz", type=float, help="rate of recordings whose files do not tell theirs")

    def add_quiet(option):
        option("--quiet", action="store_true", default=False, help="no progress bars")

    option = add("fit", _fit, "Train a detector from recordings and their labelled events.")
    option("files", nargs="+", metavar="RECORDING EVENTS", help="each recording is followed by its event table")
    option("-o", "--output", type=Path, required=True, metavar="DETECTOR", help="the checkpoint to write")
    methods = ("auto", "lstm", "matched_filter", "frames", "fusion", "event_specific")
    option(
        "--method",
        choices=methods,
        help="what is best on development data (by itself), or templates with a network (lstm) or "
        "alone, a network on the signal (frames), both (fusion)",
    )
    option(
        "--refractory-s",
        type=_per_type,
        default=2.0,
        metavar="S",
        help=f"least time between events of a type: {PER_TYPE}",
    )
    option("--seed", type=int, default=0, help="the same seed gives the same detector")
    option(
        "--labels-per-type",
        type=int,
        metavar="K",
        help="keep K labels of each type; the rest of the signal is unlabelled",
    )
    yes_no = argparse.BooleanOptionalAction
    option(
        "--self-train",
        action=yes_no,
        help="learn templates further from unlabelled signal; by itself, but for matched_filter",
    )
    option(
        "--unlabelled",
        nargs="+",
        action="extend",
        default=[],
        metavar="RECORDING",
        help="further recordings without labels",
    )
    option(
        "--pretrain",
        metavar="WHAT",
        help="discovery, autoencoder, variational, contrastive, masked, or an ENCODER of evlib pretrain",
    )
    option(
        "--freeze-encoder", action="store_true", default=False, help="train only what stands on the pretrained encoder"
    )
    option(
        "--template-ms",
        type=float,
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="reach of templates; found from the data",
    )
    option("--shrink", action=yes_no, default=True, help="Wiener shrinkage of the averaged snippets")
    option(
        "--tolerance-ms", type=float, help="how far a detection may be from a development label; found from the data"
    )
    option("--hidden-size", type=int, help="width of the network that the method is named for (lstm 64, frames 48)")
    option("--max-epochs", type=int, help="most passes of its training (lstm 12, frames 20)")
    add_rate(option)
    add_quiet(option)

    option = add("pretrain", _pretrain, "Pretrain an encoder on recordings without labels, for evlib fit --pretrain.")
    option("recordings", nargs="+", metavar="RECORDING")
    option(
        "-o", "--output", type=Path, required=True, metavar="ENCODER", help="the file to write: weights and a metadata"
    )
    option(
        "--pretext",
        choices=("autoencoder", "variational", "contrastive", "masked"),
        default="contrastive",
        help="what it learns from",
    )
    option("--seed", type=int, default=0, help="the same seed gives the same encoder")
    option("--hidden-size", type=int, default=48, help="features of a frame in each half of the encoder")
    option("--window-ms", type=float, help="length of a window (default: 4000, less where recordings are short)")
    option("--n-windows", type=int, default=2048, help="windows in a pass")
    option("--max-epochs", type=int, default=20, help="most passes")
    option("--save-dir", type=Path, metavar="FOLDER", help="keep a checkpoint of every pass here")
    option("--resume", action="store_true", default=False, help="go on from the latest checkpoint in --save-dir")
    option("--log-dir", type=Path, metavar="FOLDER", help="keep TensorBoard's logs here")
    add_rate(option)
    add_quiet(option)

    option = add("discover", _discover, "Find the kinds of events that recur in a recording, without labels.")
    option("recording", metavar="RECORDING")
    option("-o", "--output", type=Path, required=True, metavar="EVENTS", help="the event table to write")
    option("--n-types", type=int, metavar="K", help="keep the K most frequent kinds; all that recur without it")
    option("--refractory-s", type=float, default=2.0, metavar="S", help="least time between events of a kind")
    option("--event-ms", type=float, default=40.0, help="about how long an event is")
    option("--seed", type=int, default=0, help="which moments are compared when there are very many")
    add_rate(option)
    add_quiet(option)

    option = add("detect", _detect, "Find events in a recording.")
    option("detector", metavar="DETECTOR", help="checkpoint from evlib fit")
    option("recording", metavar="RECORDING")
    option("-o", "--output", type=Path, metavar="EVENTS", help="the event table to write; standard output without it")
    option("--threshold", type=_per_type, metavar="P", help=f"probability to keep an event, not as fitted: {PER_TYPE}")
    option("--block-s", type=float, default=60.0, help="seconds of signal in memory at a time; changes no result")
    option("--resample", action="store_true", default=False, help="bring the recording to the detector's rate")
    add_rate(option)
    add_quiet(option)

    option = add("score", _score, "Compare estimated events with reference events.")
    option("reference", metavar="REF")
    option("estimated", metavar="EST")
    option("--tolerance-ms", type=float, default=5.0, help="how far a hit may be from its reference event")
    option("--refractory-s", type=_per_type, metavar="S", help=f"count events closer than this: {PER_TYPE}")
    option("--duration-s", type=float, help="length of the recording, for false alarms per hour")
    option("--json", action="store_true", default=False, help="print the whole report as one JSON object")

    option = add(
        "validate", _validate, "Say what is wrong with a recording, and with its events; exit code 1 on errors."
    )
    option("recording", metavar="RECORDING")
    option("events", metavar="EVENTS", nargs="?")
    option("--names", nargs="+", metavar="NAME", help="the event names that are known")
    option("--refractory-s", type=_per_type, metavar="S", help=f"warn of events closer than this: {PER_TYPE}")
    option("--n-channels", type=int, help="how many channels there should be")
    add_rate(option)

    option = add("simulate", _simulate, "Write a synthetic recording.npz and its true events.tsv.")
    option("-o", "--output", type=Path, required=True, metavar="FOLDER")
    option("--duration-s", type=float, default=60.0, help="length of the recording")
    option("--snr", type=float, default=12.0, help="mean matched-filter output of an event over its noise")
    option("--schedule", choices=("rounds", "poisson"), default="rounds", help="types in turn, or each on its own")
    option("--seed", type=int, default=0, help="of the recording")
    option(
        "--variation",
        type=float,
        default=0.0,
        help="how much the events of a kind differ; 1: mean templates are a poor tool",
    )
    option(
        "--session", type=int, default=0, help="recordings of one session share what is peculiar to it, if events vary"
    )
    option(
        "--templates-seed", type=int, default=0, help="of the events' shapes: keep it for recordings of the same events"
    )

    commands.add_parser(
        "run", help="Execute notebooks into build/ and print their results (evlib run --help).", add_help=False
    )
    return parser


PER_TYPE = "a number, or NAME=NUMBER,NAME=NUMBER"


def _per_type(text):
    """A number, or a dict by event name.

    >>> _per_type("2"), _per_type("step=0.25,default=2")
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


def _fit(options):
    from .detection.fit import fit
    from .signals.events import read_events
    from .signals.files import read_recording

    if len(options.files) % 2:
        raise OptionError(f"fit takes recordings, each followed by its event table; got {len(options.files)} files")
    if options.output.is_dir():
        raise OptionError(f"the detector is one file, but -o {options.output} is a folder")
    pairs = [
        (read_recording(recording, options.sampling_rate_hz), read_events(events))
        for recording, events in zip(options.files[::2], options.files[1::2], strict=True)
    ]
    detector = fit(
        pairs,
        options.method,
        refractory_s=options.refractory_s,
        seed=options.seed,
        labels_per_type=options.labels_per_type,
        self_train=options.self_train,
        unlabelled=[read_recording(path, options.sampling_rate_hz) for path in options.unlabelled],
        pretrain=options.pretrain,
        freeze_encoder=options.freeze_encoder,
        template_s=None if options.template_ms is None else tuple(ms / 1e3 for ms in options.template_ms),
        shrink=options.shrink,
        tolerance_s=None if options.tolerance_ms is None else options.tolerance_ms / 1e3,
        hidden_size=options.hidden_size,
        max_epochs=options.max_epochs,
        progress=not options.quiet,
    )
    detector.save(options.output)
    print(detector)


def _pretrain(options):
    from .detection.pretrain import pretrain
    from .signals.files import read_recording

    made = pretrain(
        [read_recording(path, options.sampling_rate_hz) for path in options.recordings],
        options.pretext,
        seed=options.seed,
        hidden_size=options.hidden_size,
        window_s=None if options.window_ms is None else options.window_ms / 1e3,
        n_windows=options.n_windows,
        max_epochs=options.max_epochs,
        progress=not options.quiet,
        log_dir=options.log_dir,
        save_dir=options.save_dir,
        resume=options.resume,
    )
    made.save(options.output)
    print(made)


def _discover(options):
    from .signals.events import write_events
    from .signals.files import read_recording
    from .templates.discover import discover

    found = discover(
        [read_recording(options.recording, options.sampling_rate_hz)],
        options.n_types,
        options.refractory_s,
        options.event_ms / 1e3,
        options.seed,
        progress=not options.quiet,
    )
    write_events(found.events[0], options.output)
    print(found)


def _detect(options):
    from .detection.detector import detect, load_detector
    from .signals.events import write_events
    from .signals.files import read_recording

    detector = load_detector(options.detector)
    recording = read_recording(options.recording, options.sampling_rate_hz)
    if options.resample:
        recording = recording.resample(detector.sampling_rate_hz)
    events = detect(detector, recording, options.threshold, options.block_s, progress=not options.quiet)
    if options.output is not None:
        write_events(events, options.output)
        print(events)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_events(events, Path(folder, "events.tsv"))
        sys.stdout.write(Path(folder, "events.tsv").read_text(encoding="utf-8"))


def _score(options):
    from .scoring.comparison import compare
    from .signals.events import read_events

    report = compare(
        read_events(options.reference),
        read_events(options.estimated),
        options.tolerance_ms / 1e3,
        options.refractory_s,
        options.duration_s,
    )
    print(json.dumps(report.summary(), indent=2, allow_nan=False) if options.json else report)


def _validate(options):
    from .signals.events import read_events
    from .signals.files import read_recording
    from .signals.validate import validate

    report = validate(
        read_recording(options.recording, options.sampling_rate_hz),
        None if options.events is None else read_events(options.events),
        names=options.names,
        refractory_s=options.refractory_s,
        n_channels=options.n_channels,
    )
    print(report)
    return 0 if report.ok else 1


def _simulate(options):
    from .signals.events import write_events
    from .signals.files import write_recording
    from .signals.synthetic import make_recording, make_templates

    templates = make_templates(seed=options.templates_seed)
    variation = {"variation": options.variation, "session": options.session}
    recording, events = make_recording(
        templates, options.duration_s, options.snr, options.schedule, options.seed, **variation
    )
    write_recording(recording, options.output / "recording.npz")
    write_events(events, options.output / "events.tsv")
    print(recording)
    print(events)


if __name__ == "__main__":
    sys.exit(main())
