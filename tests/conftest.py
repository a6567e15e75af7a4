"""Hypothesis, for all tests: how long an example takes to draw or to run is no failure, on whatever busy machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")
