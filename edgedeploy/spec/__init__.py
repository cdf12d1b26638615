"""What the user writes: the study file, checked as a whole before anything starts."""
