"""From a predictor and a part of a split to scores: counts first, values last.

comparison   how a prediction of one scan compares with its truth
confusion    which type of bleeding was taken for which, counts of one scan
counts       sums over voxels, and values of those sums
detection    is there bleeding at all: sensitivity, specificity, ranking
doubted      the scans in doubt beside the others
evaluate     a predictor and a part of a split to Scores
examples     scans worth looking at, with their telling slices
intervals    95 % intervals by resampling patients
lesion       which separate bleedings were found
over_scans   values over scans, with intervals over their patients
per_type     values per type of bleeding: Dice, mL, confusion between types
scan_score   one scan's score, also as rows of tables
scored_part  the part of a split that is scored: its slices, their truth, what to know of it
scores       Scores: the values with all that is needed to read them
summary      from the counts of all scans to the values of a report
table1       Table 1 of Sokolovskyy et al. 2021
volume       mL too many or too few: Bland-Altman
"""
