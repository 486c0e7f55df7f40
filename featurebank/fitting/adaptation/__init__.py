"""From one domain to another: adapters, trials, and the fit that chooses among them."""
