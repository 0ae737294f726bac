"""How fast a training or a prediction is, on what, why, and what to change: `hemotorch bench`."""
