"""Models that come with evlib: trained on public data, as plain numbers, read from the disk and from nowhere else.

Beside each file lies its model card: what it was trained on and under which licence, what it reaches, where it fails.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .signals.errors import require_choice

# Files and cards.
FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Pretrained:
    """What a model is, in a sentence, the licence of its data, and the function that reads it."""

    about: str
    licence: str
    reader: str

    def read(self, path: Path) -> Any:
        """The model in a file."""
        module, *names = self.reader.split(":")
        found: Any = importlib.import_module(f".{module}", __package__)
        for name in names:
            found = getattr(found, name)
        return found(path)


PRETRAINED = {
    "motion": Pretrained(
        "activities of people with a phone at the waist, by the words of their labels; an encoder for other sensors",
        "UCI HAR (Anguita et al. 2013), CC BY 4.0",
        "motion.train:load_motion_model",
    ),
    "digits": Pretrained(
        "spoken digits, from log-mel frames",
        "Free Spoken Digit Dataset, CC BY-SA 4.0",
        "studies.clips:ClipClassifier:load",
    ),
}


def load_pretrained(name: str) -> Any:
    """A model that comes with evlib; nothing is downloaded.

    Parameters
    ----------
    name : "motion" (`evlib.motion.train.MotionModel`) or "digits" (`evlib.studies.clips.ClipClassifier`); `PRETRAINED`
        lists them with the licences of their data, `model_card` says more

    Raises
    ------
    OptionError : there is no such model

    Examples
    --------
    >>> from evlib.motion.windows import make_motion
    >>> model = load_pretrained("motion")
    >>> model.predict(make_motion(n_people=1, windows_per_activity=1, activities=("lying",))).tolist()
    ['laying']
    """
    require_choice(PRETRAINED, name=name)
    return PRETRAINED[name].read(FOLDER / f"{name}.safetensors")


def model_card(name: str) -> str:
    """Data, numbers and limits of a model that comes with evlib, as Markdown.

    >>> model_card("motion").splitlines()[0]
    '# motion'
    """
    require_choice(PRETRAINED, name=name)
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")
