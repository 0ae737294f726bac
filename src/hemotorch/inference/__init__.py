"""From a scan to a prediction, and a prediction as files.

baseline    the rule-based baseline: bright inside the skull
checkpoint  the weights of a network and all that predicting with it needs, as one file
outputs     a prediction as files: mask, NAME.json, contact sheet
model       load_model and predict: the way in for Python, without torch until a model is loaded
predictor   Scan to Prediction with what a training deployed
"""
