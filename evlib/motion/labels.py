"""Activities in words: which labels mean the same, and in which ways one can be said.

Data sets name activities differently. Labels of one *group* are synonyms: none is wrong where another stands, and a
contrast between them would teach nonsense. A label that is in no group is a group of its own.
"""

import hashlib
import re

import numpy as np

from ..signals.errors import DataError

# Group -> its labels; the first is the one that is shown. Labels are compared in lower case, with spaces.
LABEL_GROUPS = {
    "walking": ("walking", "walk", "walking forward", "strolling"),
    "walking upstairs": (
        "walking upstairs",
        "upstairs",
        "stairs up",
        "going up stairs",
        "ascending stairs",
        "climbing stairs",
    ),
    "walking downstairs": ("walking downstairs", "downstairs", "stairs down", "going down stairs", "descending stairs"),
    "stairs": ("stairs", "walking on stairs", "taking the stairs"),
    "sitting": ("sitting", "sit", "sitting down still", "being seated"),
    "standing": ("standing", "stand", "standing still", "being upright without moving"),
    "lying": ("lying", "laying", "lie", "lying down", "reclining"),
    "running": ("running", "run"),
    "jogging": ("jogging", "jog", "slow running"),
    "cycling": ("cycling", "bicycling", "biking", "riding a bicycle"),
    "nordic walking": ("nordic walking", "walking with poles"),
    "jumping": ("jumping", "jump", "jump front and back", "jumping up"),
    "rope jumping": ("rope jumping", "skipping rope"),
    "rowing": ("rowing", "using a rowing machine"),
    "sit to stand": ("sit to stand", "standing up from sitting", "getting up from a chair"),
    "stand to sit": ("stand to sit", "sitting down", "taking a seat"),
    "sit to lie": ("sit to lie", "lying down from sitting"),
    "lie to sit": ("lie to sit", "sitting up from lying"),
    "stand to lie": ("stand to lie", "lying down from standing"),
    "lie to stand": ("lie to stand", "standing up from lying"),
    "falling": ("falling", "fall", "falling forward", "falling backward", "falling left", "falling right"),
    "watching television": ("watching television", "watching tv"),
    "computer work": ("computer work", "working at a computer"),
    "typing": ("typing", "typing on a keyboard"),
    "writing": ("writing", "writing by hand"),
    "driving": ("driving", "driving a car", "car driving"),
    "ironing": ("ironing", "ironing clothes"),
    "vacuum cleaning": ("vacuum cleaning", "vacuuming"),
    "folding laundry": ("folding laundry", "folding clothes"),
    "house cleaning": ("house cleaning", "cleaning the house"),
    "playing soccer": ("playing soccer", "soccer", "playing football", "kicking a ball"),
    "brushing teeth": ("brushing teeth", "teeth", "tooth brushing"),
    "drinking": ("drinking", "drinking from a cup"),
    "eating": ("eating", "eating soup", "eating chips", "eating pasta", "eating a sandwich"),
    "catching a ball": ("catching a ball", "playing catch", "catch"),
    "dribbling a ball": ("dribbling a ball", "dribbling", "basketball dribbling"),
    "clapping": ("clapping", "clapping hands"),
}
TEMPLATES = ("{}", "a person is {}", "someone {}", "the activity of {}", "motion sensor data of a person {}")
_GROUP = {label: group for group, labels in LABEL_GROUPS.items() for label in labels}


def plain_label(label):
    """A label in lower case, words apart.

    >>> plain_label("Walking_Upstairs "), plain_label("standUp")
    ('walking upstairs', 'stand up')
    """
    if not isinstance(label, str) or not (words := re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label))):
        raise DataError(f"a label must be words, got {label!r}")
    return " ".join(words).lower()


def label_group(label):
    """The group of synonyms that a label belongs to, or itself.

    >>> label_group("LAYING"), label_group("yodelling")
    ('lying', 'yodelling')
    """
    return _GROUP.get(plain_label(label), plain_label(label))


def group_codes(labels):
    """(n,) numbers, equal for labels of one group; a hash of the group, the same in every run.

    >>> codes = group_codes(["walk", "walking", "sitting"])
    >>> bool(codes[0] == codes[1]), bool(codes[0] == codes[2])
    (True, False)
    """

    def code(group):
        return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=7).digest(), "big")

    return np.array([code(label_group(label)) for label in labels], dtype=np.int64)


def paraphrases(label):
    """All texts that stand for a label: its synonyms in each template.

    >>> paraphrases("yodelling")[:2]
    ['yodelling', 'a person is yodelling']
    """
    label = plain_label(label)
    synonyms = LABEL_GROUPS.get(_GROUP.get(label), (label,))
    return [template.format(word) for template in TEMPLATES for word in synonyms]


def label_words(labels, text):
    """The words of labels as vectors.

    Parameters
    ----------
    labels : list of str
    text : text encoder

    Returns
    -------
    ways : list of (n, 384) tensors, every way to say a label
    label_text : (labels, 384) tensor of the labels themselves
    group : (labels,) tensor of numbers, equal for labels that mean the same
    """
    import torch

    ways = [paraphrases(label) for label in labels]
    vectors = text([way for some in ways for way in some])
    return list(vectors.split([len(some) for some in ways])), text(labels), torch.from_numpy(group_codes(labels))


def map_labels(labels, targets):
    """For each label the target it stands for: the same word, else the only target of its group, else None.

    >>> map_labels(["upstairs", "walk", "swimming"], ["stairs up", "going up stairs", "walking"])
    [None, 'walking', None]
    """
    plain = {plain_label(target): target for target in targets}
    groups = {}
    for target in targets:
        groups.setdefault(label_group(target), []).append(target)
    found = []
    for label in labels:
        same = groups.get(label_group(label), [])
        found.append(plain.get(plain_label(label)) or (same[0] if len(same) == 1 else None))
    return found
