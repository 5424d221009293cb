"""Ways to park a CPU across a resume, side by side: what has been shipped, what has been proposed."""
