// The guest's serial line: kept in a file, and read for what it tells and asks for, in lines that begin with LAB.
//
//   LAB sym ADDRESS T restore_image    where to stop
//   LAB EVENT N                        what the variant's event says, to its Nth CPU (from 1)
//   LAB quit                           the machine ends
#include "bochs.h"
#include "cpu/cpu.h"
#include "memory/memory-bochs.h"
#include "pc_system.h"
#include <sstream>
#include <vector>

static const unsigned COM1 = 0x3f8;
static FILE *serial;
static bool machine_check[BX_MAX_SMP_THREADS_SUPPORTED], any_machine_check;

void lab_start()
{
  lab_open_serial(lab_out("serial"));
  lab_open_events(lab_out("events"));
}

void lab_open_serial(const std::string &path)
{
  if (serial) fclose(serial);
  serial = fopen(path.c_str(), "w");
}

// A machine check as Bochs has none: pending until the CPU is between two instructions.
bool lab_machine_check(unsigned cpu, bool take)
{
  if (!any_machine_check || !machine_check[cpu]) return false;
  if (take) machine_check[cpu] = false;
  return true;
}

static void deliver(const std::string &what, unsigned n)
{
  lab_say("\"event\": \"order\", \"cpu\": %u, \"what\": \"%s\"", n, what.c_str());
  lab_state(n);
  if (what == "nmi") {
    BX_CPU(n)->deliver_NMI();
  } else if (what == "smi") {            // the BIOS gives only CPU 0 a handler: RSM where the others start
    static Bit8u rsm[2] = { 0x0f, 0xaa };
    if (n) BX_MEM(0)->dmaWritePhysicalPage(BX_CPU(n)->smbase + 0x8000, 2, rsm);
    BX_CPU(n)->deliver_SMI();
  } else if (what == "mce") {
    any_machine_check = machine_check[n] = true;
    BX_CPU(n)->async_event = 1;
  }
}

static void event(unsigned which)
{
  size_t colon = lab_variant.event.find(':');
  if (colon == std::string::npos) return;
  std::istringstream list(lab_variant.event.substr(colon + 1));
  std::string one;
  for (unsigned n = 1; std::getline(list, one, ','); n++) {
    unsigned cpu = (unsigned)atoi(one.c_str());
    if (n == which && cpu < BX_SMP_PROCESSORS) deliver(lab_variant.event.substr(0, colon), cpu);
  }
}

static void order(const std::string &line)
{
  size_t at = line.find("LAB ");
  if (at == std::string::npos) return;
  const char *text = line.c_str() + at;
  unsigned long long address;
  unsigned n;
  if (strstr(text, " restore_image") && sscanf(text, "LAB sym %llx", &address) == 1) lab_restore_image = address;
  else if (sscanf(text, "LAB EVENT %u", &n) == 1) event(n);
  else if (!strncmp(text, "LAB quit", 8)) {
    for (n = 0; n < BX_SMP_PROCESSORS; n++) lab_state(n);
    lab_end("quit", 0);
  }
}

void lab_port_write(unsigned port, unsigned length, unsigned value)
{
  static std::string line;
  if (port != COM1 || length != 1 || (value < ' ' && value != '\n')) return;   // the divisor is written there, too
  if (serial) { fputc((int)value, serial); if (value == '\n') fflush(serial); }
  if (value == '\n') { order(line); line.clear(); }
  else if (line.size() < 400) line += (char)value;
}
