"""What the project is measured and tried with: the benchmark and the network laboratory. Not part of the package."""
