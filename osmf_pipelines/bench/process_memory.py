"""Peak memory of a process and of all that it started, sampled while it runs; the heap that its JVM was given."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

import psutil

_INTERVAL_SECONDS = 0.2
_HEAP_OPTION = "-Xmx"


@dataclass(frozen=True)
class PeakMemory:
    """Largest resident sizes seen, each at its own moment, bytes; pages that processes share count in each.

    Attributes:
        driver: of all JVMs: the Spark driver, which on local[*] does all the work.
        python: of everything else: the process itself and Python workers.
        tree: of all of them together.
    """

    driver: int = 0
    python: int = 0
    tree: int = 0


class MemorySampler:
    """Samples a process and its descendants, five times a second, while the block runs.

    Args:
        pid: of the process.
    """

    def __init__(self, pid: int):
        self.peak = PeakMemory()
        self._root = psutil.Process(pid)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_done, daemon=True)

    def __enter__(self) -> MemorySampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_done.set()
        self._thread.join()

    def _sample_until_done(self) -> None:
        while True:
            driver, python = self._sizes()
            self.peak = PeakMemory(
                max(self.peak.driver, driver), max(self.peak.python, python), max(self.peak.tree, driver + python)
            )
            if self._is_done.wait(_INTERVAL_SECONDS):
                return

    def _sizes(self) -> tuple[int, int]:
        """Resident bytes of JVMs, and of everything else; processes that end meanwhile count for nothing."""
        driver = python = 0
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0, 0
        for process in processes:
            try:
                size = process.memory_info().rss
                is_driver = process.name() == "java"
            except psutil.NoSuchProcess:
                continue
            driver, python = (driver + size, python) if is_driver else (driver, python + size)
        return driver, python


def driver_heap() -> str:
    """Returns the largest heap that the JVM of this process may take, as its command line says, such as 2g.

    Raises:
        ValueError: when this process has started no JVM.
    """
    for process in psutil.Process().children(recursive=True):
        if process.name() == "java":
            said = [argument for argument in process.cmdline() if argument.startswith(_HEAP_OPTION)]
            return said[-1].removeprefix(_HEAP_OPTION)
    raise ValueError("this process has no JVM: start Spark first.")
