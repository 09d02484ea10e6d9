"""Results of a study over few labels (notebook 04): means with their intervals, and methods compared in pairs.

A table of results has a row for each signal-to-noise ratio (``snr``, 0 where it is not known), ``seed``,
``labels_per_type`` (0: all) and ``method``, with the column that is judged: ``f1``, say.
"""

import numpy as np

from ..scoring.statistics import bootstrap_interval


def summarise(table, value="f1", by=("snr", "labels_per_type", "method")):
    """Mean over seeds with its 95 % bootstrap interval, for each ratio, budget and method (or what ``by`` names).

    Returns a pandas table with the columns of ``by``, mean, low, high, n; a missing value (no event found, so no timing
    error either) is left out and not counted in n.
    """
    import pandas as pd

    rows = []
    for group, values in table.groupby(list(by), sort=False)[value]:
        known = values.dropna().to_numpy(float)
        mean, interval = (known.mean(), bootstrap_interval(known)) if len(known) else (np.nan, (np.nan, np.nan))
        rows.append((*group, mean, *interval, len(known)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])


def paired_differences(table, pairs, value="f1"):
    """Mean difference of two methods on the same recordings and labels, with its 95 % bootstrap interval.

    ``pairs``: (method, baseline) names. The outcome is "better" or "worse" where the interval does not contain zero
    and there are at least three seeds, else "open".
    """
    import pandas as pd

    wide = table.pivot_table(index=["snr", "labels_per_type", "seed"], columns="method", values=value, sort=False)
    differences = {pair: (wide[pair[0]] - wide[pair[1]]).dropna() for pair in pairs}
    long = pd.concat(differences, names=["method", "baseline"]).rename("difference").reset_index()
    found = summarise(long, "difference", ("method", "baseline", "snr", "labels_per_type"))
    found = found.rename(columns={"mean": "difference"})
    better, worse = ((found.n >= 3) & side for side in (found.low > 0, found.high < 0))
    return found.assign(outcome=np.select([better, worse], ["better", "worse"], "open")).drop(columns="n")
