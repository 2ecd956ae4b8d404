"""A small search space as text, for tests that need one and do not measure."""

SPACE = """\
[workload]
layers = 2
heads = 2
width = 64
sequence_length = 128
horizon_tokens = 40_000

[plan]
tokens = 400_000

[baseline]
micro_batch = 8
global_batch = 16

[knobs]
micro_batch = [2, 4, 8]
dtype = ["fp32", "bf16_autocast"]
attention = ["math", "sdpa"]
optimizer_kernel = ["for_loop", "fused"]
learning_rate = { low = 3e-4, high = 1e-2, log = true }
tied_head = [false, true]
"""
