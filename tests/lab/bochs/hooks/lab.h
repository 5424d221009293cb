// What the parts of the lab know of one another.
//
// Environment: LAB_KERNEL, LAB_INITRD, LAB_CMDLINE, LAB_LOAD, LAB_INITRD_AT (loader.cc); LAB_DISK, LAB_DISK_KEPT
// (nvme.cc); LAB_OUT (the directory for what is written); LAB_VARIANTS (variants.cc); LAB_DUMP (dump.cc).
#ifndef LAB_H
#define LAB_H

#include <string>

enum lab_phase_t { LAB_BEFORE, LAB_PARKED, LAB_COPY, LAB_RESUMEE };

extern lab_phase_t lab_phase;
extern bool lab_parked[];              // parked by the resumer and not yet reset since
extern bool lab_loaded;                // a kernel is in memory: a reset from here on ends the machine
extern bx_address lab_restore_image;   // told by the guest

// events.cc: the file of events, one JSON object a line
void lab_open_events(const std::string &path);
void lab_say(const char *format, ...);
void lab_end(const char *why, int status);

// parked.cc: what becomes of the parked CPUs
void lab_branch(unsigned cpu, unsigned what, bx_address from, bx_address to);
void lab_reset(unsigned cpu, unsigned type);
void lab_sleeps(unsigned cpu);
void lab_mwait(unsigned cpu, bx_phy_address line);
void lab_wake(unsigned cpu, const char *why, bx_phy_address store);
void lab_sipi(unsigned cpu, unsigned vector);
void lab_exception(unsigned cpu, unsigned vector, unsigned error_code);
void lab_interrupt(unsigned cpu, unsigned vector);
void lab_fetch(unsigned cpu, unsigned length);
void lab_table_read(unsigned cpu, bx_phy_address address, unsigned length, unsigned reason, const Bit8u *value);
bool lab_delays(unsigned cpu);
bool lab_delay_over(unsigned cpu);
void lab_state(unsigned cpu);
extern int lab_storing_cpu;            // -1: a device

inline bool lab_follows_branches(bx_address to)
{
  return to == lab_restore_image || lab_phase == LAB_PARKED || lab_phase == LAB_COPY;
}

// dump.cc: the resumer's memory and registers at restore_image
void lab_dump(const char *name);
void lab_remember_memory();
bool lab_differs(bx_phy_address address, const Bit8u *now, unsigned length);
Bit64u lab_remembered(bx_phy_address address);

// variants.cc: what one parked machine is put through, each in a process of its own
struct lab_variant_t {
  std::string name, event;
  Bit64u latency = 0;                  // copies between the store and the end of MWAIT
  bool cold = false;                   // a parked CPU's translations are gone when it leaves MWAIT
};
extern lab_variant_t lab_variant;
void lab_run_variants();

// guest.cc: the serial line, and the orders that come over it
void lab_start();
void lab_port_write(unsigned port, unsigned length, unsigned value);
void lab_open_serial(const std::string &path);
bool lab_machine_check(unsigned cpu, bool take);

// nvme.cc, loader.cc
void lab_make_nvme();
void lab_make_loader();

std::string lab_out(const std::string &name);

#endif
