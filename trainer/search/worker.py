"""A process that trains trials, one after the other: what takes it down takes one trial down and not the search.

It is told what to train by lines of JSON on stdin, and answers with lines of JSON on what was its stdout. When stdin
ends, whoever asked is gone, and it goes too, at once: what it was training is continued from its checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithm.errors import InputError
from algorithm.faults import broken_gpu, first_line, out_of_memory
from algorithm.lock import BusyError, alone_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trainer.history import Row

log = logging.getLogger(__name__)
LONGEST_WAIT_S = 60.0  # for a worker of a killed search to leave the trial's folder


def main() -> None:
    """Train what is asked for until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    _offer_to_the_kernel()
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        request = requests.get()
        answer = _train(request, answers, requests)
        answers.write(json.dumps(answer) + "\n")


def _train(
    request: dict[str, Any], answers: Any, requests: queue.SimpleQueue[dict[str, Any]]
) -> dict[str, Any]:
    """Train one trial; return {"done": curve, "stopped": whether it was given up}, {"failed": why} or {"broken": why}.

    "failed" is for what the trial's parameters may have done; "broken" for what would befall every trial.
    """
    stopped = False

    def goes_on(rows: Sequence[Row]) -> bool:
        nonlocal stopped
        answers.write(json.dumps({"epoch": rows}) + "\n")
        stopped = not requests.get()["goes_on"]
        return not stopped

    folder = Path(request["folder"])
    with _log_to(folder / "log.txt"):
        try:
            from trainer.settings import TrainSettings
            from trainer.train import train

            settings = TrainSettings.read(request["settings"], "the search")
            with alone_in(folder, "decathlon search", wait_s=LONGEST_WAIT_S):
                pass
            work, device, threads = Path(request["work"]), request["device"], request["threads"]
            curve = train(work, folder, settings, device=device, threads=threads, goes_on=goes_on)
        except BusyError as error:
            return {"broken": str(error)}
        except InputError as error:
            return {"failed": str(error)}
        except OSError as error:
            if out_of_memory(error):
                return {"failed": "out of memory"}
            log.exception("system")
            return {"broken": f"{error.filename or folder}: {(error.strerror or str(error)).lower()}"}
        except Exception as error:
            log.exception("unexpected")
            said = first_line(error)
            if out_of_memory(error):
                return {"failed": f"out of memory: {said}" if said else "out of memory"}
            if broken_gpu(error):  # which befalls every later trial of the process, too
                return {"broken": f"the GPU is not usable any more ({said})"}
            return {"failed": f"{type(error).__name__}: {said}"}
    return {"done": curve, "stopped": stopped}


def _listen(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)


def _offer_to_the_kernel() -> None:
    """Where memory runs out the kernel is to end this process and not the search."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    root, handler = logging.getLogger(), logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    main()
