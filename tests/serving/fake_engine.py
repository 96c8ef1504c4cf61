"""A fake of vLLM's server: the same arguments and routes; the prompt determines the answer.

- `sleep N`: answers after N seconds. `hold FILE`: answers once that file exists.
- `chunks N`: streams N chunks, 50 ms apart. `drip FILE`: streams one chunk, and the next once that file exists.
- `cut`: exits after two and a half of three chunks, or in the middle of a plain answer.
- `error`: answers 500. `dead`: also reports from then on that it is dead, as vLLM does when its core has died.
- `hang`: from then on answers nothing but `/health`, as when the core hangs. `busy N`: the same until its metrics were
  read N times more, while they show steps. `looks N`: answers after as many reads, without a step.
- anything else is answered at once, unless its fields include one that the model names in `crashes_at`: then the engine
  exits.

Its log has a line for every `hold` and `drip` that arrived, and for every request that the gateway has cancelled.

How it behaves is written in the metadata of the model's SafeTensors file, as JSON in the entry `engine`. With `broken`
it does not start; with `crashing` it exits after its first answer; with `starts_when` it starts once that file exists.
Like vLLM it has a child process, which is in another process group and ignores SIGTERM.
"""

import argparse
import itertools
import json
import os
import select
import socket
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--model", type=Path)
parser.add_argument("--uds")
parser.add_argument("--served-model-name", nargs="+")
arguments, _ = parser.parse_known_args()
weights = (arguments.model / "model.safetensors").read_bytes()
header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
behaviour = json.loads(header["__metadata__"]["engine"])
steps = itertools.count()
free = threading.Event()
free.set()
busy = dead = False
looks = 0
CHUNKS = {"drip": 2, "cut": 3}


def looked_at(times):
    """Waits until the gateway has read our metrics so many times more."""
    enough = looks + times
    while looks < enough:
        time.sleep(0.01)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        global looks
        if self.path == "/metrics":
            looks += 1
            done = next(steps) if busy else 0
            text = f'# HELP steps\nvllm:iteration_tokens_total_count{{engine="0"}} {done}\n'.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        else:
            self.answer((503 if dead else 200) if self.path == "/health" else 404, {})

    def do_POST(self):
        global busy, dead
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            self.answer(401, {"error": "the gateway's own key is wrong"})
            return
        if behaviour.get("crashes_at") in fields:
            os._exit(9)
        prompt = fields.get("prompt") or "hello"
        word, _, count = prompt.partition(" ") if isinstance(prompt, str) else ("", "", "")
        if word in ("hang", "busy"):
            free.clear()
            if word == "busy":
                busy = True
                looked_at(int(count))
                busy = False
                free.set()
        if not free.wait(600):
            return
        if word in ("dead", "error"):
            dead = word == "dead"
            self.answer(500, {"error": {"message": "EngineCore died in /opt/secret"}})
            return
        if word in ("hold", "drip"):
            print(f"asked: {prompt}", flush=True)
        if fields.get("stream"):
            self.stream(word, count)
            return
        if word == "looks":
            looked_at(int(count))
        if (word == "sleep" and self.gone_within(float(count))) or (word == "hold" and self.gone_before(Path(count))):
            print(f"aborted: {prompt}", flush=True)
            return
        if word == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            os._exit(4)
        choice = {"text": f"{arguments.served_model_name[1]} {prompt}", "fields": sorted(fields)}
        self.answer(200, {"model": fields.get("model"), "choices": [choice], "pid": os.getpid()})
        if crashing:
            os._exit(7)

    def gone_within(self, seconds):
        """Waits; True if the client closed its connection meanwhile."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        if readable:
            self.close_connection = True
        return bool(readable)

    def gone_before(self, file):
        """Waits for the file; True if the client closed its connection before it existed."""
        while not file.exists():
            if self.gone_within(0.01):
                return True
        return False

    def stream(self, word, count):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for n in range(int(count) if word == "chunks" else CHUNKS.get(word, 1)):
                if word == "cut" and n == 2:
                    self.wfile.write(b'd\r\ndata: {"choic\r\n')
                    os._exit(4)
                self.chunk(b"data: " + json.dumps({"choices": [{"text": f"{n} "}], "time": time.time()}).encode())
                if word == "drip" and n == 0 and self.gone_before(Path(count)):
                    raise BrokenPipeError
                time.sleep(0.05)
            self.chunk(b"data: [DONE]")
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            print("aborted: stream", flush=True)
            self.close_connection = True

    def chunk(self, data):
        data += b"\n\n"
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


if behaviour.get("broken"):
    print("ValueError: the architecture Broken is not supported", file=sys.stderr)
    sys.exit(1)
crashing = behaviour.get("crashing")
while "starts_when" in behaviour and not Path(behaviour["starts_when"]).exists():
    time.sleep(0.01)
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code, "fake-engine-core"], start_new_session=True)
print(f"core process {child.pid}", flush=True)


class Server(ThreadingHTTPServer):
    """On a socket file, of which a host's name cannot be asked."""

    address_family = socket.AF_UNIX
    server_bind = socketserver.TCPServer.server_bind


Server(arguments.uds, Handler).serve_forever()
