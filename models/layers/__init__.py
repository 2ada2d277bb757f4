"""Parts that designs and baselines share."""
