"""Activities in words: which labels mean the same, and how one label can be phrased.

Data sets name activities differently. Labels of one *group* are synonyms: either is right where the other is, and no
contrast is drawn between them. A label that is in no group is a group of its own.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from ..signals.errors import DataError

# Groups of synonyms in lower case, one a line; the first label is the name of the group.
SYNONYMS = """
walking, walk, walking forward, strolling
walking upstairs, upstairs, stairs up, going up stairs, ascending stairs, climbing stairs
walking downstairs, downstairs, stairs down, going down stairs, descending stairs
stairs, walking on stairs, taking the stairs
sitting, sit, sitting down still, being seated
standing, stand, standing still, being upright without moving
lying, laying, lie, lying down, reclining
running, run
jogging, jog, slow running
cycling, bicycling, biking, riding a bicycle
nordic walking, walking with poles
jumping, jump, jump front and back, jumping up
rope jumping, skipping rope
rowing, using a rowing machine
sit to stand, standing up from sitting, getting up from a chair
stand to sit, sitting down, taking a seat
sit to lie, lying down from sitting
lie to sit, sitting up from lying
stand to lie, lying down from standing
lie to stand, standing up from lying
falling, fall, falling forward, falling backward, falling left, falling right
watching television, watching tv
computer work, working at a computer
typing, typing on a keyboard
writing, writing by hand
driving, driving a car, car driving
ironing, ironing clothes
vacuum cleaning, vacuuming
folding laundry, folding clothes
house cleaning, cleaning the house
playing soccer, soccer, playing football, kicking a ball
brushing teeth, teeth, tooth brushing
drinking, drinking from a cup
eating, eating soup, eating chips, eating pasta, eating a sandwich
catching a ball, playing catch, catch
dribbling a ball, dribbling, basketball dribbling
clapping, clapping hands
"""
# Group -> its labels.
LABEL_GROUPS = {line.split(", ")[0]: tuple(line.split(", ")) for line in SYNONYMS.strip().splitlines()}
# Sentences in which a label is phrased while a model is aligned with words.
TEMPLATES = ("{}", "a person is {}", "someone {}", "the activity of {}", "motion sensor data of a person {}")
_GROUP = {label: group for group, labels in LABEL_GROUPS.items() for label in labels}


def plain_label(label: str) -> str:
    """A label in lower case with spaces between its words.

    >>> plain_label("Walking_Upstairs "), plain_label("standUp")
    ('walking upstairs', 'stand up')
    """
    if not isinstance(label, str) or not (words := re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label))):
        raise DataError(f"a label must be words, got {label!r}")
    return " ".join(words).lower()


def label_group(label: str) -> str:
    """The group of synonyms that a label belongs to, or the label itself.

    >>> label_group("LAYING"), label_group("yodelling")
    ('lying', 'yodelling')
    """
    return _GROUP.get(plain_label(label), plain_label(label))


def group_codes(labels: Iterable[str]) -> np.ndarray:
    """(n,) integers, equal for labels of one group; a hash of the group's name, the same in every run.

    >>> codes = group_codes(["walk", "walking", "sitting"])
    >>> bool(codes[0] == codes[1]), bool(codes[0] == codes[2])
    (True, False)
    """
    hashes = [hashlib.blake2b(label_group(label).encode(), digest_size=7) for label in labels]
    return np.array([int.from_bytes(one.digest(), "big") for one in hashes], dtype=np.int64)


def paraphrases(label: str) -> list[str]:
    """All phrases for a label: its synonyms in each template.

    >>> paraphrases("yodelling")[:2]
    ['yodelling', 'a person is yodelling']
    """
    group = label_group(label)
    return [template.format(word) for template in TEMPLATES for word in LABEL_GROUPS.get(group, (group,))]


def label_words(labels: list[str], text) -> tuple:
    """The words of labels as vectors.

    Parameters
    ----------
    labels : list of str
    text : text encoder, see `evlib.motion.words`

    Returns
    -------
    phrases : list of (n, 384) tensors, all phrases for each label
    label_text : (labels, 384) tensor of the labels themselves
    group : (labels,) tensor of integers, equal for labels that mean the same
    """
    phrases = [paraphrases(label) for label in labels]
    vectors = text([phrase for some in phrases for phrase in some])
    return list(vectors.split(list(map(len, phrases)))), text(labels), torch.from_numpy(group_codes(labels))


def map_labels(labels: Iterable[str], targets: Sequence[str]) -> list[str | None]:
    """For each label the target it stands for: the same word, else the only target of its group, else None.

    >>> map_labels(["upstairs", "walk", "swimming"], ["stairs up", "going up stairs", "walking"])
    [None, 'walking', None]
    """
    plain = {plain_label(target): target for target in targets}
    groups: dict[str, list[str]] = {}
    for target in targets:
        groups.setdefault(label_group(target), []).append(target)
    # In a group with more than one target it stays open which of them is meant.
    only = {group: same[0] for group, same in groups.items() if len(same) == 1}
    return [plain.get(plain_label(label)) or only.get(label_group(label)) for label in labels]
