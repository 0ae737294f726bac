"""The prepared dataset: from folders of any layout to shards, records, splits and counts.

audit            which patients and identical slices are on both sides of a split
case_record      the record of a prepared case
case_source      makes the record, and tells whether the source changed since
dataset          the prepared dataset on disk
inventory        how many scans, slices and patients there are
layouts/         how folders of scans are laid out: recognised, opened, written
make_splits      makes the named splits, by patient and stratified
manifest         the table of all slices, manifest.csv
painted_folders  paints bleeding into a folder of normal scans
phantom_folders  writes a phantom dataset in any layout
png_folders      the 2021 paper's PNG folders of a prepared dataset
prepare          from cases of any layout to a prepared dataset
prepared_summary what `prepare` did, in words and for JSON
shards           a stack of slices as one Zarr array in one file
splits           named splits, and splits.json, which holds them
"""
