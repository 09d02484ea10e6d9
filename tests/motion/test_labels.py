"""Labels that mean the same, and phrases for them."""

import pytest

from evlib.motion.labels import LABEL_GROUPS, group_codes, label_group, map_labels, paraphrases, plain_label
from evlib.signals.errors import DataError


def test_every_label_is_in_one_group_only():
    labels = [label for group in LABEL_GROUPS.values() for label in group]
    assert len(labels) == len(set(labels)) and all(label == plain_label(label) for label in labels)
    assert all(group == members[0] for group, members in LABEL_GROUPS.items())


def test_groups_join_synonyms_and_nothing_else():
    assert label_group("LAYING") == label_group("lying") == "lying"
    assert label_group("Walking_Upstairs") == label_group("ascending stairs") != label_group("walking downstairs")
    codes = group_codes(["walk", "walking", "sit", "yodelling", "Yodelling"])
    assert codes[0] == codes[1] and codes[3] == codes[4] and len(set(codes.tolist())) == 3
    assert codes.tolist() == group_codes(["walk", "walking", "sit", "yodelling", "Yodelling"]).tolist()
    for wrong in ("", "  ", "--", 3, None):
        with pytest.raises(DataError, match="a label must be words"):
            plain_label(wrong)


def test_a_label_stands_for_a_target_only_where_there_is_no_doubt():
    assert map_labels(["walk"], ["walking", "sitting"]) == ["walking"]
    assert map_labels(["stairs up"], ["upstairs", "climbing stairs"]) == [None], "two of one group: which?"
    assert map_labels(["upstairs"], ["upstairs", "climbing stairs"]) == ["upstairs"], "the same word comes first"
    assert map_labels(["swimming"], ["walking"]) == [None]


def test_paraphrases_hold_the_label_itself_and_its_synonyms():
    phrases = paraphrases("laying")
    assert "lying down" in phrases and "a person is reclining" in phrases and len(phrases) == len(set(phrases))
    assert "yodelling" in paraphrases("yodelling")
