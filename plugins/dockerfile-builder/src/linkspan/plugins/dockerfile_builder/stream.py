"""The text of Docker's classic ``/build`` stream, in order although stages run side by side.

Clients parse these lines (docker-py looks for ``Successfully built``), so they are part of the API.
"""

import codecs
import contextlib
import time
from collections.abc import Callable, Iterator

from linkspan.sdk.model.process import Chunk, StreamKind
from linkspan.sdk.progress import Progress, ProgressSink, ignore_progress

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"


class BuildStream:
    """Everything that one build says.

    Args:
        quiet: Keep it back: only the image's id is told, or all of it should the build fail.
        details: Tell programs of steps at once, too.
    """

    def __init__(self, sink: ProgressSink, *, quiet: bool, details: bool = False) -> None:
        self._sink = sink
        self._details = details and not quiet
        self._quiet = quiet
        self._kept: list[Progress] = []
        self._works = 0
        self._stages: dict[int, StageStream] = {}

    def send(self, progress: Progress) -> None:
        """Tell, or keep back if quiet."""
        if self._quiet:
            self._kept.append(progress)
        else:
            self._sink(progress)

    def say(self, text: str) -> None:
        """Text as it is."""
        self.send(Progress(stream=text))

    def event(self, **facts: object) -> None:
        """A fact for a program, told at once whoever's turn it is; only with ``details``."""
        if self._details:
            self._sink(Progress(aux=facts))

    @contextlib.contextmanager
    def work(self, name: str) -> Iterator["Work"]:
        """Something that is no step, while it is done; only with ``details``."""
        self._works += 1
        work = Work(self._works, self.event)
        began = time.monotonic()
        self.event(work={"id": work.id, "name": name, "state": "begun"})
        state, why = "failed", ""
        try:
            yield work
            state = "done"
        except Exception as error:
            why = str(error)
            raise
        finally:
            seconds = round(time.monotonic() - began, 3)
            self.event(work={"id": work.id, "state": state, "seconds": seconds, "error": why})

    def stage(self, index: int) -> "StageStream":
        """The voice of one stage; told live when all stages before it have ended."""
        if index not in self._stages:
            event = self.event if self._details else None
            self._stages[index] = StageStream(self.send, self._take_turns, event)
            self._take_turns()
        return self._stages[index]

    def _take_turns(self) -> None:
        waits = False
        for _, stage in sorted(self._stages.items()):
            stage.set_open(not waits)
            waits = waits or not stage.ended

    def finish(self, image_id: str, tags: tuple[str, ...]) -> None:
        """The last lines."""
        if self._quiet:
            self._sink(Progress(stream=f"{image_id}\n"))
            return
        short = image_id.removeprefix("sha256:")[:12]
        self.say(f"Successfully built {short}\n")
        for tag in tags:
            self.say(f"Successfully tagged {tag}\n")

    def failed(self, note: str = "") -> None:
        """Tell what was kept back, in the order of the stages, and last a note on the fault.

        A fault before the first step is told by the error alone: HTTP can still say so in its status.
        """
        for _, stage in sorted(self._stages.items()):
            stage.set_open(True)
        if note and self._stages:
            self.say(f"{note}\n")
        if self._quiet:
            for progress in self._kept:
                self._sink(progress)


def silent_stream() -> BuildStream:
    """For what nobody is told."""
    return BuildStream(ignore_progress, quiet=True)


class Work:
    """What is told of something that is no step.

    Attributes:
        id: Of this build, from 1.
    """

    def __init__(self, identity: int, event: Callable[..., None]) -> None:
        self.id = identity
        self._event = event

    def part(self, text: str, *, current: int = 0, total: int = 0, done: bool = False) -> None:
        """How far one part is: bytes, of ``total`` if that is known."""
        part = {"text": text, "current": current, "total": total, "done": done}
        self._event(work={"id": self.id, "state": "part", "part": part})


class StageStream:
    """What one stage says; see :meth:`BuildStream.stage`."""

    def __init__(
        self,
        sink: ProgressSink,
        released: Callable[[], None],
        event: Callable[..., None] | None = None,
    ) -> None:
        self._event = event
        self._number = 0
        self._began = 0.0
        self._sink = sink
        self._released = released
        self._waiting: list[Progress] = []
        self._is_open = False
        self.ended = False

    def set_open(self, is_open: bool) -> None:
        """Whether it is its turn: a stage before it in the file may still turn out to be needed."""
        self._is_open = is_open
        if is_open:
            for progress in self._waiting:
                self._sink(progress)
            self._waiting.clear()

    def end(self) -> None:
        """It has nothing more to say."""
        self.ended = True
        self._released()

    def send(self, progress: Progress) -> None:
        """Tell, now or when its turn comes."""
        if self._is_open:
            self._sink(progress)
        else:
            self._waiting.append(progress)

    def say(self, text: str) -> None:
        """Text as it is."""
        self.send(Progress(stream=text))

    def step(self, number: int, total: int, text: str, name: str = "") -> None:
        """``Step 2/7 : RUN make``; ``name`` as :mod:`~.step_names` has it."""
        self.say(f"Step {number}/{total} : {text}")
        self.say("\n")
        self._number, self._began = number, time.monotonic()
        if self._event:
            begun = {"number": number, "total": total, "text": text, "name": name}
            self._event(step={**begun, "state": "begun"})

    def step_done(self, *, cached: bool) -> None:
        """The step is done."""
        self._step_ended("cached" if cached else "done")

    def step_failed(self, error: Exception) -> None:
        """The step has failed."""
        self._step_ended("failed", error=str(error))

    def _step_ended(self, state: str, **more: str) -> None:
        if self._event:
            seconds = round(time.monotonic() - self._began, 3)
            self._event(step={"number": self._number, "state": state, "seconds": seconds, **more})

    def log(self, text: str) -> None:
        """What a command writes."""
        self.say(text)
        if self._event:
            self._event(log={"number": self._number, "text": text})

    def image(self, image_id: str) -> None:
        """`` ---> 0123456789ab``; an empty id for scratch."""
        self.say(f" ---> {image_id.removeprefix('sha256:')[:12]}\n")


class OutputDecoder:
    """Turns what a RUN step writes into text: stdout as it is, stderr in red."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {
            StreamKind.STDOUT: make(errors="replace"),
            StreamKind.STDERR: make(errors="replace"),
        }

    def feed(self, chunk: Chunk) -> None:
        """One piece of output."""
        decoder = self._decoders.get(chunk.stream, self._decoders[StreamKind.STDOUT])
        self._tell(chunk.stream, decoder.decode(chunk.data))

    def finish(self) -> None:
        """What is left of a cut character."""
        for kind, decoder in self._decoders.items():
            self._tell(kind, decoder.decode(b"", final=True))

    def _tell(self, kind: StreamKind, text: str) -> None:
        if text:
            self._say(f"{_RED}{text}{_PLAIN}" if kind is StreamKind.STDERR else text)
