"""The contrastive pretext model: two views of one window shall lie close together, views of different windows apart."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..encoders import LSTMEncoder
from ..errors import OptionError
from ..options import check_whole
from ..transfer import transfer_encoder


class ContrastiveOutput(NamedTuple):
    """Projections z (batch, projection_size) of length 1, and mean states h (batch, features), of both views."""

    z1: torch.Tensor
    h1: torch.Tensor
    z2: torch.Tensor
    h2: torch.Tensor


class ContrastiveLSTM(nn.Module):
    """The classifier's encoder, a mean over the frames and a small projection, for `evlib.losses.nt_xent`.

    The projection is thrown away after training: `transfer_encoder_to_classifier` hands the encoder on.

    After the contrastive model of https://github.com/gfr10598/lstm (SimCLR, https://arxiv.org/abs/2002.05709).
    Differences: the LSTM runs on frames of ``timing_resolution_samples`` (1 gives the original's form and its 616,768
    parameters); padding is masked; a transfer that does not fit is refused.

    Parameters
    ----------
    input_size : channels
    hidden_size : LSTM units in each direction
    num_layers : LSTM layers
    projection_size : numbers in which two views are compared
    temperature : of the softmax over similarities; `ContrastiveTrainer` passes it to the loss
    dropout : probability, between the LSTM layers
    bidirectional : read in both directions
    timing_resolution_samples : samples in a frame

    Raises
    ------
    OptionError : a size below 1, a dropout outside [0, 1), a temperature that is not positive

    Examples
    --------
    >>> model = ContrastiveLSTM(hidden_size=8, projection_size=4)
    >>> z1, h1, z2, h2 = model(torch.zeros(3, 200, 6), torch.ones(3, 180, 6))
    >>> z1.shape, h2.shape
    (torch.Size([3, 4]), torch.Size([3, 16]))
    """

    def __init__(
        self,
        input_size=6,
        hidden_size=128,
        num_layers=2,
        projection_size=64,
        temperature=0.07,
        dropout=0.3,
        bidirectional=True,
        timing_resolution_samples=10,
    ):
        super().__init__()
        self.encoder = LSTMEncoder(input_size, hidden_size, num_layers, dropout, bidirectional, timing_resolution_samples)
        check_whole(1, projection_size=projection_size)
        if not temperature > 0:
            raise OptionError(f"temperature must be positive, got {temperature!r}")
        # Python's own numbers, so that a checkpoint holds nothing else.
        self.config = {
            "input_size": int(input_size),
            "hidden_size": int(hidden_size),
            "num_layers": int(num_layers),
            "projection_size": int(projection_size),
            "temperature": float(temperature),
            "dropout": float(dropout),
            "bidirectional": bool(bidirectional),
            "timing_resolution_samples": int(timing_resolution_samples),
        }
        self.input_size, self.temperature = int(input_size), float(temperature)
        self.timing_resolution_samples = int(timing_resolution_samples)
        features = self.encoder.output_size
        self.projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, projection_size))

    def forward(self, x1, x2, lengths1=None, lengths2=None):
        """Embed two views of the same windows.

        Parameters
        ----------
        x1, x2 : (batch, time, channels) float tensors; the views may differ in time
        lengths1, lengths2 : (batch,) samples in each sequence, None when nothing is padded

        Returns
        -------
        ContrastiveOutput : z1, h1, z2, h2

        Raises
        ------
        ShapeError, DataError : as in `evlib.encoders.check_batch`
        """
        h1, h2 = self.get_embeddings(x1, lengths1), self.get_embeddings(x2, lengths2)
        return ContrastiveOutput(F.normalize(self.projection(h1), dim=1), h1, F.normalize(self.projection(h2), dim=1), h2)

    def get_embeddings(self, x, lengths=None):
        """(batch, features): the mean state of each sequence, in the model's present mode."""
        return self.encoder.pooled(x, lengths)

    def get_encoder_weights(self):
        """A copy of the encoder's weights, by name."""
        return {name: weight.detach().clone() for name, weight in self.encoder.state_dict().items()}

    def transfer_encoder_to_classifier(self, classifier):
        """Hand the encoder's weights on, see `evlib.transfer.transfer_encoder`."""
        return transfer_encoder(self, classifier)
