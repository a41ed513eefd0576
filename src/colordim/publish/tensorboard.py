"""TensorBoard: curves, figures, and histograms of exactly our counts and edges."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from colordim.publish.buckets import buckets
from colordim.publish.epochs import Epoch, folder_of

__all__ = ["TensorBoard", "tag_of"]


def tag_of(kind: str, phase: str, layer: str, what: str = "") -> str:
    """Return a tag: of a histogram ``colordim/activation/train/fc``, of a curve ``colordim.mean/activation/train/fc``."""
    return "/".join((f"colordim.{what}" if what else "colordim", kind, phase, layer))


class TensorBoard:
    """Writes into an event file of its own, or through a SummaryWriter.

    The step of an epoch is the index of its last training batch, and its time that of its last batch.

    Parameters
    ----------
    writer : path-like or SummaryWriter, optional
        Folder of the event file, by default ``tensorboard`` in the folder of the run; or what is to be written through.
    """

    name = "TensorBoard"
    draws = True

    def __init__(self, writer: Any = None) -> None:
        self._writer = writer
        self._own: _EventWriter | None = None

    def publish(self, epoch: Epoch) -> None:
        span = epoch.span
        writer = self._writer
        if writer is None or isinstance(writer, (str, os.PathLike)):
            if self._own is None:
                folder = folder_of(epoch.run, "tensorboard") if writer is None else Path(writer)
                self._own = _EventWriter(folder, span.step)
            writer = self._own
        at: dict[str, Any] = {"global_step": span.step, "walltime": span.time}
        for layer in epoch.layers:
            part = layer.stream.kind, layer.phase, layer.stream.name
            for what, value in layer.scalars().items():
                writer.add_scalar(tag_of(*part, what), value, **at)
            if (found := buckets(layer)) is not None:
                # TensorBoard knows the right edges of buckets only: an empty one says where the first begins
                writer.add_histogram_raw(
                    tag_of(*part),
                    min=layer.min, max=layer.max, num=layer.finite, sum=layer.sum, sum_squares=layer.sum_sq,
                    bucket_limits=found.edges.tolist(), bucket_counts=[0, *found.counts.tolist()], **at,
                )  # fmt: skip
        for name, png in epoch.figures.items():
            if self._own is None:
                writer.add_image(f"colordim/{name}", _pixels(png), dataformats="HWC", **at)
            else:
                self._own.add_png(f"colordim/{name}", png, **at)
        if epoch.diagnosis is not None:  # indented, so that it is shown as it is
            text = "\n".join(f"    {line}" for line in str(epoch.diagnosis).splitlines())
            writer.add_text("colordim/diagnosis", text, **at)
        writer.flush()

    def close(self) -> None:
        if self._own is not None:
            self._own.close()


class _EventWriter:
    """As much of a SummaryWriter as is needed, without torch."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._summary_metadata = summary_pb2.SummaryMetadata
        self._file = EventFileWriter(str(folder))
        # What an earlier writer has put there of this step and later ones is void: the training was resumed.
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._file.add_event(event_pb2.Event(step=step, session_log=log))

    def add_scalar(self, tag: str, value: float, global_step: int, walltime: float) -> None:
        self._add(global_step, walltime, tag=tag, simple_value=value)

    def add_histogram_raw(
        self, tag: str, *, bucket_limits: list[float], bucket_counts: list[int], global_step: int, walltime: float,
        **moments: float,
    ) -> None:  # fmt: skip
        from tensorboard.compat.proto.histogram_pb2 import HistogramProto

        histogram = HistogramProto(bucket_limit=bucket_limits, bucket=bucket_counts, **moments)
        self._add(global_step, walltime, tag=tag, histo=histogram)

    def add_png(self, tag: str, png: bytes, global_step: int, walltime: float) -> None:
        height, width, _ = _pixels(png).shape
        image = self._summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._add(global_step, walltime, tag=tag, image=image)

    def add_text(self, tag: str, text: str, global_step: int, walltime: float) -> None:
        from tensorboard.compat.proto.tensor_pb2 import TensorProto

        metadata = self._summary_metadata(plugin_data=self._summary_metadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()])
        tensor.tensor_shape.dim.add(size=1)
        self._add(global_step, walltime, tag=tag, metadata=metadata, tensor=tensor)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, time: float, **value: Any) -> None:
        summary = self._summary(value=[self._summary.Value(**value)])
        self._file.add_event(self._event(step=step, wall_time=time, summary=summary))


def _pixels(png: bytes) -> Any:
    from PIL import Image

    return np.asarray(Image.open(BytesIO(png)))
