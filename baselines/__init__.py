"""What the designs are compared against: the same contracts, built from ``models.layers``."""
