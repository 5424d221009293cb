// A small NVMe controller: one namespace, an admin queue pair and up to four I/O queue pairs, one MSI vector.
// NVM Express 1.2, sections 3.1 (registers), 4 (queues), 5 (admin commands), 6 (NVM commands).
//
// LAB_DISK is the backing file.  It is mapped privately, so that processes forked from this one do not see each other's
// writes; with LAB_DISK_KEPT=1 what is written stays.
#include "bochs.h"
#include "cpu/cpu.h"
#include "memory/memory-bochs.h"
#include "iodev/iodev.h"
#include "iodev/pci.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

extern bool apic_bus_deliver_interrupt(Bit8u vector, Bit32u dest, Bit8u delivery_mode, bool logical_dest, bool level, bool trig_mode);

static const unsigned QUEUES = 5, MSI = 0x40, BLOCK = 512, PAGE = 4096;
enum { VS = 2, INTMS = 3, INTMC = 4, CC = 5, CSTS = 7, AQA = 9, ASQ = 10, ACQ = 12 };      // registers, as 32-bit words
enum { INVALID_OPCODE = 0x01, INVALID_FIELD = 0x02, OUT_OF_RANGE = 0x80, CAPACITY = 0x81, INVALID_QUEUE = 0x101 };
enum { NO_COMPLETION = -1 };

static void guest_memory(Bit64u address, Bit8u *bytes, unsigned length, bool write)
{
  while (length) {
    unsigned n = PAGE - (address & (PAGE - 1));
    if (n > length) n = length;
    if (write) BX_MEM(0)->dmaWritePhysicalPage(address, n, bytes);
    else BX_MEM(0)->dmaReadPhysicalPage(address, n, bytes);
    address += n; bytes += n; length -= n;
  }
}

struct queue_t {
  Bit64u base = 0;
  unsigned size = 0, head = 0, tail = 0, completes_on = 0;
  bool live = false, phase = true, interrupts = false;
};

struct command_t {
  Bit32u word[16];
  unsigned opcode() const { return word[0] & 0xff; }
  unsigned identifier() const { return word[0] >> 16; }
  Bit64u pair(unsigned n) const { return word[n] | (Bit64u)word[n + 1] << 32; }
};

class lab_nvme_c : public bx_pci_device_c {
public:
  lab_nvme_c() { put("nvme", "NVME"); clear(); }

  virtual void init(void)
  {
    const char *name = getenv("LAB_DISK"), *kept = getenv("LAB_DISK_KEPT");
    if (!name) return;
    int file = open(name, O_RDWR);
    struct stat status;
    if (file >= 0 && fstat(file, &status) == 0) {
      void *map = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, kept && *kept == '1' ? MAP_SHARED : MAP_PRIVATE, file, 0);
      if (map != MAP_FAILED) disk = (Bit8u*)map;
    }
    if (!disk) { fprintf(stderr, "cannot map LAB_DISK\n"); _exit(2); }
    blocks = status.st_size / BLOCK;
    devfunc = BX_PCI_DEVICE(6, 0);
    DEV_register_pci_handlers(this, &devfunc, "lab_nvme", "NVMe controller");
    init_pci_conf(0x1b36, 0x0010, 2, 0x010802, 0, BX_PCI_INTA);
    init_bar_mem(0, 0x4000, mmio_read, mmio_write);
    defaults();
  }

  virtual void reset(unsigned) { if (disk) { clear(); defaults(); } }

  virtual void pci_write_handler(Bit8u address, Bit32u value, unsigned length)
  {
    for (unsigned i = 0; i < length; i++) {
      Bit8u at = address + i, byte = value >> (8 * i);
      if (at == 4) pci_conf[at] = byte & 0x07;
      else if (at == 5) pci_conf[at] = byte & 0x04;
      else if (at == 0x0c || at == 0x0d) pci_conf[at] = byte;
      else if (at == MSI + 2) pci_conf[at] = 0x80 | (byte & 0x71);
      else if (at >= MSI + 4 && at < MSI + 14) pci_conf[at] = byte;
    }
  }

private:
  Bit32u reg[16];
  queue_t submission[QUEUES], completion[QUEUES];
  Bit8u *disk = NULL;
  Bit64u blocks = 0;
  Bit8u devfunc = 0;

  void clear()
  {
    memset(reg, 0, sizeof reg);
    for (unsigned n = 0; n < QUEUES; n++) submission[n] = completion[n] = queue_t();
    reg[0] = 255 | 1 << 16 | 20 << 24;   // CAP: 256 entries, contiguous queues, 10 s
    reg[1] = 1 << 5;                     // the NVM command set
    reg[VS] = 0x00010200;
  }

  void defaults()
  {
    pci_conf[4] = pci_conf[5] = 0;
    pci_conf[6] = 0x10;                  // it has capabilities
    pci_conf[0x34] = MSI;
    memset(pci_conf + MSI, 0, 16);
    pci_conf[MSI] = 5;                   // MSI, one vector, 64-bit address
    pci_conf[MSI + 2] = 0x80;
  }

  Bit32u config(unsigned at) const
  {
    return pci_conf[at] | pci_conf[at + 1] << 8 | pci_conf[at + 2] << 16 | (Bit32u)pci_conf[at + 3] << 24;
  }

  void notify()
  {
    bool waiting = false;
    for (const queue_t &queue : completion)
      waiting = waiting || (queue.live && queue.interrupts && queue.head != queue.tail);
    if (pci_conf[MSI + 2] & 1) {
      if (!waiting) return;
      Bit32u address = config(MSI + 4), data = config(MSI + 12) & 0xffff;
      apic_bus_deliver_interrupt(data & 0xff, (address >> 12) & 0xff, (data >> 8) & 7, (address >> 2) & 1, 0, 0);
    } else if (!(pci_conf[5] & 4)) {
      DEV_pci_set_irq(devfunc, pci_conf[0x3d], waiting && !(reg[INTMS] & 1));
    }
  }

  void complete(unsigned from, unsigned identifier, unsigned status, Bit32u result)
  {
    queue_t &queue = completion[submission[from].completes_on];
    Bit32u entry[4] = { result, 0, submission[from].head | from << 16, identifier | (Bit32u)(queue.phase | status << 1) << 16 };
    guest_memory(queue.base + sizeof entry * queue.tail, (Bit8u*)entry, sizeof entry, true);
    if (++queue.tail == queue.size) { queue.tail = 0; queue.phase = !queue.phase; }
  }

  // A command's data lie where PRP entry 1 says, and where entry 2 or the list that it points to says (section 4.3).
  void move(const command_t &command, Bit8u *bytes, Bit64u length, bool to_guest)
  {
    Bit64u first = command.pair(6), second = command.pair(8), done = PAGE - (first & (PAGE - 1));
    if (done > length) done = length;
    guest_memory(first, bytes, (unsigned)done, to_guest);
    if (length - done <= PAGE) {
      if (length > done) guest_memory(second, bytes + done, (unsigned)(length - done), to_guest);
      return;
    }
    while (done < length) {
      Bit64u entry;
      guest_memory(second, (Bit8u*)&entry, 8, false);
      bool last = (second & (PAGE - 1)) == PAGE - 8;
      if (last && length - done > PAGE) { second = entry; continue; }
      unsigned n = length - done > PAGE ? PAGE : (unsigned)(length - done);
      guest_memory(entry, bytes + done, n, to_guest);
      done += n; second += 8;
    }
  }

  int identify(const command_t &command)
  {
    static Bit8u page[PAGE];
    memset(page, 0, sizeof page);
    switch (command.word[10] & 0xff) {
    case 0:                              // the namespace
      for (unsigned at = 0; at < 24; at += 8) memcpy(page + at, &blocks, 8);
      page[130] = 9;                     // blocks of 512 bytes
      break;
    case 1:                              // the controller
      memcpy(page, "\x36\x1b\xf4\x1a", 4);
      memcpy(page + 4, "1                   ", 20);
      memcpy(page + 24, "lab                                     ", 40);
      memcpy(page + 64, "1.0     ", 8);
      page[77] = 5;                      // 128 KiB at a time
      page[78] = 1;
      memcpy(page + 80, &reg[VS], 4);
      page[512] = 0x66; page[513] = 0x44;
      page[516] = 1;
      break;
    case 2:                              // the list of namespaces
      page[0] = command.word[1] < 1;
      break;
    default:
      return INVALID_FIELD;
    }
    move(command, page, sizeof page, true);
    return 0;
  }

  int admin(const command_t &command, Bit32u *result)
  {
    unsigned id = command.word[10] & 0xffff;
    bool named = id < QUEUES;
    queue_t made;
    made.base = command.pair(6);
    made.size = (command.word[10] >> 16) + 1;
    made.live = true;
    switch (command.opcode()) {
    case 0x00: if (named) submission[id].live = false; return named ? 0 : INVALID_QUEUE;
    case 0x04: if (named) completion[id].live = false; return named ? 0 : INVALID_QUEUE;
    case 0x01: made.completes_on = command.word[11] >> 16; if (named) submission[id] = made; return named ? 0 : INVALID_QUEUE;
    case 0x05: made.interrupts = command.word[11] & 2; if (named) completion[id] = made; return named ? 0 : INVALID_QUEUE;
    case 0x02: {                         // a log page: empty
      std::string nothing(4 * (((command.word[10] >> 16) & 0xfff) + 1), '\0');
      move(command, (Bit8u*)&nothing[0], nothing.size(), true);
      return 0;
    }
    case 0x06: return identify(command);
    case 0x08: *result = 1; return 0;    // abort: not done
    case 0x09: case 0x0a: *result = (command.word[10] & 0xff) == 7 ? 0 : command.word[11]; return 0;   // one queue
    case 0x0c: return NO_COMPLETION;     // asynchronous events: there are none
    default: return INVALID_OPCODE;
    }
  }

  int transfer(const command_t &command)
  {
    Bit64u first = command.pair(10), count = (command.word[12] & 0xffff) + 1;
    switch (command.opcode()) {
    case 0: return 0;                    // flush
    case 1: case 2: break;
    default: return INVALID_OPCODE;
    }
    if (first + count > blocks) return OUT_OF_RANGE;
    move(command, disk + first * BLOCK, count * BLOCK, command.opcode() == 2);
    return 0;
  }

  void doorbell(unsigned n, Bit32u value)
  {
    unsigned q = n / 2;
    if (q >= QUEUES || !(reg[CSTS] & 1)) return;
    if (n & 1) { completion[q].head = value & 0xffff; notify(); return; }
    queue_t &queue = submission[q];
    if (!queue.live) return;
    queue.tail = value & 0xffff;
    while (queue.head != queue.tail) {
      command_t command;
      Bit32u result = 0;
      guest_memory(queue.base + sizeof command * queue.head, (Bit8u*)&command, sizeof command, false);
      if (++queue.head == queue.size) queue.head = 0;
      int status = q ? transfer(command) : admin(command, &result);
      if (status != NO_COMPLETION) complete(q, command.identifier(), status, result);
    }
    notify();
  }

  void enable(Bit32u value)
  {
    Bit32u old = reg[CC];
    reg[CC] = value;
    if ((value & 1) && !(old & 1)) {
      submission[0] = completion[0] = queue_t();
      submission[0].base = reg[ASQ] | (Bit64u)reg[ASQ + 1] << 32;
      submission[0].size = (reg[AQA] & 0xfff) + 1;
      completion[0].base = reg[ACQ] | (Bit64u)reg[ACQ + 1] << 32;
      completion[0].size = ((reg[AQA] >> 16) & 0xfff) + 1;
      submission[0].live = completion[0].live = completion[0].interrupts = true;
      reg[CSTS] = 1;
    } else if (!(value & 1) && (old & 1)) {
      for (unsigned n = 0; n < QUEUES; n++) submission[n] = completion[n] = queue_t();
      reg[CSTS] = reg[INTMS] = reg[INTMC] = 0;
      notify();
    }
    if (value & 0xc000) reg[CSTS] = (reg[CSTS] & ~0xcu) | 8;   // shutdown: done
  }

  void write32(unsigned at, Bit32u value)
  {
    if (at >= 0x1000) { doorbell((at - 0x1000) / 4, value); return; }
    if (at >= sizeof reg) return;
    switch (at / 4) {
    case INTMS: reg[INTMS] |= value; reg[INTMC] = reg[INTMS]; notify(); break;
    case INTMC: reg[INTMS] &= ~value; reg[INTMC] = reg[INTMS]; notify(); break;
    case CC: enable(value); break;
    case AQA: case ASQ: case ASQ + 1: case ACQ: case ACQ + 1: reg[at / 4] = value; break;
    }
  }

  static bool mmio_read(bx_phy_address address, unsigned length, void *to, void *self)
  {
    lab_nvme_c *device = (lab_nvme_c*)self;
    unsigned at = address & 0x3fff;
    memset(to, 0, length);
    if (at + length <= sizeof device->reg) memcpy(to, (Bit8u*)device->reg + at, length);
    return true;
  }

  static bool mmio_write(bx_phy_address address, unsigned length, void *from, void *self)
  {
    for (unsigned i = 0; i + 4 <= length; i += 4) {
      Bit32u value;
      memcpy(&value, (Bit8u*)from + i, 4);
      ((lab_nvme_c*)self)->write32((address & 0x3fff) + i, value);
    }
    return true;
  }
};

void lab_make_nvme()
{
  (new lab_nvme_c())->init();
}
