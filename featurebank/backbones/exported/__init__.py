"""Networks exported once and run without torch: where they are kept, what proves them, and how they run."""
