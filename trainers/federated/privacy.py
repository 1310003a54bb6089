"""Clips and adds noise to a client's update before it is sent, and accounts for the privacy that is left.

The unit is one user: two logs are neighbours if they differ in all listens of one user. Who the users are and which
client they belong to is public; a user without listens sends zeros. In each round each client draws its users with a
coin of its own, clips each drawn user's update to length C, adds them up, adds Gaussian noise of standard deviation
z C to every number, and divides by the expected number of drawn users. So each message is a Poisson-sampled Gaussian
mechanism of sensitivity C, for the server too, which sees no coin.

Sources: McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018 (users as the unit, a
fixed denominator); Mironov et al., "Renyi Differential Privacy of the Sampled Gaussian Mechanism", 2019 (the account).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Generator, Tensor

from trainers.federated.federated_config import FederatedConfig

ORDERS = [*range(2, 65), 128, 256, 512, 1024]
"""Whole orders of the Renyi divergence: for fractions the account of a sampled Gaussian often does not converge."""

Parameters = Mapping[str, Tensor]
"""Parameters by name, or an update of them."""


def clipped(update: Parameters, norm: float) -> dict[str, Tensor]:
    """Return the update, scaled down if all of its tensors together are longer than ``norm``."""
    length = math.sqrt(sum(float(values.double().square().sum()) for values in update.values()))
    scale = min(1.0, norm / length) if length else 1.0
    return {name: values * scale for name, values in update.items()}


def noisy(update: Parameters, deviation: float, generator: Generator) -> dict[str, Tensor]:
    """Return the update with Gaussian noise on every number, so that no row is sent as it was."""
    return {
        name: values + deviation * torch.randn(values.shape, generator=generator) for name, values in update.items()
    }


def epsilon(config: FederatedConfig, releases: Iterable[float]) -> float:
    """Return epsilon of one user at ``config.delta`` after releases that each included the user by ``user_rate``.

    The account is Google's ``dp-accounting``, Flower's own choice (``flwr[dp]``); it is in Flower's environment only.

    Args:
        releases: the noise multiplier of each: standard deviation of the noise over ``clipping_norm``.
    """
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(ORDERS)
    for multiplier, count in sorted(Counter(releases).items()):
        gaussian = dp_event.GaussianDpEvent(multiplier)
        accountant.compose(dp_event.PoissonSampledDpEvent(config.user_rate, gaussian), count)
    return float(accountant.get_epsilon(config.delta))


def epsilons(config: FederatedConfig, answers: list[int]) -> dict[str, float]:
    """Return what a run has cost each user; nothing for a run without noise, which bounds nothing.

    ``epsilon`` is against an attacker who sees every message of the user's client, such as the server, as if the client
    had answered each round. ``epsilon_of_averages`` is against an attacker who sees only the rounds' averages, in which
    the noise of all clients that answered adds up.

    Args:
        answers: how many clients answered in each round.
    """
    if not config.noise_multiplier:
        return {}
    each, rounds = config.noise_multiplier, [count for count in answers if count]
    return {
        "epsilon": epsilon(config, [each] * len(rounds)),
        "epsilon_of_averages": epsilon(config, [each * math.sqrt(count) for count in rounds]),
    }
