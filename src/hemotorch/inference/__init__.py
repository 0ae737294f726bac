"""From a scan to a prediction, and a prediction as files.

baseline   the rule-based baseline: bright inside the skull
outputs    a prediction as files: mask, NAME.json, contact sheet
predictor  Scan to Prediction with what a training deployed
"""
