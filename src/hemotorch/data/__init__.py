"""The prepared dataset: from folders of any layout to shards, records, splits and counts."""
