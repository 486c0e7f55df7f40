"""One-class top models: what is normal, learned without anomalies; thresholds that keep a promise."""
