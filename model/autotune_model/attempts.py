"""Tries what may crash or hang, in a separate process. No torch here: that process imports it.

The process leads a group, so that the compilers it started end with it. It exits when its parent is gone, because
its standard input then closes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress

COMMAND = (sys.executable, "-P", "-m", "autotune_model")
NAMES = ("compile", "flex")
"""What can be tried: torch.compile of a tiny function, and attention with FlexAttention, which the model compiles."""

_ANSWER = '{"reason"'
_PATIENCE_SECONDS = 120.0  # generous: nothing cached, two slow cores, a cold network disk


def attempt(
    name: str, device: str, *, command: Sequence[str] = COMMAND, patience_seconds: float = _PATIENCE_SECONDS
) -> str:
    """Why `name` does not work on `device`, in one line; empty if it works."""
    with tempfile.TemporaryFile() as said:  # not a pipe: a surviving child could hold that open
        process = subprocess.Popen(
            [*command, "attempt", name, "--device", device],
            stdin=subprocess.PIPE,  # never written to
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            status = process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            return f"trying it did not end within {patience_seconds:g} s"
        finally:
            with suppress(ProcessLookupError, PermissionError):  # all gone; macOS raises the latter for zombies
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin:
                process.stdin.close()
        said.seek(0)
        lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    answer = next((line for line in reversed(lines) if line.startswith(_ANSWER)), "")
    if answer:
        return str(json.loads(answer)["reason"])
    how = f"died of signal {-status}" if status < 0 else f"left with exit code {status}"
    return f"trying it {how} ({lines[-1][:200] if lines else 'without a message'})"


def tell(reason: str) -> None:
    """Answer `attempt` from the process it started; libraries may print before and after."""
    print(json.dumps({"reason": reason}), flush=True)


def end_with_starter() -> None:
    """End this process and its group, which it must lead, as soon as standard input is closed."""

    def wait() -> None:
        os.read(0, 1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
