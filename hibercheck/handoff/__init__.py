"""The meeting of image, kernels and machine: facts, scenario, footprint, replay, verdict."""
