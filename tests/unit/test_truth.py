"""The join of results with the producer's log counts each signal event once."""

from hypothesis import given
from hypothesis import strategies as st

from stream.truth import join_truth


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=12),
    st.integers(1, 10),
)
def test_windows_hold_their_own_signal(messages: list[list[bool]], window: int) -> None:
    log = [
        {
            "source": "a",
            "seq": seq,
            "n": len(flags),
            "signal": [i for i, f in enumerate(flags) if f],
        }
        for seq, flags in enumerate(messages)
    ]
    places = [(seq, i) for seq, flags in enumerate(messages) for i in range(len(flags))]
    flags = [flag for message in messages for flag in message]
    results: list[dict[str, object]] = []
    wanted = []
    for start in range(0, len(places) - window + 1, window):
        first, last = places[start], places[start + window - 1]
        span = {"source": "a", "first_seq": first[0], "first_event": first[1]}
        span |= {"last_seq": last[0], "stop_event": last[1] + 1}
        results.append({"window": len(results), "spans": [span]})
        wanted.append(sum(flags[start : start + window]))
    joined = join_truth(results, log)
    assert [line["n_injected"] for line in joined] == wanted
    assert all("n_injected" not in line for line in results)
