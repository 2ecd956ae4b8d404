"""A stand-in for `python -m autotune_model`: speaks the protocol without torch, and misbehaves on request.

    stand_in.py MOOD launcher --control FD
    stand_in.py MOOD worker --session PATH --commands FD --events FD
    stand_in.py MOOD prepare --order PATH

It writes its JSON by hand, so that it starts in no time and can misspell it. The driver holds every line against
`autotune_model.protocol`; what the real worker says is in `tests/test_seam.py`.

MOOD is `good` or the name of a misbehaviour below. Whatever the mood, a micro-batch above 256 is out of
memory and fp16 never finishes its first pass, as in the scripted `ExampleWorld`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback

STEP_SECONDS = 0.001


class Worker:
    def __init__(self, mood, session_path, commands, events):
        self.mood = mood
        self.session = json.loads(open(session_path).read())  # noqa: PTH123, SIM115
        self.commands = os.fdopen(commands)
        self.events = events
        self.steps = 0
        training, shape = self.session["training"], self.session["gpt"]
        self.tokens_per_step = training["global_batch"] * shape["sequence_length"]

    def write(self, text):
        os.write(self.events, text.encode())

    def say(self, name, /, **body):
        self.write(json.dumps({name: body}) + "\n")

    def run(self):
        self.misbehave("at_start")
        self.say("phase", name="started")
        self.misbehave("in_setup")
        self.say("phase", name="built")
        self.misbehave("in_pass")
        if self.session["training"]["micro_batch"] > 256:
            return self.say("failure", kind="oom", message="too large")
        if self.session["training"]["dtype"] == "fp16_autocast":
            time.sleep(1_000)
        self.say(
            "ready",
            setup_seconds=0.1,
            compile_seconds=0.0,
            parameters=1,
            flops_per_token=6.0,
            tokens_per_step=self.tokens_per_step,
            horizon_steps=max(1, self.session["horizon_tokens"] // self.tokens_per_step),
            peak_memory_bytes=1,
            environment={"pid": str(os.getpid())},
        )
        for line in self.commands:
            ((name, body),) = json.loads(line).items()
            if name == "close":
                self.misbehave("in_close")
                return None
            self.misbehave("in_" + name)
            getattr(self, name)(**body)
        return os.killpg(0, signal.SIGKILL)  # the driver is gone

    def advance(self, steps, round):
        self.steps += steps
        self.say(
            "slice",
            round=round,
            tokens=steps * self.tokens_per_step,
            seconds=steps * STEP_SECONDS,
            step_seconds=[STEP_SECONDS] * steps,
            losses=[5.0] * steps,
            peak_memory_bytes=1,
            energy_joules=None,
            skipped_steps=0,
        )

    def evaluate(self):
        seen = self.steps * self.tokens_per_step
        tokens = self.session["evaluation_tokens"]
        self.say("evaluation", tokens_seen=seen, loss=5.0, stderr=0.01, tokens=tokens, bits_per_byte=2.0)

    def fingerprint(self):
        if self.steps:
            self.say("failure", kind="crash", message="too late")
            os._exit(1)
        sketch = [1.0] * 256
        self.say("fingerprint", logits=sketch, gradient=sketch, update=sketch)

    def gradient_noise(self, batches):
        micro, batch = self.session["training"]["micro_batch"], batches * self.session["training"]["global_batch"]
        self.say(
            "gradient_noise",
            tokens_seen=self.steps * self.tokens_per_step,
            micro_batch=micro,
            batch=batch,
            micro_square_norm=1.0 + 8.0 / micro,
            square_norm=1.0 + 8.0 / batch,
        )

    def misbehave(self, where):
        """A mood is `what:where`."""
        what, _, place = self.mood.partition(":")
        if place != where:
            return
        match what.split("="):
            case ["hang"]:
                time.sleep(1_000)
            case ["flood", mebibytes]:
                for _ in range(int(mebibytes)):
                    sys.stdout.write("x" * (1 << 20))
                print("last words", flush=True)
            case ["flood_and_hang", mebibytes]:
                sys.stdout.write("x" * (int(mebibytes) << 20))
                sys.stdout.flush()
                time.sleep(1_000)
            case ["signal", name]:
                print("last words", flush=True)
                os.kill(os.getpid(), signal.Signals[name])
            case ["exit", code]:
                print("first words\nModuleNotFoundError: No module named 'torch'\n", flush=True)
                os._exit(int(code))
            case ["failure", kind]:
                self.say("failure", kind=kind, message=f"it is {kind}")
                os._exit(1)
            case ["write", text]:
                self.write(text.encode().decode("unicode_escape"))
                time.sleep(1_000)
            case ["torn"]:
                self.write('{"slice": {"round"')
                os._exit(0)
            case ["deaf"]:
                os.close(self.events)
                time.sleep(1_000)
            case ["child"]:
                child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
                print(child.pid, flush=True)


def launch(mood, control_fd):
    control = socket.socket(fileno=control_fd)
    if mood == "exit=1:launcher":
        sys.exit("ModuleNotFoundError: No module named 'torch'")
    control.sendall(b"hello\n" if mood == "garbage:launcher" else b'{"launcher":{"ready":{}}}\n')
    children = set()
    control.settimeout(0.01)
    while True:
        try:
            line, descriptors, _, _ = socket.recv_fds(control, 65_536, 3)
        except TimeoutError:
            line = None
        if line == b"":
            os._exit(0)
        if line:
            if mood == "die:fork":
                os._exit(1)
            pid = os.fork()
            if pid == 0:
                control.close()
                os.setsid()
                commands, events, log = descriptors
                os.dup2(log, 1)
                os.dup2(log, 2)
                run_worker(mood, json.loads(line)["fork"]["session"], commands, events)
            for descriptor in descriptors:
                os.close(descriptor)
            children.add(pid)
            control.sendall(json.dumps({"forked": {"pid": pid}}).encode() + b"\n")
        for pid in tuple(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.discard(pid)
                control.sendall(json.dumps({"exited": {"pid": pid, "status": status}}).encode() + b"\n")


def prepare(order_path):
    json.loads(open(order_path).read())  # noqa: PTH123, SIM115
    corpus = {
        "train_tokens": 90_000,
        "holdout_tokens": 10_000,
        "documents": 10,
        "bytes_per_token": 1.0,
        "vocab_size": 257,
        "content_sha256": "of nothing",
    }
    environment = {"device": "cpu", "pid": str(os.getpid())}
    print(json.dumps({"corpus": corpus, "environment": environment, "peak_flops": {"fp32": 1e11}, "limits": {}}))


def run_worker(mood, session_path, commands, events):
    try:
        Worker(mood, session_path, commands, events).run()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    mood, kind, *rest = sys.argv[1:]
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    if kind == "launcher":
        launch(mood, int(options["--control"]))
    elif kind == "prepare":
        prepare(options["--order"])
    else:
        run_worker(mood, options["--session"], int(options["--commands"]), int(options["--events"]))
