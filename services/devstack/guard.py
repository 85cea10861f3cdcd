"""Stops a server when the process that started it ends, however it ends.

Run as `python guard.py LOG SIGNAL GRACE command...` with a pipe as standard input. It prints the server's pid, then waits
for the end of its input (the starter stopped it, or died: kill -9 closes a pipe, too) and stops the server with SIGNAL, and
with SIGKILL after GRACE seconds. If the guard itself is killed, Linux sends SIGNAL to the server. It uses only the standard
library, so that it starts at once and stays small.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the command until it or the input ends; return the server's exit code."""
    log, stop_signal, grace, command = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    guard = os.getpid()
    os.umask(0o077)  # only the owner may read what the server writes
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind_to_guard() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, stop_signal)
            if os.getppid() != guard:
                os._exit(1)

    with open(log, "ab") as out:  # noqa: PTH123 - importing pathlib would double the start-up time
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=bind_to_guard)

    def stop(*_: object) -> None:
        server.send_signal(stop_signal)
        try:
            server.wait(grace)
        except subprocess.TimeoutExpired:
            server.kill()

    def stop_at_end_of_input() -> None:
        while os.read(0, 4096):
            pass
        stop()

    print(server.pid, flush=True)  # noqa: T201 - the starter reads it
    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop, daemon=True).start())
    return server.wait() & 0xFF


if __name__ == "__main__":
    os._exit(main())
