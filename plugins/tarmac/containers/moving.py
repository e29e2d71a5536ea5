"""Moves a training to another machine's engine and its model back: image, volume, archive; all over the engines' APIs.

`near` is the engine of the stack's machine, `far` that of the machine that trains. Only files of the session and the
trainer's image go there. Every function may be called again after it broke off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, ImageNotFound, NotFound

from tarmac.base.errors import ContainerError
from tarmac.base.session import SESSION_PATH
from tarmac.containers import engine
from tarmac.containers.archive import INPUTS, REQUEST, ROOT, Limits, Passage, inputs_of
from tarmac.containers.calls import EngineCalls

# What a session's own machine sends is what it holds already; its disk is the limit.
_NO_LIMIT = Limits(2**62)
_CHECKPOINT = "checkpoint"
# A checkpoint is put beside the one that is there, and takes its place when it has come whole.
_COMING = f"{_CHECKPOINT}.coming"


@dataclass(frozen=True)
class Sent:
    """What the session's volume holds here: the SHA-256 of each file by path, and their bytes."""

    files: Mapping[str, str]
    bytes: int


@dataclass(frozen=True)
class Move:
    """One session's training and the two engines.

    Args:
        host: the name of the far one, for messages.
        volume, labels: of the session.
        image: the trainer's, by its name on the near engine.
    """

    near: EngineCalls
    far: EngineCalls
    host: str
    volume: str
    labels: dict[str, str]
    image: str

    def send(self, far_image: str) -> Sent | None:
        """Fill the session's volume on the far engine. None: it is filled already.

        Args:
            far_image: the trainer's image there.

        Raises:
            ContainerError: an engine refused.
            OSError: the far engine does not answer, or broke off.
        """
        if engine.volume_exists(self.far, self.volume) and self._is_filled(far_image):
            return None
        # What a send that broke off left. Nothing trains on it yet.
        engine.fence(self.far, self.labels)
        engine.remove_volume(self.far, self.volume)
        with self._told("does not take the session's files"):
            self.far.create_volume(name=self.volume, labels=self.labels)
            with (
                self._near_archive() as passage,
                engine.holder_of(self.far, self.volume, self.labels, far_image) as helper,
            ):
                self.far.put_archive(helper, "/", passage)
        return Sent(passage.files, passage.bytes)

    def _is_filled(self, far_image: str) -> bool:
        """Whether a send was finished: the request goes last."""
        with (
            self._told("does not show the session's files"),
            engine.holder_of(self.far, self.volume, self.labels, far_image) as helper,
        ):
            try:
                chunks, _ = self.far.get_archive(helper, f"/{REQUEST}")
            except NotFound:
                return False
            for _ in chunks:  # an answer that is not read to its end keeps its connection
                pass
            return True

    def _read(self) -> Sent:
        with self._near_archive() as passage:
            for _ in passage:
                pass
        return Sent(passage.files, passage.bytes)

    @contextmanager
    def _near_archive(self) -> Iterator[Passage]:
        with engine.holder_of(self.near, self.volume, self.labels, self.image) as helper:
            yield Passage(self.near.get_archive(helper, SESSION_PATH)[0], _NO_LIMIT, left_out=(f"{ROOT}/{_COMING}",))

    def fetch_checkpoint(self, container_id: str, limit_bytes: int) -> int:
        """Copy the checkpoint of a training on the far engine beside the one in the session's volume here.

        Returns how many bytes it has; 0: there is none yet.

        Args:
            container_id: what trains there, or has.
            limit_bytes: the most that may come.

        Raises:
            ContainerError: an engine refused.
            ValueError: what comes is refused, or was written anew while it was read.
            OSError: the far engine does not answer, or broke off.
        """
        with self._told("does not give the checkpoint"):
            try:
                chunks, _ = self.far.get_archive(container_id, f"{SESSION_PATH}/{_CHECKPOINT}")
            except NotFound:
                return 0
        coming = Passage(chunks, Limits(limit_bytes), root=_CHECKPOINT, named=f"{ROOT}/{_COMING}")
        with engine.holder_of(self.near, self.volume, self.labels, self.image) as helper:
            self.near.put_archive(helper, "/", coming)
        return coming.bytes

    def place_checkpoint(self) -> None:
        """Put the checkpoint that was fetched last in its place, from where the next attempt goes on, on any machine.

        Raises:
            OSError: the engine here does not answer.
        """
        with engine.holder_of(self.near, self.volume, self.labels, self.image) as helper:
            whole, _ = self.near.get_archive(helper, f"{SESSION_PATH}/{_COMING}")
            self.near.put_archive(helper, "/", Passage(whole, _NO_LIMIT, root=_COMING, named=f"{ROOT}/{_CHECKPOINT}"))

    def bring_back(self, container_id: str, sent: Sent | None, limit_bytes: int) -> int:
        """Put what a training left on the far engine into the session's volume here; returns how many bytes.

        The files that it trained on come too, to be compared, and are not written.

        Args:
            container_id: what trained.
            sent: what `send` returned.
            limit_bytes: the most that may come, beside what was sent.

        Raises:
            ContainerError: what comes is refused, or is not what was sent; or an engine refused.
            OSError: the far engine does not answer, or broke off.
        """
        sent = sent or self._read()
        with self._told("does not give the model"):
            chunks, _ = self.far.get_archive(container_id, SESSION_PATH)
        passage = Passage(chunks, Limits(sent.bytes + limit_bytes), left_out=INPUTS)
        try:
            with engine.holder_of(self.near, self.volume, self.labels, self.image) as helper:
                self.near.put_archive(helper, "/", passage)
        except APIError as error:
            raise ContainerError(f"The model of host {self.host} cannot be kept here: {error.explanation}.") from error
        except ValueError as error:
            raise ContainerError(
                f"What host {self.host} sent back is refused: {error}. Nothing of this training is used. Look at that "
                "machine, or raise TARMAC_HOST_RETURN_SIZE in env/stack.env and run `make up` where a limit is named.",
                retryable=False,
            ) from error
        if changed := sorted(
            name
            for name in inputs_of(sent.files).keys() | inputs_of(passage.files).keys()
            if sent.files.get(name) != passage.files.get(name)
        ):
            raise ContainerError(
                f"Host {self.host} has not trained on what it was sent: {changed[0]!r} is not the same file there (its "
                "SHA-256 differs). Nothing of this training is used: look at that machine's disk and memory, and drain "
                "it meanwhile.",
                retryable=False,
            )
        return passage.bytes

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Make an engine's refusal a sentence; one that does not answer stays an OSError."""
        try:
            yield
        except APIError as error:
            raise ContainerError(f"The engine of host {self.host} {what}: {error.explanation}.") from error


def far_image(near: EngineCalls, far: EngineCalls, image: str, host: str) -> str:
    """Return the id of an image on the far engine; it is sent there if it is missing or another one.

    Raises:
        ContainerError: it is not on this machine, or the far engine does not take it.
        OSError: the far engine does not answer, or broke off.
    """
    try:
        wanted = near.inspect_image(image)
    except ImageNotFound as error:
        raise engine.missing_image(image) from error
    if found := _same(far, image, wanted):
        return found
    try:
        for said in far.load_image(near.get_image(image)):
            if problem := said.get("error"):
                raise ContainerError(f"Host {host} does not take the image {image}: {problem}.")
    except APIError as error:
        raise ContainerError(f"Host {host} does not take the image {image}: {error.explanation}.") from error
    if found := _same(far, image, wanted):
        return found
    raise ContainerError(f"The image {image} was sent to host {host} and is another one there.")


def _same(far: EngineCalls, image: str, wanted: dict[str, Any]) -> str | None:
    """Return the far id of an image; the ids of two kinds of image stores differ for one image."""
    for name in (wanted["Id"], image):
        try:
            found = far.inspect_image(name)
        except ImageNotFound:
            continue
        if found["Id"] == wanted["Id"] or (
            found.get("RootFS") == wanted.get("RootFS") and found.get("Config") == wanted.get("Config")
        ):
            return str(found["Id"])
    return None
