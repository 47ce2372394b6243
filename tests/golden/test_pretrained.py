"""The encoders that come with the project, on events that trained and calibrated neither."""

import numpy as np
import pytest

from engines.engine import Engine, open_engine
from engines.errors import MismatchError
from engines.event_files import EventFile
from engines.nplm import NullDistribution, z_score
from engines.pretrained import PRETRAINED, pretrained_path
from engines.reference_file import ReferenceArtifact, load_reference
from engines.samples import sample_path
from engines.types import FloatArray
from engines.unseen import refuse_marked_events

N_WINDOW = 5000


def events(name: str) -> FloatArray:
    with EventFile(sample_path(name)) as file:
        return np.concatenate(list(file.slices(0, len(file))))


@pytest.fixture(scope="module", params=PRETRAINED)
def pair(request: pytest.FixtureRequest) -> tuple[Engine, ReferenceArtifact]:
    path = pretrained_path(request.param)
    return open_engine(path), load_reference(path.with_suffix(".ref"))


def windows_z(pair: tuple[Engine, ReferenceArtifact], signal: str, n_signal: int) -> list[float]:
    """Z of the four disjoint windows of the unseen background, each with signal of its own."""
    engine, artifact = pair
    background, added = engine.embed(events("sm_unseen")), engine.embed(events(signal))
    n_windows = len(background) // N_WINDOW
    windows = [
        np.r_[
            k * N_WINDOW : (k + 1) * N_WINDOW - n_signal,
            len(background) + k * n_signal : len(background) + (k + 1) * n_signal,
        ]
        for k in range(n_windows)
    ]
    t = artifact.reference.test_toys(np.concatenate([background, added]), np.array(windows))[:, 0]
    null: NullDistribution = artifact.nulls[1].nulls[0]
    return [z_score(null.chi2_p_value(value)) for value in t]


def test_reference_belongs_to_its_encoder(pair: tuple[Engine, ReferenceArtifact]) -> None:
    engine, artifact = pair
    assert artifact.facts.engine_fingerprint == engine.fingerprint
    assert artifact.facts.window.n_expected == N_WINDOW
    null = artifact.nulls[1].nulls[0]
    assert len(null.t) == 1000
    # The toys follow the law that alarms rest on, or spread less: then Z errs to the safe side.
    assert 0.85 < null.std / np.sqrt(2 * null.mean) < 1.05


def test_what_trained_an_encoder_is_recognised_and_what_did_not_is_not(
    pair: tuple[Engine, ReferenceArtifact],
) -> None:
    engine, _ = pair
    for name in ("sm_unseen", "A4l"):
        refuse_marked_events(engine.facts, events(name), sample_path(name))
    with pytest.raises(MismatchError, match="holds events that the encoder was trained on"):
        refuse_marked_events(engine.facts, events("sm_cocktail"), sample_path("sm_cocktail"))


def test_unseen_background_is_no_discovery(pair: tuple[Engine, ReferenceArtifact]) -> None:
    z = windows_z(pair, "A4l", 0)
    assert len(z) == 4
    assert np.max(np.abs(z)) < 3.5  # a right null fails this once in 270, with two encoders
    assert abs(np.mean(z)) < 1.5


@pytest.mark.parametrize(("signal", "least"), [("A4l", 6.0), ("LQbtau", 1.5)])
def test_two_percent_of_a_signal_are_seen(
    pair: tuple[Engine, ReferenceArtifact], signal: str, least: float
) -> None:
    z = windows_z(pair, signal, N_WINDOW // 50)
    assert np.median(z) > least
    assert min(z) > 5 or signal != "A4l"  # each window would alarm at one false alarm a month
