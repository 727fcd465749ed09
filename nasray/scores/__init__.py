"""Zero-shot scores: entropies in closed form and sampled, comparison proxies, rank agreement."""
