"""All scenes, by theme."""

from . import canvas, control, frameworks, limits, logs, outcomes, requests, signals, start, wire

__all__ = ("canvas", "control", "frameworks", "limits", "logs", "outcomes", "requests", "signals", "start", "wire")
