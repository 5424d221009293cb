// The boot loader: the boot sector writes to port 0x8900, and kernel, initramfs and command line are in memory, as
// Documentation/arch/x86/boot.rst wants them.
//
// LAB_LOAD: where the protected-mode part goes; with nokaslr a relocatable kernel runs there if that is above its
// preferred address.  LAB_INITRD_AT: where the initramfs goes; per-CPU areas lie as high as they find room.
#include "bochs.h"
#include "cpu/cpu.h"
#include "gui/siminterface.h"
#include "memory/memory-bochs.h"
#include "iodev/iodev.h"
#include "param_names.h"
#include <fstream>
#include <iterator>
#include <unistd.h>

static const Bit32u PORT = 0x8900, SETUP_AT = 0x10000, LINE_AT = 0x1e000, USUAL_LOAD = 0x100000, SECTOR = 512;
static const Bit16u HEAP_END = 0xe000 - 0x200;
static const Bit64u HIGHEST_INITRD = 0x30000000, ROOM_ABOVE_INITRD = 8 << 20;

bool lab_loaded = false;

static std::string content(const char *variable)
{
  std::ifstream file(getenv(variable) ? getenv(variable) : "", std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

static Bit32u number(const char *variable, Bit32u usual)
{
  Bit32u given = getenv(variable) ? (Bit32u)strtoul(getenv(variable), NULL, 0) : 0;
  return given ? given : usual;
}

static void put(Bit64u address, const char *bytes, size_t length)
{
  for (size_t at = 0; at < length;) {
    size_t n = 4096 - ((address + at) & 4095);
    if (n > length - at) n = length - at;
    BX_MEM(0)->dmaWritePhysicalPage(address + at, (unsigned)n, (Bit8u*)bytes + at);
    at += n;
  }
}

static void load(void *, Bit32u, Bit32u, unsigned)
{
  std::string kernel = content("LAB_KERNEL"), initrd = content("LAB_INITRD");
  std::string line = getenv("LAB_CMDLINE") ? getenv("LAB_CMDLINE") : "";
  if (kernel.size() < 0x1000) { fprintf(stderr, "no LAB_KERNEL\n"); _exit(2); }
  Bit64u top = (Bit64u)SIM->get_param_num(BXPN_MEM_SIZE)->get() << 20;
  if (top > HIGHEST_INITRD) top = HIGHEST_INITRD;
  Bit32u size = (Bit32u)initrd.size(), code = number("LAB_LOAD", USUAL_LOAD), line_at = LINE_AT;
  Bit32u initrd_at = number("LAB_INITRD_AT", (Bit32u)((top - ROOM_ABOVE_INITRD - size) & ~0xfffULL));
  Bit8u sectors = (Bit8u)kernel[0x1f1];
  size_t setup = SECTOR * ((sectors ? sectors : 4) + 1);
  kernel[0x210] = (char)0xff;            // type_of_loader: none that is known
  kernel[0x211] |= 0x80;                 // CAN_USE_HEAP
  memcpy(&kernel[0x224], &HEAP_END, 2);
  memcpy(&kernel[0x228], &line_at, 4);
  memcpy(&kernel[0x218], &initrd_at, 4);
  memcpy(&kernel[0x21c], &size, 4);
  memcpy(&kernel[0x214], &code, 4);      // code32_start
  put(SETUP_AT, &kernel[0], setup);
  put(code, &kernel[setup], kernel.size() - setup);
  put(LINE_AT, line.c_str(), line.size() + 1);
  put(initrd_at, initrd.data(), initrd.size());
  lab_loaded = true;
}

void lab_make_loader()
{
  static logfunctions owner;
  bx_devices.register_io_write_handler(&owner, load, PORT, "lab loader", 1);
}
