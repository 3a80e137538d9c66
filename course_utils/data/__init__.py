"""Pictures to learn from: the picture book, digits, photographs, points in the plane, a folder of the learner's own;
what happens to pictures on their way (`distortions`), and what instruments keep of them (`measurements`).

Every loader returns float tensors in [-1, 1], (batch, channels, height, width); nothing here knows a network.
"""
