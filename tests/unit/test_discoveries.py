"""Discoveries of the package online-fdr, at a cost that does not grow with the run."""

import json

import numpy as np
from online_fdr.p_values import Lond

from stream.discoveries import Discoveries


def test_any_dependence_is_the_packages_own_rule() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = Discoveries(0.1, "lond-dependent"), Lond(0.1, dependent=True)
    for number in range(1, 400):
        # Half of the p-values lie close to the level.
        level = 0.1 * theirs.seq.calc_gamma(number, alpha=1.0) * (theirs.num_reject + 1)
        level /= np.sum(1.0 / np.arange(1, number + 1))
        p = float(rng.choice([rng.uniform(), level * rng.uniform(0.5, 1.5)]))
        if number == 200:
            again = Discoveries(0.1, "lond-dependent")
            again.restore(json.loads(json.dumps(ours.state())))
            ours = again
        assert ours.test(p) == theirs.test_one(p), number
    assert theirs.num_reject > 20
