"""Results of a study over few labels (notebook 04): means with their intervals, and methods compared in pairs.

A table of results has a row for each signal-to-noise ratio (``snr``, 0 where it is not known), ``seed``,
``labels_per_type`` (0: all) and ``method``, with the column that is judged: ``f1``, say.
"""

import numpy as np

from ..scoring.statistics import bootstrap_interval


def summarise(table, value="f1"):
    """Mean over seeds with its 95 % bootstrap interval, for each ratio, budget and method.

    Returns a pandas table with the columns snr, labels_per_type, method, mean, low, high, n; a missing value (no event
    found, so no timing error either) is left out and not counted in n.
    """
    import pandas as pd

    rows = []
    for (snr, budget, method), part in table.groupby(["snr", "labels_per_type", "method"], sort=False):
        values = part[value].dropna().to_numpy(float)
        low, high = bootstrap_interval(values) if len(values) else (np.nan, np.nan)
        rows.append((snr, budget, method, values.mean() if len(values) else np.nan, low, high, len(values)))
    return pd.DataFrame(rows, columns=["snr", "labels_per_type", "method", "mean", "low", "high", "n"])


def paired_differences(table, pairs, value="f1"):
    """Mean difference of two methods on the same recordings and labels, with its 95 % bootstrap interval.

    ``pairs``: (method, baseline) names. The outcome is "better" or "worse" where the interval does not contain zero
    and there are at least three seeds, else "open".
    """
    import pandas as pd

    wide = table.pivot_table(index=["snr", "labels_per_type", "seed"], columns="method", values=value, sort=False)
    rows = []
    for method, baseline in pairs:
        difference = (wide[method] - wide[baseline]).dropna()
        for (snr, budget), part in difference.groupby(level=[0, 1], sort=False):
            low, high = bootstrap_interval(part.to_numpy())
            sure = len(part) >= 3 and (low > 0 or high < 0)
            outcome = ("better" if low > 0 else "worse") if sure else "open"
            rows.append((method, baseline, snr, budget, part.mean(), low, high, outcome))
    columns = ["method", "baseline", "snr", "labels_per_type", "difference", "low", "high", "outcome"]
    return pd.DataFrame(rows, columns=columns)
