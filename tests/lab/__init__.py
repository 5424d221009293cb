"""The lab: real kernels hibernate and resume in QEMU, and every prediction is compared with what happened."""
