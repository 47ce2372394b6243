"""The NPLM test: are these data the null, without knowing what else they might be?

Read in this order: kernel, basis, losses, sums, solver, statistic, problems, reference, toys,
null, min_p, relabel. Conventions, the same everywhere:

    k(x, c) = exp(-|x - c|^2 / 2 sigma^2)              Gaussian kernel
    f(x) = sum_m alpha_m k(x, c_m)                     log density ratio, data over reference
    w = N(R) / n_ref                                   weight of a reference event
    n L = sum_D softplus(-f) + w sum_R softplus(f) + (lam n / 2) alpha^T K alpha
    n = n_ref + N(R)                                   fixed, whatever a window holds
    t = 2 [ sum_D f - w sum_R (e^f - 1) ]              test statistic, at the minimum of L
    p = (k + 1) / (n_toys + 1)                         k toys at or above t; never 0
    Z = Phi^-1(1 - p)

Three disjoint samples of background are needed, none of them seen by the encoder's training:
`basis` (standardisation, sigma, centres, projector), `reference`, and the calibration `pool`.

Sources: arXiv:1806.02350 (the idea, the likelihood loss), 2204.02317 (kernel version), 2305.14137,
2408.12296 (several widths), 2502.15926 (on contrastive embeddings).
"""

from engines.nplm.basis import Basis, BasisConfig, Width, build_basis
from engines.nplm.losses import Loss
from engines.nplm.min_p import Judgement, WidthNulls
from engines.nplm.null import NullDistribution, Tail, z_score
from engines.nplm.reference import CachedReference, Features
from engines.nplm.relabel import Relabelling
from engines.nplm.tested_window import FittedTest, WindowTest
from engines.nplm.threads import check_device
from engines.nplm.toys import draw_toys, events_for_pool, offset_share

__all__ = [
    "Basis",
    "BasisConfig",
    "CachedReference",
    "Features",
    "FittedTest",
    "Judgement",
    "Loss",
    "NullDistribution",
    "Relabelling",
    "Tail",
    "Width",
    "WidthNulls",
    "WindowTest",
    "build_basis",
    "check_device",
    "draw_toys",
    "events_for_pool",
    "offset_share",
    "z_score",
]
