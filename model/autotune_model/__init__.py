"""What a trial trains: a GPT, its data, its optimizer and the worker process around them.

The driver, :mod:`autotune`, imports only what does not need torch: :mod:`autotune_model.config`, `knobs`, `memory` and
`protocol`.
"""
