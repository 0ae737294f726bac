"""From a scan to a prediction, and a prediction as files."""
