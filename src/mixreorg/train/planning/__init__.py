"""What a run will take before it is started: operations, memory, reading, time."""
