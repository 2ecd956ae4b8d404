"""What a space file can search when it names no other workload: the knobs of the built-in GPT, without reading one."""

from autotune.workload.gpt_knobs import KNOBS as KNOBS
