"""Networks of the course's own; what diffusers and transformers have is taken from there."""
