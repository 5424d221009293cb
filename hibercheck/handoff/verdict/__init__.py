"""What becomes of the machine, said with evidence."""
