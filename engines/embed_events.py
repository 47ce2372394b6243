"""Event files to embeddings, slice by slice, and the quantities of the same events."""

from collections.abc import Sequence

import numpy as np

from engines.artifact import SampleFacts
from engines.engine import Engine
from engines.event_files import EventFile
from engines.event_quantities import QUANTITIES, event_quantities
from engines.events import EventRange
from engines.progress import Progress
from engines.types import FloatArray
from engines.unseen import refuse_marked_events

__all__ = ["embed_events"]


def embed_events(
    engine: Engine, sources: Sequence[EventRange], title: str
) -> tuple[FloatArray, FloatArray]:
    """Return embeddings, (n, d), and quantities, (n, 5), of all events of the files.

    Args:
        engine: the encoder.
        sources: what to read, slice by slice.
        title: of the progress.

    Raises:
        MismatchError: if events that the encoder was trained on are recognised among them.
    """
    embeddings = [np.empty((0, engine.dim), np.float32)]
    quantities = [np.empty((0, len(QUANTITIES)), np.float32)]
    total = sum(facts.stop - facts.start for facts in map(SampleFacts.of, sources))
    shown = Progress(total, title)
    for source in sources:
        with EventFile(source.path) as file:
            for particles in file.slices(source.start, source.stop):
                refuse_marked_events(engine.facts, particles, source.path)
                embeddings.append(engine.embed(particles))
                quantities.append(event_quantities(particles))
                shown.advance(len(particles))
    shown.close()
    return np.concatenate(embeddings), np.concatenate(quantities)
