"""What a trial trains: a GPT, its data, its optimizer and the worker process around them.

Only :mod:`autotune_model.config` and :mod:`autotune_model.knobs` may be imported without torch; the driver in
:mod:`autotune` uses nothing else of this package.
"""
