"""What machine is this: facts, the detectors that find them, and sizes derived from them."""
