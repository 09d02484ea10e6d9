"""How fast are `fit` and `detect`, beside something else that runs on the same machine in the same minutes?

    python tools/benchmark.py                     # beside a simpler method: one hour of signal, an LSTM on every sample
    python tools/benchmark.py --against ../other  # beside another checkout of evlib

Every measurement is a process of its own, so that its peak memory is its own, and the two of a pair take turns: other
programs slow both down alike. The ratio is what to look at. Times of `fit` are those of the processor, one thread.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
RATE = 2000


def measure_fit(method, folder, seconds):
    """Processor seconds of a fit on a simulated recording; keeps the detector."""
    import evlib

    recording, events = evlib.make_recording(duration_s=seconds, snr=6.0, seed=1000)
    start = time.process_time()
    detector = evlib.fit([(recording, events)], method, labels_per_type=20, refractory_s=2.0, progress=False)
    spent = time.process_time() - start
    detector.save(folder / f"{method}.ckpt")
    return spent


def measure_detect(method, folder, seconds):
    """Seconds to detect in a long recording: a minute of simulation, over and over."""
    import numpy as np

    import evlib

    detector = evlib.load_detector(folder / f"{method}.ckpt")
    minute = evlib.make_recording(duration_s=60.0, snr=6.0, seed=2000).recording.read()
    recording = evlib.Recording(np.resize(minute, (int(seconds * RATE), minute.shape[1])), RATE)
    start = time.perf_counter()
    evlib.detect(detector, recording)
    return time.perf_counter() - start


def measure_every_sample(method, folder, seconds):
    """Seconds of the window classifier whose LSTM runs on every sample; timed on ten seconds of signal."""
    import torch

    import evlib

    model = evlib.LSTMEventClassifier(hidden_size=128, timing_resolution_samples=1).eval()
    windows = torch.randn(10, RATE, 6)
    start = time.perf_counter()
    with torch.inference_mode():
        model(windows)
    return (time.perf_counter() - start) * seconds / 10


MEASURES = {"fit": measure_fit, "detect": measure_detect, "every sample": measure_every_sample}


def run(checkout, name, method, folder, seconds):
    """Seconds and peak memory (MB) of one measurement, in a process that imports evlib from ``checkout``."""
    command = [sys.executable, __file__, "--measure", name, method, str(folder), str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} of {checkout} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(label, one, other, repeats):
    """Run two measurements in turns and print their medians and ratio."""
    pairs = [(run(*one), run(*other)) for _ in range(repeats)]
    (a, a_mb), (b, b_mb) = ([median(values) for values in zip(*runs, strict=True)] for runs in zip(*pairs, strict=True))
    print(f"{label}: {a:.2f} s, {a_mb:.0f} MB against {b:.2f} s, {b_mb:.0f} MB; ratio {b / a:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of evlib")
    parser.add_argument("--signal-s", type=float, default=3600.0, help="seconds of signal to detect in")
    parser.add_argument("--fit-s", type=float, default=300.0, help="seconds of signal to fit on")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of each measurement; medians are printed")
    parser.add_argument("--methods", nargs="+", default=["matched_filter", "lstm"], metavar="METHOD")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, method, folder, seconds = options.measure
        spent = MEASURES[name](method, Path(folder), float(seconds))
        # Of this process alone; getrusage would count what its parent held.
        status = Path("/proc/self/status")
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1e3 if status.exists() else float("nan")
        print(json.dumps([spent, peak]))
        return
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as others:
        if options.against:
            for method in options.methods:
                for name, seconds in (("fit", options.fit_s), ("detect", options.signal_s)):
                    one = ROOT, name, method, own, seconds
                    other = options.against.resolve(), name, method, others, seconds
                    compare(f"{name}, {method}, here against there", one, other, options.repeats)
            return
        simple, *more = options.methods
        if not more:
            run(ROOT, "fit", simple, own, options.fit_s)  # a detector for what follows
        for method in more:
            one, other = ((ROOT, "fit", name, own, options.fit_s) for name in (method, simple))
            compare(f"fit, {method} against {simple}", one, other, options.repeats)
        one, other = ((ROOT, name, options.methods[-1], own, options.signal_s) for name in ("detect", "every sample"))
        compare(f"detect, {options.methods[-1]} against an LSTM on every sample", one, other, options.repeats)


if __name__ == "__main__":
    main()
