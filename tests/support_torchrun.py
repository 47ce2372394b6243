"""Run under torchrun: the gradient of a batch that processes share is that of one with all of it.

Each process computes both, and fails if they differ by more than rounding.
"""

import sys

import numpy as np
import torch

from engines.event_files import read_events
from engines.samples import sample_path
from training.augment import parse_augmentations
from training.data import EventSet
from training.distributed import ALONE, Group, open_group
from training.encoders import EncoderConfig, build_model
from training.networks.preprocess import measure_scaling
from training.objective import LossConfig, parse_objective
from training.views import BatchLoss, Part, Precision

LOSS = "supcon+simclr+vicreg+ce"


def gradients(group: Group) -> tuple[float, dict[str, torch.Tensor]]:
    particles = read_events(f"{sample_path('sm_rare')}@0:100")
    events = EventSet(particles, np.arange(100) % 2, (0, 1), None)
    config = EncoderConfig("transformer", head="dino")
    model = build_model(config, measure_scaling(particles), 2, seed=0)
    augment = parse_augmentations("masking,rotation")
    how = BatchLoss(
        parse_objective(LOSS), LossConfig(), augment, "balanced", True, True, Precision()
    )
    part = Part(events, np.arange(100), how, 32, group)
    generator = torch.Generator().manual_seed(0)
    loss = part.loss(model, next(part.sampler.batches(generator)), generator)
    loss.backward()  # type: ignore[no-untyped-call]
    group.add_gradients(model)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), found


def main() -> int:
    torch.set_num_threads(1)
    with open_group("cpu") as group:
        (loss, shared), (expected, alone) = gradients(group), gradients(ALONE)
        size = max(float(gradient.norm()) for gradient in alone.values())
        worst = max(float((shared[name] - alone[name]).norm()) / size for name in alone)
        sys.stdout.write(f"of {group.size}: loss {loss - expected:.1e}, gradient {worst:.1e}\n")
        return int(group.size != 2 or abs(loss - expected) > 1e-5 or worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
