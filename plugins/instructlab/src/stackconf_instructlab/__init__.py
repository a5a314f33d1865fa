"""InstructLab's data generation, training and evaluation as three providers that agree."""
