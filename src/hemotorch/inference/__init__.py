"""From a scan to a prediction, and a prediction as files.

abc2         ABC/2, the volume as it is estimated by hand
baseline     the rule-based baseline: bright inside the skull
box/         the models that come with hemotorch, each with a card
checkpoint   the weights of a network and all that predicting with it needs, as one file
deployment   what predicting with a network needs besides its weights
doubts       what speaks against a prediction, each with a code, a sentence and a number
inspection   what is in files and folders before anything is predicted
load         load_model and predict: the way in for Python, without torch until a run is loaded
model        what a model is to everything else, and several models as one
onnx_export  a run's network as an ONNX file, compared at once with the network
onnx_model   an ONNX file as a model, without torch
onnx_weights an exported network as a torch network again, to train on from it
outputs      a prediction as files: mask, NAME.json, contact sheet
pieces       connected pieces of a mask, by their volume, and how sure the model is of them
predictor    Scan to Prediction with what a training deployed
pseudonyms   pseudonyms of studies and patients, and the file that says whose they are
second_look  a few slices looked at again, mirrored, moved, darker and brighter
seen         what a model has seen in training: level, noise and shading of brains, contrast
scan_files   which files are scans to predict, and what the files made from each are called
stacks       what networks see: stacks of slices, blocks and their stitching
studies      files and folders to predicted studies: what is done already, the change since an earlier study
study        the record of a predicted study, NAME.json
torch_model  a torch network as a model
visits       whose scans outside DICOM are and when they were made, as a table says
"""
