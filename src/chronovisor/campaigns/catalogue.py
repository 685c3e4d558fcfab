"""The campaigns by name. A campaign's module is imported only if the campaign is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from chronovisor.campaigns.campaign import Campaign, CampaignError

_CHECKOUT: Final = "chronovisor.campaigns.checkout"
CAMPAIGNS: Final = {
    "fleet": (
        "chronovisor.campaigns.fleet.campaign",
        "What do a year's moves do to the clocks of a fleet's guests, under which rule?",
    ),
    "interleavings": (
        "chronovisor.campaigns.interleavings",
        "Do the promises hold in every order of the steps of a virtual core's eight threads?",
    ),
    "drift": (
        "chronovisor.campaigns.drift",
        "How far do thousands of hops take a guest's clock, over many seeds?",
    ),
    "oracle": (_CHECKOUT, "Do instructions and programs do what they do in QEMU?"),
    "engines": (_CHECKOUT, "Do all evaluators of the instructions' meanings do the same?"),
    "fuzz": (_CHECKOUT, "Can a stream, a snapshot or a guest do harm?"),
    "faults": (
        _CHECKOUT,
        "If anything fails in a move, does at most one side run, its time in order?",
    ),
    "model": (_CHECKOUT, "Do the promises hold over random courses of a fleet?"),
    "boots": (_CHECKOUT, "Does Linux boot and keep its clocks if it moves at random moments of its boot?"),
    "proofs": ("chronovisor.campaigns.proofs", "Do all claims hold, if each has hours for its proof?"),
}
"""The module of each campaign, and the question that the campaign answers. The module has the campaign as its
`CAMPAIGN`; that of a checkout's campaigns has them in its `CAMPAIGNS`, by name.
"""


def campaign_named(name: str) -> Campaign:
    """Return the campaign of that name. A name with a dot is a module of one's own, whose `CAMPAIGN` it is.

    Raises `CampaignError` for an unknown name.
    """
    home, _ = CAMPAIGNS.get(name, (name, ""))
    if "." not in home:
        raise CampaignError(f"there is no campaign {name!r}: there are {', '.join(sorted(CAMPAIGNS))}")
    try:
        module = import_module(home)
        campaign: Campaign = module.CAMPAIGNS[name] if home == _CHECKOUT else module.CAMPAIGN
    except (ModuleNotFoundError, AttributeError) as error:
        if home != name:
            raise
        raise CampaignError(f"the module {name} has no campaign: {error}") from None
    return campaign
