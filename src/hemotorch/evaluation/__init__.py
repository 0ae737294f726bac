"""From a predictor and a part of a split to scores: counts first, values last.

counts     sums over voxels, and values of those sums
detection  is there bleeding at all: sensitivity, specificity, ranking
evaluate   a predictor and a part of a split to Scores
intervals  95 % intervals by resampling patients
lesion     which separate bleedings were found
scores     Scores: the values with all that is needed to read them
summary    from the counts of all scans to the values of a report
table1     Table 1 of Sokolovskyy et al. 2021
volume     mL too many or too few: Bland-Altman
"""
