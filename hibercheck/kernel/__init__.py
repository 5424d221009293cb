"""A kernel file: ELF, vmlinuz, symbols, kallsyms, BTF, code.  Knows nothing of images."""
