"""A detector as an estimator of scikit-learn, for cross-validation and searches over options.

A sample is a whole recording: ``X`` is a list of `Recording`, ``y`` a list of `Events`. Recordings of one person, place
or day belong into one group, so that none is on both sides of a split (`sklearn.model_selection.GroupKFold`).
"""

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from ..scoring.comparison import compare
from ..signals.errors import DataError, OptionError, ShapeError, require
from ..signals.events import Events
from ..signals.recording import Recording
from .detector import detect
from .fit import fit

# Seconds within which an event counts as found where no tolerance was chosen, as in `evlib.compare`.
TOLERANCE_S = 0.005


class EventDetector(BaseEstimator):
    """`evlib.fit` and `evlib.detect` with the methods of scikit-learn.

    Parameters
    ----------
    threshold : probability 0 < p < 1 for all types, or a dict name -> p; default: those that the fit chooses
    tolerance_s : how far a detection may be from an event to count, in `score` (default: 5 ms) and in the fit
    adapt : templates follow slow changes, see `evlib.detect`
    others : see `evlib.fit`

    Attributes
    ----------
    detector_ : the `Detector` of the last fit

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV, GroupKFold
    >>> estimator = EventDetector("matched_filter", refractory_s=0.5)
    >>> search = GridSearchCV(estimator, {"shrink": [True, False]}, cv=GroupKFold(2))
    >>> search.estimator.get_params()["refractory_s"]  # search.fit(recordings, tables, groups=people) tries both
    0.5
    """

    def __init__(
        self,
        method=None,
        *,
        refractory_s=2.0,
        seed=0,
        labels_per_type=None,
        self_train=None,
        pretrain=None,
        freeze_encoder=False,
        template_s=None,
        shrink=True,
        tolerance_s=None,
        hidden_size=None,
        max_epochs=None,
        match_channels="name",
        threshold=None,
        adapt=False,
    ):
        self.method = method
        self.refractory_s = refractory_s
        self.seed = seed
        self.labels_per_type = labels_per_type
        self.self_train = self_train
        self.pretrain = pretrain
        self.freeze_encoder = freeze_encoder
        self.template_s = template_s
        self.shrink = shrink
        self.tolerance_s = tolerance_s
        self.hidden_size = hidden_size
        self.max_epochs = max_epochs
        self.match_channels = match_channels
        self.threshold = threshold
        self.adapt = adapt

    def fit(self, X, y):
        """Train a detector.

        Parameters
        ----------
        X : list of Recording
        y : list of Events, one table for each recording; None where a recording has no labels

        Raises
        ------
        as `evlib.fit`; ShapeError, OptionError : lists that do not fit
        """
        _check_lists(X, y)
        options = {
            name: value for name, value in self.get_params(deep=False).items() if name not in ("threshold", "adapt")
        }
        labelled = [(recording, events) for recording, events in zip(X, y, strict=True) if events is not None]
        unlabelled = [recording for recording, events in zip(X, y, strict=True) if events is None]
        self.detector_ = fit(labelled, unlabelled=unlabelled, progress=False, **options)
        return self

    def predict(self, X) -> list[Events]:
        """The events in each recording of a list."""
        check_is_fitted(self)
        _check_lists(X)
        options = {"threshold": self.threshold, "match_channels": self.match_channels, "adapt": self.adapt}
        return [detect(self.detector_, recording, **options) for recording in X]

    def score(self, X, y) -> float:
        """F1 of each type over all recordings together, mean of the types that occur (`Comparison.macro_f1`).

        Raises
        ------
        ShapeError, OptionError : lists that do not fit
        DataError : no event to find
        """
        import pandas as pd

        _check_lists(X, y)
        require(all(events is not None for events in y), OptionError, "a recording without labels cannot be scored")
        tolerance_s = TOLERANCE_S if self.tolerance_s is None else self.tolerance_s
        pairs = zip(y, self.predict(X), strict=True)
        tables = [compare(reference, found, tolerance_s).per_type() for reference, found in pairs]
        total = pd.concat(tables)[["tp", "n_reference", "n_estimated"]].groupby(level="type").sum()
        require(total.n_reference.sum(), DataError, "the recordings hold no event to find")
        return float((2 * total.tp / (total.n_reference + total.n_estimated)).dropna().mean())


def _check_lists(X, y=None):
    """Refuse what are no lists of recordings and tables, one for each."""
    wanted = "a list of evlib.Recording"
    fits = isinstance(X, list | tuple) and all(isinstance(one, Recording) for one in X)
    require(fits, OptionError, f"X must be {wanted} (one recording? write [recording])")
    if y is not None:
        fits = isinstance(y, list | tuple) and all(one is None or isinstance(one, Events) for one in y)
        require(fits, OptionError, "y must be a list of evlib.Events")
        require(len(X) == len(y), ShapeError, f"one table for each recording, got {len(X)} and {len(y)}")
