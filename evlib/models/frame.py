"""The frame network: which event begins in which frame of a continuous signal, learned from the signal itself."""

import torch
from torch import nn

from ..errors import OptionError
from ..frame_encoder import FrameEncoder
from ..options import check_whole

# A type is rare in a frame: log odds that the untrained network begins with.
RARE = -4.0


class FrameNetwork(nn.Module):
    """Logits and offsets of every type in every frame: (batch, time, channels) -> two tensors (batch, frames, num_events).

    The offset is how far the beginning of the event lies behind the middle of the frame, in frames.

    Parameters
    ----------
    input_size, hidden_size, resolution : of its `FrameEncoder`
    num_events : types
    dropout : in front of the last layer

    Raises
    ------
    OptionError : sizes below 1, a dropout outside of [0, 1)

    Examples
    --------
    >>> network = FrameNetwork(6, num_events=16, hidden_size=8)
    >>> [tuple(part.shape) for part in network(torch.zeros(2, 205, 6))]
    [(2, 21, 16), (2, 21, 16)]
    """

    def __init__(self, input_size, num_events, hidden_size=48, resolution=10, dropout=0.1):
        super().__init__()
        check_whole(1, num_events=num_events)
        if not 0 <= dropout < 1:
            raise OptionError(f"dropout must lie in [0, 1), got {dropout!r}")
        self.encoder = FrameEncoder(input_size, hidden_size, resolution)
        self.config = self.encoder.config | {"num_events": int(num_events), "dropout": float(dropout)}
        self.num_events, self.resolution = int(num_events), int(resolution)
        self.body = nn.Sequential(nn.Conv1d(self.encoder.output_size, hidden_size, 3, padding=1), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Conv1d(hidden_size, 2 * num_events, 1)
        with torch.no_grad():
            self.head.bias[:num_events] = RARE
            self.head.bias[num_events:] = 0.0

    def forward(self, x, lengths=None):
        out = self.head(self.body(self.encoder(x, lengths).transpose(1, 2))).transpose(1, 2)
        return out[..., : self.num_events], out[..., self.num_events :]
