"""The data sets of zero-shot evaluation: class lists, folders, masks, checks and conversions."""
