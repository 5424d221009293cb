"""What a kernel's own code says about the handoff: disassembly, park loops and traits."""
