"""The machine: paging, memory, CPU and APIC state, exception delivery.  Knows nothing of Linux."""
