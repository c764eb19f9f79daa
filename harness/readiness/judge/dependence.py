"""How many independent samples a time-ordered sequence is worth.

Latencies of neighbouring jobs are alike: they waited in the same queue. A bound that takes n of them for n independent
ones proves too much. n_eff = n / (1 + 2 x sum of autocorrelations), and never more than n.

The sum is Geyer's initial monotone sequence (Statistical Science 7, 1992): autocorrelations are added in pairs until a
pair is not positive. What correlates for a percentile is not the value but whether it lies above a level, so the
sequences taken are the exceedances of the sample's own q-quantile and of the level with twice as many above it, as
extremes may cluster less than what leads up to them; the smaller n_eff counts. Trials are such a sequence already.

What it cannot see: dependence over times longer than the run, and the clustering of something that never happened. With
no failure at all, trials count as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEAST_EFFECTIVE = 20
"""Below twenty correlation times a sequence is too short to tell its own correlation, so it proves nothing."""

Series = NDArray[np.float64]


def effective_samples(values: Sequence[float], q: float) -> int:
    """Return n_eff of time-ordered `values` for a claim about their q-quantile; 0 of nothing."""
    n = len(values)
    if n < 2:
        return n
    series = np.asarray(values, dtype=np.float64)
    ranked = np.sort(series)
    levels = [q, 1 - 2 * (1 - q)] if q > 0.5 else [q]
    cuts = {float(ranked[max(0, math.ceil(level * n - 1e-9) - 1)]) for level in levels}
    return min(_effective((series > cut).astype(np.float64)) for cut in cuts)


def effective_trials(n: int, failed_at: Sequence[int]) -> int:
    """Return n_eff of `n` time-ordered trials that failed at these positions (from 0)."""
    series = np.zeros(n, dtype=np.float64)
    series[list(failed_at)] = 1.0
    return _effective(series) if n >= 2 else n


def autocorrelations(series: Series) -> Series | None:
    """Return the autocorrelations of lag 0 to n - 1 (biased, by FFT); None for a constant series."""
    n = len(series)
    centred = series - series.mean()
    variance = float(np.mean(centred * centred))
    if variance <= 0:
        return None
    spectrum = np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())
    sums = np.fft.irfft(spectrum * np.conj(spectrum))[:n]
    return np.asarray(sums / n / variance, dtype=np.float64)


def _effective(series: Series) -> int:
    n = len(series)
    correlated = autocorrelations(series)
    if correlated is None:
        return n
    pairs = correlated[0 : n - n % 2 : 2] + correlated[1::2]
    ends = np.flatnonzero(pairs <= 0)
    positive = pairs[: int(ends[0])] if len(ends) else pairs
    times = 2 * float(np.minimum.accumulate(positive).sum()) - 1
    return max(1, min(n, math.floor(n / times))) if times > 1 else n
