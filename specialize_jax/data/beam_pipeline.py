"""The offline alignment job on Apache Beam: one element per part of the records.

Beam brings the parts to machines, and nothing else: what a part becomes is `align_part`'s business,
and the folder's info file is written afterwards by whoever started it. So the files are the same as
without Beam, byte for byte if pyarrow, which writes them, has the same version. Elements are paths:
workers must reach the records, the tokenizers and the target (`gs://` on Dataflow), and have this
package installed.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "Apache Beam is not installed: pip install 'specialize_jax[beam]', without "
        "constraints.txt, as Beam wants an older pyarrow",
        name=error.name,
    ) from error

from specialize_jax.data.aligning import job


class Part(NamedTuple):
    """The work on one part.

    Attributes:
      source: path of a part of teacher records.
      target: path of the part of aligned examples to write.
      source_sha256: of the source, as the records' info file says.
    """

    source: str
    target: str
    source_sha256: str


def align_parts(parts: Iterable[Part], settings: job.Settings, options: Sequence[str] = ()) -> None:
    """Makes every part that is not there yet, and waits.

    A part that cannot be made (a bad row, a damaged file) is left out and logged, and does not stop
    the others: `align_part` on it raises the same again. What Beam can repair by trying again, as a
    file system that is away for a moment, it does.

    Args:
      parts: the work.
      settings: of all parts.
      options: command-line options of the pipeline, as `--runner=DataflowRunner`.
    """
    pipeline = beam.Pipeline(options=PipelineOptions(list(options)))
    (
        pipeline
        | "parts" >> beam.Create(list(parts))
        # Otherwise one worker would get all of them.
        | "spread" >> beam.Reshuffle()
        | "align" >> beam.Map(_align, settings)
    )
    pipeline.run().wait_until_finish()


def _align(part: Part, settings: job.Settings) -> None:
    try:
        job.align_part(part.source, part.target, settings, source_sha256=part.source_sha256)
    except ValueError as error:
        logging.getLogger(__name__).warning("left out: %s", error)
