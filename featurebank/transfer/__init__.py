"""Which transfer, when: advice, ranking, domain adaptation, few labels, no labels."""
