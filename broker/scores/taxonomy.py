"""The classes every model speaks: leaves that exclude each other, each in exactly one family."""

from __future__ import annotations

FAMILIES: dict[str, tuple[str, ...]] = {
    # One event, or outbursts that come unannounced: cataclysmic variables belong here because what an alert
    # shows is the outburst, and because the published label "CV/Nova" must fall into one family.
    "transient": (
        "SNIa",
        "SNII",
        "SNIIn",
        "SNIbc",
        "SLSN",
        "TDE",
        "KN",
        "CV",
        "Nova",
        "MDwarfFlare",
        "Microlensing",
    ),
    # Always varying, without a period. Other is here: a source that varies and is none of the leaves.
    "stochastic": ("AGN", "YSO", "Other"),
    "periodic": ("RRLyrae", "CEP", "DSCT", "EB", "LPV", "RotV"),
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
