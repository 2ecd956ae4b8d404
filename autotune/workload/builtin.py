"""The knobs of the built-in GPT, available without reading a space file."""

from autotune.workload.gpt_knobs import KNOBS as KNOBS
