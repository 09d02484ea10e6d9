"""Figures of templates: what a model has learned of each type, channel by channel."""

import numpy as np

from .errors import OptionError
from .plots import plot_templates


def visualize_learned_templates(model, save_path=None, sampling_rate_hz=2000.0, names=None, channels=None):
    """The templates of a model with their delays, one panel per type, the channels stacked.

    Parameters
    ----------
    model : EventSpecificClassifier or EventTemplateBank
    save_path : write a picture there; its ending says of what kind
    sampling_rate_hz : of the signal that the model was made for
    names, channels : labels; default: type 0, 1, ... and F0, F1, ...

    Returns
    -------
    matplotlib figure

    Raises
    ------
    OptionError : a model without templates

    Examples
    --------
    >>> import evlib
    >>> figure = visualize_learned_templates(evlib.EventTemplateBank(num_events=2, num_features=3))
    >>> len([ax for ax in figure.axes if ax.get_visible()])
    2
    """
    bank = getattr(model, "template_bank", model)
    if not hasattr(bank, "apply_delays"):
        raise OptionError(f"a {type(model).__name__} has no templates: give an EventSpecificClassifier or an EventTemplateBank")
    templates = bank.apply_delays().detach().cpu().numpy()
    channels = channels or [f"F{c}" for c in range(bank.num_features)]
    start_s = -(bank.max_delay_samples + bank.before) / sampling_rate_hz
    axes = plot_templates(templates, sampling_rate_hz, names, channels=channels, start_s=start_s)
    figure = np.atleast_1d(axes)[0].figure
    if save_path is not None:
        figure.savefig(save_path, dpi=120)
    return figure
