"""Linear classifiers for few labels, and their weights as plain numbers.

As plain numbers they are saved with a network and read without running code.
"""

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

# Steps of the optimiser; few labels need far fewer.
STEPS = 3000


def linear_probe(labels) -> Pipeline:
    """A linear classifier for few labels, on features that are standardised one by one.

    Linear discriminants with a covariance shrunk as in Ledoit and Wolf (2004): with a few labels and many more
    features they use the correlations between features, which logistic regression does not. A class with one label
    has no spread, and of one with two the estimate does not shrink at all; then it is logistic regression.
    """
    if np.unique(labels, return_counts=True)[1].min() > 2:
        return make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    return logistic_regression()


def logistic_regression() -> Pipeline:
    """Logistic regression on features that are standardised one by one."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))


def linear_weights(fitted: Pipeline) -> np.ndarray:
    """(features + 1, classes) weights of a fitted scaler and linear classifier; the last row is a constant.

    >>> x, labels = np.random.default_rng(0).normal(size=(30, 2)), np.repeat(["a", "b", "c"], 10)
    >>> fitted = logistic_regression().fit(x, labels)
    >>> np.allclose(linear_logits(x, linear_weights(fitted)), fitted.decision_function(x))
    True
    """
    scaler, classifier = (part for _, part in fitted.steps)
    coef, offset = classifier.coef_, classifier.intercept_
    if len(coef) == 1:  # of two classes there is one row
        coef, offset = np.concatenate([-coef, coef]) / 2, np.concatenate([-offset, offset]) / 2
    coef = coef / scaler.scale_
    return np.concatenate([coef, (offset - coef @ scaler.mean_)[:, None]], axis=1).T


def linear_logits(features, weights) -> np.ndarray:
    """(n, classes) logits of features (n, features), see `linear_weights`."""
    return features @ weights[:-1] + weights[-1]
