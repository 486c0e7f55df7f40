"""The bank: what lies on the disk (spec, segment, sample table, folder), and `Bank`, the face that people use."""
