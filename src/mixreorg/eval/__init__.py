"""Zero-shot evaluation: splits with masks, confusion matrices, and the measures made of them."""
