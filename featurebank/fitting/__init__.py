"""`fit`: a bank's columns and embeddings to a scored model, of one task, of several, with few labels, over domains."""
