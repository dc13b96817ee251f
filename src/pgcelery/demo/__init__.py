"""The application that `pgcelery demo` runs: a small shop whose orders are workflows."""
