"""Latency histograms per route, for Covet applications."""

from __future__ import annotations

from covet_timing.histograms import Histogram, Report, RouteTimes, Timings

__all__ = ["Histogram", "Report", "RouteTimes", "Timings"]
