// What becomes of the CPUs that the resumer parked, from its call of restore_image on.
//
// The boot CPU passes three marks: the call of restore_image, the jump into the relocated copy loop, the jump into the
// resumee.  In the copy loop each page ends with a direct jump back (core_restore_code in
// arch/x86/power/hibernate_asm_64.S), which is how copies are counted.
#include "bochs.h"
#include "cpu/cpu.h"
#include "memory/memory-bochs.h"
#include "pc_system.h"

static const unsigned TICKS_PER_COPY = 514;        // REP MOVSQ of a page and the loop around it: measured, for what is after the copy
static const Bit64u LONGEST = BX_CONST64(6000000000);  // ticks after restore_image; a minute of the guest's time
static const unsigned ACCESSED_DIRTY = 0x60;

lab_phase_t lab_phase = LAB_BEFORE;
bool lab_parked[BX_MAX_SMP_THREADS_SUPPORTED];
bx_address lab_restore_image = ~(bx_address)0;
int lab_storing_cpu = -1;

static Bit64u copies, copied_at, delayed_to[BX_MAX_SMP_THREADS_SUPPORTED];
static bool fetched_other[BX_MAX_SMP_THREADS_SUPPORTED], walked_other[BX_MAX_SMP_THREADS_SUPPORTED];

static const char *phase_name()
{
  static const char *const names[] = { "before", "parked", "copy", "resumee" };
  return names[lab_phase];
}

// The page that is being copied, from 1; after the copy, what it would be if it went on.
static Bit64u copy_now()
{
  if (lab_phase < LAB_COPY) return 0;
  if (lab_phase == LAB_COPY) return copies + 1;
  return copies + 1 + (bx_pc_system.time_ticks() - copied_at) / TICKS_PER_COPY;
}

void lab_state(unsigned n)
{
  static const char *const names[] = { "active", "hlt", "shutdown", "wait-for-sipi", "mwait", "mwait" };
  BX_CPU_C *c = BX_CPU(n);
  unsigned state = c->activity_state;
  lab_say("\"event\": \"state\", \"cpu\": %u, \"state\": \"%s\", \"rip\": %llu, \"rsp\": %llu, \"cr3\": %llu, \"line\": %lld, \"hint\": %u",
      n, state < 6 ? names[state] : "?", (unsigned long long)c->gen_reg[BX_64BIT_REG_RIP].rrx,
      (unsigned long long)c->gen_reg[BX_64BIT_REG_RSP].rrx, (unsigned long long)c->cr3,
      c->monitor.armed() ? (long long)c->monitor.monitor_addr : -1LL, (unsigned)c->gen_reg[BX_64BIT_REG_RAX].rrx);
}

static bool forgetting;

// TLB_flush() would also disarm the monitor and wake the CPU.
static void forget_translations(unsigned n)
{
  BX_CPU_C *c = BX_CPU(n);
  forgetting = true;
  auto monitor = c->monitor;
  auto state = c->activity_state;
  c->TLB_flush();
  c->monitor = monitor;
  c->activity_state = state;
  forgetting = false;
}

static bool asleep_in_mwait(unsigned n)
{
  return BX_CPU(n)->activity_state >= BX_CPU_C::BX_ACTIVITY_STATE_MWAIT;
}

static void too_long(void *)
{
  if (lab_phase > LAB_BEFORE) lab_end("limit", 0);
}

static void handoff()
{
  lab_dump(getenv("LAB_DUMP"));
  lab_remember_memory();
  lab_run_variants();                    // from here on in a process of the variant
  lab_phase = LAB_PARKED;
  lab_say("\"event\": \"phase\", \"phase\": \"parked\"");
  bx_pc_system.register_timer_ticks(&lab_phase, too_long, LONGEST, false, true, "lab limit");
  for (unsigned n = 0; n < BX_SMP_PROCESSORS; n++) {
    lab_parked[n] = n != 0;
    lab_state(n);
    if (n && lab_variant.cold && asleep_in_mwait(n)) forget_translations(n);
  }
}

void lab_branch(unsigned cpu, unsigned what, bx_address from, bx_address to)
{
  if (cpu) return;
  if (to == lab_restore_image && lab_phase == LAB_BEFORE) {
    handoff();
  } else if (what == BX_INSTR_IS_JMP_INDIRECT && lab_phase == LAB_PARKED) {
    lab_phase = LAB_COPY;
    lab_say("\"event\": \"phase\", \"phase\": \"copy\"");
  } else if (what == BX_INSTR_IS_JMP && lab_phase == LAB_COPY) {
    copies++;
  } else if (what == BX_INSTR_IS_JMP_INDIRECT && lab_phase == LAB_COPY) {
    lab_phase = LAB_RESUMEE;
    copied_at = bx_pc_system.time_ticks();
    lab_say("\"event\": \"phase\", \"phase\": \"resumee\", \"copies\": %llu", (unsigned long long)copies);
    for (unsigned n = 1; n < BX_SMP_PROCESSORS; n++) lab_state(n);
  }
}

void lab_reset(unsigned cpu, unsigned type)
{
  if (!lab_loaded) return;
  if (type == BX_RESET_HARDWARE) {
    lab_say("\"event\": \"reset\", \"cpu\": %u, \"phase\": \"%s\", \"copy\": %llu", cpu, phase_name(), (unsigned long long)copy_now());
    lab_end("reset", 0);
  }
  if (lab_phase == LAB_BEFORE) return;
  lab_say("\"event\": \"init\", \"cpu\": %u, \"parked\": %s, \"phase\": \"%s\"", cpu, lab_parked[cpu] ? "true" : "false", phase_name());
  lab_parked[cpu] = false;
}

void lab_sipi(unsigned cpu, unsigned vector)
{
  if (lab_phase == LAB_BEFORE) return;
  lab_say("\"event\": \"sipi\", \"cpu\": %u, \"vector\": %u", cpu, vector);
  lab_parked[cpu] = false;
}

void lab_sleeps(unsigned cpu)
{
  unsigned state = BX_CPU(cpu)->activity_state;
  bool halts = state == BX_CPU_C::BX_ACTIVITY_STATE_HLT;
  if (!lab_parked[cpu] || !(halts || state == BX_CPU_C::BX_ACTIVITY_STATE_SHUTDOWN)) return;   // MWAIT: lab_mwait() has said it
  lab_say("\"event\": \"parks\", \"cpu\": %u, \"in\": \"%s\", \"copy\": %llu, \"phase\": \"%s\", \"rip\": %llu", cpu,
      halts ? "hlt" : "shutdown", (unsigned long long)copy_now(), phase_name(),
      (unsigned long long)BX_CPU(cpu)->gen_reg[BX_64BIT_REG_RIP].rrx);
}

void lab_mwait(unsigned cpu, bx_phy_address line)
{
  if (!lab_parked[cpu]) return;
  lab_say("\"event\": \"parks\", \"cpu\": %u, \"in\": \"mwait\", \"copy\": %llu, \"phase\": \"%s\", \"rip\": %llu, \"line\": %llu", cpu,
      (unsigned long long)copy_now(), phase_name(), (unsigned long long)BX_CPU(cpu)->gen_reg[BX_64BIT_REG_RIP].rrx, (unsigned long long)line);
  if (lab_variant.cold) forget_translations(cpu);
}

void lab_wake(unsigned cpu, const char *why, bx_phy_address store)
{
  if (!lab_parked[cpu] || forgetting) return;
  bool stored = !strcmp(why, "store");
  if (!stored) delayed_to[cpu] = 0;
  lab_say("\"event\": \"wakes\", \"cpu\": %u, \"by\": \"%s\", \"copy\": %llu, \"phase\": \"%s\", \"address\": %llu, \"storer\": %d", cpu, why,
      (unsigned long long)copy_now(), phase_name(), (unsigned long long)store, stored ? lab_storing_cpu : -1);
}

void lab_exception(unsigned cpu, unsigned vector, unsigned error_code)
{
  BX_CPU_C *c = BX_CPU(cpu);
  bool third = c->last_exception_type == 10;                // BX_ET_DOUBLE_FAULT: one more is a shutdown
  bool grave = lab_phase != LAB_BEFORE && (third || vector == 8 || vector == 18);
  if (!grave && !lab_parked[cpu]) return;
  lab_say("\"event\": \"exception\", \"cpu\": %u, \"vector\": %u, \"error\": %u, \"cr2\": %llu, \"rip\": %llu, \"copy\": %llu, \"parked\": %s, \"third\": %s",
      cpu, vector, error_code, (unsigned long long)c->cr2, (unsigned long long)c->prev_rip, (unsigned long long)copy_now(),
      lab_parked[cpu] ? "true" : "false", third ? "true" : "false");
}

void lab_interrupt(unsigned cpu, unsigned vector)
{
  if (lab_parked[cpu])
    lab_say("\"event\": \"interrupt\", \"cpu\": %u, \"vector\": %u, \"copy\": %llu", cpu, vector, (unsigned long long)copy_now());
}

// The first instruction that is not the resumer's; what follows is chance.
void lab_fetch(unsigned cpu, unsigned length)
{
  BX_CPU_C *c = BX_CPU(cpu);
  if (fetched_other[cpu] || !length) return;          // Bochs ends a trace with an instruction of its own, of no length
  unsigned offset = (unsigned)(c->gen_reg[BX_64BIT_REG_RIP].rrx + c->eipPageBias) & 0xfff;
  bx_phy_address at = c->pAddrFetchPage + offset;
  Bit8u bytes[16];
  if (offset + length > 4096) length = 4096 - offset;
  BX_MEM(0)->dmaReadPhysicalPage(at, length, bytes);
  if (!lab_differs(at, bytes, length)) return;
  fetched_other[cpu] = true;
  lab_say("\"event\": \"fetches\", \"cpu\": %u, \"rip\": %llu, \"address\": %llu, \"copy\": %llu, \"phase\": \"%s\"", cpu,
      (unsigned long long)c->gen_reg[BX_64BIT_REG_RIP].rrx, (unsigned long long)at, (unsigned long long)copy_now(), phase_name());
}

// The first entry of a page table that is not the resumer's, accessed and dirty bits aside.
void lab_table_read(unsigned cpu, bx_phy_address address, unsigned length, unsigned reason, const Bit8u *value)
{
  if (!lab_parked[cpu] || walked_other[cpu] || length != 8 || reason < BX_PTE_ACCESS || reason > BX_PML5E_ACCESS) return;
  Bit64u now, before = lab_remembered(address);
  memcpy(&now, value, 8);
  if (((now ^ before) & ~(Bit64u)ACCESSED_DIRTY) == 0) return;
  walked_other[cpu] = true;
  lab_say("\"event\": \"walks\", \"cpu\": %u, \"level\": %u, \"address\": %llu, \"before\": %llu, \"now\": %llu, \"copy\": %llu, \"phase\": \"%s\"",
      cpu, reason - BX_PTE_ACCESS + 1, (unsigned long long)address, (unsigned long long)before, (unsigned long long)now,
      (unsigned long long)copy_now(), phase_name());
}

// A store to its line ends a parked CPU's MWAIT so many copies later.  Anything else wakes it at once.

bool lab_delays(unsigned cpu)
{
  if (!lab_variant.latency || !lab_parked[cpu]) return false;
  delayed_to[cpu] = copy_now() + lab_variant.latency;
  return true;
}

bool lab_delay_over(unsigned cpu)
{
  return delayed_to[cpu] && copy_now() >= delayed_to[cpu];
}
