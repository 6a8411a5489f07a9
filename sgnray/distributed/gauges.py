"""A run's metrics as Ray gauges: Ray's dashboard and Prometheus show one series per run."""

from __future__ import annotations

from typing import Any

from sgnray.metric_keys import Metrics


class Gauges:
    """Sets `sgn_train_loss`, `sgn_speed_clips_per_s` and so on, with the run's name as a tag."""

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges: dict[str, Any] = {}

    def set(self, metrics: Metrics) -> None:
        """Set the gauges to the newest metrics; their keys are those of metric_keys."""
        from ray.util.metrics import Gauge

        for key, value in metrics.items():
            if key not in self._gauges:
                name = "sgn_" + key.replace("/", "_")
                gauge = Gauge(name, description=f"{key} of a run", tag_keys=("run",))
                gauge.set_default_tags(self._tags)
                self._gauges[key] = gauge
            self._gauges[key].set(value)
