"""Every object's light curve, and the claims that make each alert count once."""
