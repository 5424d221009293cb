"""What is known of the resumee, of the resumer and of their machine, and how well."""
