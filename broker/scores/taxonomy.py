"""The classes every model speaks: leaves that exclude each other, each in exactly one family."""

from __future__ import annotations

FAMILIES: dict[str, tuple[str, ...]] = {
    "transient": ("SNIa", "SNII", "SNIIn", "SNIbc", "SLSN", "TDE", "KN", "Microlensing"),
    "stochastic": ("AGN",),
    # Stars of every kind. What sets them apart from galaxies' events is the place, seen from the first alert;
    # whether a star keeps a period or bursts (CV), flares or flickers (YSO) takes months to see. Other is
    # here too: the labelled objects that are none of the leaves are stars (symbiotic ones, X-ray binaries).
    "periodic": (
        "CV",
        "Nova",
        "MDwarfFlare",
        "YSO",
        "RRLyrae",
        "CEP",
        "DSCT",
        "EB",
        "LPV",
        "RotV",
        "Other",
    ),
    "moving": ("SSO",),
    "bogus": ("Bogus",),
}
"""Family to its leaves."""

LEAVES: tuple[str, ...] = (
    "SNIa",
    "SNII",
    "SNIIn",
    "SNIbc",
    "SLSN",
    "TDE",
    "KN",
    "AGN",
    "CV",
    "Nova",
    "MDwarfFlare",
    "Microlensing",
    "YSO",
    "RRLyrae",
    "CEP",
    "DSCT",
    "EB",
    "LPV",
    "RotV",
    "SSO",
    "Bogus",
    "Other",
)
"""Every leaf, in the order of the `prob_<leaf>` columns."""

FAMILY_OF: dict[str, str] = {leaf: family for family, leaves in FAMILIES.items() for leaf in leaves}
"""Leaf to its family."""
