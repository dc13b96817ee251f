"""Canvas shapes as JSON, a program that runs them, and what may differ between the two worlds."""
