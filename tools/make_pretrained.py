"""Train the models that come with evlib, measure them, and write their files and cards: `evlib/weights/`.

    EVLIB_DATA_HOME=... python tools/make_pretrained.py [motion] [digits]

Needs the folders har_uci_subset and audio_fsdd_mel of EVLIB_DATA_HOME; a quarter of an hour on one core.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from evlib.motion.classify import fit_classifier
from evlib.motion.evaluate import class_scores
from evlib.motion.train import fit_motion
from evlib.motion.windows import make_motion
from evlib.motion.words import HASHED, text_encoder
from evlib.pretrained import FOLDER, PRETRAINED
from evlib.scoring.statistics import bootstrap_interval, draw_rows
from evlib.studies.clips import MODEL_FILE, fit_clip_classifier
from evlib.training.checkpoints import load, write_safetensors
from evlib.training.windows import Windows

HOME = Path(os.environ["EVLIB_DATA_HOME"])
CARD = """# {name}

{about}. Comes with evlib: `evlib.load_pretrained("{name}")`, offline, {size:.1f} MB.

**Data.** {data}

**Licence of the data.** {licence}. The weights were made by `tools/make_pretrained.py` of evlib.

**Numbers.** {numbers}

**Limits.** {limits}
"""


def har(part):
    """Windows of UCI HAR, accelerometer and gyroscope of a phone at the waist; `part` is train or test."""
    phone = make_motion("phone", 1, 1)
    with np.load(HOME / "har_uci_subset" / "har_uci_subset.npz") as file:
        labels = file["label_text"].astype(str)[file[f"y_{part}"].astype(int) - 1]
        x = file[f"x_{part}"][..., :6].astype(np.float32)
    units = ("g",) * 3 + ("rad/s",) * 3
    return Windows("uci_har", x, 50.0, phone.channels, phone.descriptions, labels, units=units)


def motion():
    """Both stages on the training people, judged on the others."""
    train, test = har("train"), har("test")
    model = fit_motion(train, size="nano", text=text_encoder(HASHED))
    names = sorted(set(test.labels))

    def f1(some, predicted):
        return class_scores(some.labels, predicted, names)["macro_f1"]

    scores = {f"{hz:g} Hz": f1(test, model.predict(test.resample(hz))) for hz in (50.0, 25.0, 10.0)}
    hit = model.predict(test) == test.labels
    low, high = bootstrap_interval(hit)
    half = np.arange(len(test)) % 2 == 0
    few = []
    for seed in range(5):
        rows = np.flatnonzero(half)[draw_rows(test.labels[half], 5, np.random.default_rng(seed))]
        turned = test.with_channels(test.channels[:3])
        classifier = fit_classifier(model, turned[rows])
        few.append(f1(test[~half], classifier.predict(turned[~half])))
    numbers = (
        f"950 windows of people who were not in training: accuracy {hit.mean():.3f} (95 % interval {low:.3f} to "
        f"{high:.3f}), macro F1 " + ", ".join(f"{value:.3f} at {name}" for name, value in scores.items()) + ". With "
        f"`fit_classifier` on the accelerometer alone and five labels of each activity: macro F1 {np.mean(few):.3f} "
        "(mean of five draws)."
    )
    limits = (
        "Six activities, one place on the body, one way to wear it: turned or elsewhere, words fail and a few labels "
        "are wanted (`fit_classifier`). Without gravity postures cannot be told apart. Words are hashed: it knows the "
        "names of its six labels, and not what other names mean."
    )
    data = (
        "2,400 windows of 2.56 s of UCI HAR (Anguita et al. 2013): a phone at the waist, accelerometer and gyroscope "
        "at 50 Hz; walking, walking upstairs and downstairs, sitting, standing, laying."
    )
    return model.save, {"data": data, "numbers": numbers, "limits": limits}


def digits():
    """Four of five folds of takes; the fifth is judged."""
    with np.load(HOME / "audio_fsdd_mel" / "audio_fsdd_mel.npz") as file:
        frames, offset = file["frames"].astype(np.float32), file["offset"]
        digit, fold, speaker = file["label"].astype(str), file["fold"], file["speaker"]
    clips = [frames[start:stop] for start, stop in zip(offset[:-1], offset[1:], strict=True)]
    rows = [np.flatnonzero(part) for part in (fold < 4, fold == 4, fold == 5)]
    parts = [([clips[k] for k in some], digit[some]) for some in rows]
    options = {"hidden_size": 128, "lr": 1e-3, "batch_size": 32, "plateau_epochs": 2, "n_sorted": 4, "patience": 5}
    classifier = fit_clip_classifier(*parts[0], validation=parts[1], **options)
    hit = classifier.predict(parts[2][0]) == parts[2][1]
    low, high = bootstrap_interval(hit, speaker[rows[2]])
    numbers = (
        f"360 other takes of the same six speakers: accuracy {hit.mean():.3f} (95 % interval over speakers {low:.3f} "
        f"to {high:.3f}). Of speakers who were left out the same method recognises two digits in three."
    )
    data = (
        "1,440 clips of ten English digits by six speakers, Free Spoken Digit Dataset, takes 0 to 29 but every fifth. "
        "Frames: 8 kHz, transforms of 256 samples every 96 samples (12 ms), 40 mel bands (HTK) of equal area from 20 "
        "to 4000 Hz, natural logarithm of the power + 1e-10."
    )
    limits = (
        "It reads frames made in just that way, and no files. Six voices are too few to know a stranger's: train on "
        "your own speakers (`fit_clip_classifier(..., groups=speakers)`)."
    )
    return lambda path: classifier.save(path.parent, seed=0), {"data": data, "numbers": numbers, "limits": limits}


for name in sys.argv[1:] or PRETRAINED:
    save, words = {"motion": motion, "digits": digits}[name]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        save(path)
        target = FOLDER / f"{name}.safetensors"
        target.parent.mkdir(exist_ok=True)
        write_safetensors(load(path), target)
    about, licence = PRETRAINED[name].about, PRETRAINED[name].licence
    words |= {
        "name": name,
        "about": about[0].upper() + about[1:],
        "licence": licence,
        "size": target.stat().st_size / 1e6,
    }
    (FOLDER / f"{name}.md").write_text(CARD.format(**words), encoding="utf-8")
    print(CARD.format(**words))
