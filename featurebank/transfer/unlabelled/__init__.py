"""Images without labels: clusters, outliers, semi-supervised fits, what to label next."""
