"""From a predictor and a part of a split to scores: counts first, values last."""
