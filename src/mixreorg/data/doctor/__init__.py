"""The data doctor: what is missing, damaged or doubtful in a set of caption pairs, before training reads it."""
