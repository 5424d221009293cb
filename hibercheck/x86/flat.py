"""Delivery of an event in 32-bit protected mode without paging: every address is a physical one.

Source: Intel SDM 3A 6.12.1 "Exception- or Interrupt-Handler Procedures", 6.11 "IDT Descriptors"; the CPU is at
privilege level 0 and stays there, so that no stack is switched.  Only what a parking place without paging needs is
modelled: an interrupt or trap gate, a flat code segment, EFLAGS, CS and EIP on the current stack.
"""

from __future__ import annotations

from hibercheck.addresses import PAGE_SHIFT, PAGE_SIZE
from hibercheck.x86.cpu import CpuState
from hibercheck.x86.exceptions import Delivery, DeliveryEnd, EventAccess, Raised, Role
from hibercheck.x86.memory import PhysicalMemory, UnknownMemory, read
from hibercheck.x86.paging import Access, Walk

_FRAME = 12  # EFLAGS, CS, EIP


def deliver_flat(memory: PhysicalMemory, cpu: CpuState, vector: int, *, reason: str = "") -> Delivery:
    """Deliver an event to a CPU that does not page, up to the first fetch of its handler.

    Args:
        memory: The frames as they are at this moment.
        cpu: The CPU; CR0.PG is clear.
        vector: 2 for an NMI, 18 for a machine check.
        reason: What caused the event, for the result.
    """
    accesses: list[EventAccess] = []
    raised = (Raised(vector, None, None, cpu.rip, cpu.rsp, reason),)

    def access(role: Role, address: int, size: int, kind: Access) -> int:
        """Do one access within a page; return the number read."""
        walked = Walk(address, kind, 0, (), physical=address)
        content = None
        try:
            if memory.frame(address >> PAGE_SHIFT) is None:
                raise UnknownMemory(address >> PAGE_SHIFT)
            if kind is not Access.WRITE:
                content = read(memory, address, min(size, PAGE_SIZE - address % PAGE_SIZE))
        finally:
            accesses.append(EventAccess(role, vector, size, walked, content))
        return int.from_bytes(content or b"", "little")

    def end(how: DeliveryEnd, why: str, rip: int, rsp: int, unknown: int | None = None) -> Delivery:
        return Delivery(how, tuple(accesses), raised, rip, rsp, unknown, why)

    try:
        gate = access(Role.IDT_GATE, cpu.idt_base + 8 * vector, 8, Access.READ)
        if gate >> 40 & 0x1F not in {0xE, 0xF} or not gate >> 47 & 1:
            return end(DeliveryEnd.SHUTDOWN, f"gate {vector} is not an interrupt or trap gate", cpu.rip, cpu.rsp)
        selector, handler = gate >> 16 & 0xFFF8, gate & 0xFFFF | gate >> 32 & 0xFFFF_0000
        descriptor = access(Role.CODE_SEGMENT, cpu.gdt_base + selector, 8, Access.READ)
        if descriptor >> 43 & 3 != 3 or not descriptor >> 47 & 1:
            return end(DeliveryEnd.SHUTDOWN, f"selector {selector:#x} is not a code segment", cpu.rip, cpu.rsp)
        access(Role.STACK, cpu.rsp - _FRAME, _FRAME, Access.WRITE)
        access(Role.HANDLER, handler, 1, Access.FETCH)
    except UnknownMemory as unknown:
        return end(DeliveryEnd.UNKNOWN, str(unknown), cpu.rip, cpu.rsp, unknown.pfn)
    return end(DeliveryEnd.HANDLED, f"the handler of vector {vector} runs", handler, cpu.rsp - _FRAME)
