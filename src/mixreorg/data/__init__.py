"""What training reads: caption pairs, image transforms, batches, and the scenes that need no download."""
