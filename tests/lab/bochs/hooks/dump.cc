// The resumer's memory and registers when the boot CPU calls restore_image: to a file, and to compare with later.
#include "bochs.h"
#include "cpu/cpu.h"
#include "memory/memory-bochs.h"
#include <unistd.h>
#include <vector>

static std::vector<Bit8u> remembered;

static bool is_ram(Bit64u address) { return address < 0xa0000 || address >= 0x100000; }

static void segment(FILE *f, const char *name, bx_segment_reg_t *s)
{
  fprintf(f, "%-3s=%04x %016llx %08x 00000000\n", name, s->selector.value, (unsigned long long)s->cache.u.segment.base,
          (unsigned)s->cache.u.segment.limit_scaled);
}

// As QEMU's `info registers -a` prints them.
static void registers(FILE *f, unsigned n)
{
  static const char *const names[] = { "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
    "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15" };
  BX_CPU_C *c = BX_CPU(n);
  fprintf(f, "CPU#%u\n", n);
  for (int r = 0; r < 16; r++)
    fprintf(f, "%s=%016llx%c", names[r], (unsigned long long)c->gen_reg[r].rrx, r % 4 == 3 ? '\n' : ' ');
  fprintf(f, "RIP=%016llx RFL=%08x [-------] CPL=0 II=0 A20=1 SMM=0 HLT=%d\n",
          (unsigned long long)c->gen_reg[BX_64BIT_REG_RIP].rrx, (unsigned)c->eflags, c->activity_state != 0);
  segment(f, "ES", &c->sregs[BX_SEG_REG_ES]); segment(f, "CS", &c->sregs[BX_SEG_REG_CS]);
  segment(f, "SS", &c->sregs[BX_SEG_REG_SS]); segment(f, "DS", &c->sregs[BX_SEG_REG_DS]);
  segment(f, "FS", &c->sregs[BX_SEG_REG_FS]); segment(f, "GS", &c->sregs[BX_SEG_REG_GS]);
  segment(f, "LDT", &c->ldtr); segment(f, "TR", &c->tr);
  fprintf(f, "GDT=     %016llx %08x\nIDT=     %016llx %08x\n", (unsigned long long)c->gdtr.base, c->gdtr.limit,
          (unsigned long long)c->idtr.base, c->idtr.limit);
  fprintf(f, "CR0=%08x CR2=%016llx CR3=%016llx CR4=%08x\nEFER=%016llx\n\n", (unsigned)c->cr0.val32,
          (unsigned long long)c->cr2, (unsigned long long)c->cr3, (unsigned)c->cr4.val32, (unsigned long long)c->efer.val32);
}

void lab_dump(const char *name)
{
  if (!name) return;
  FILE *f = fopen((std::string(name) + ".registers").c_str(), "w");
  for (unsigned n = 0; f && n < BX_SMP_PROCESSORS; n++) registers(f, n);
  if (f) fclose(f);
  f = fopen((std::string(name) + ".memory").c_str(), "wb");
  static Bit8u page[4096], zero[4096];
  Bit64u size = BX_MEM(0)->get_memory_len();
  for (Bit64u at = 0; f && at < size; at += 4096) {
    if (!is_ram(at)) continue;
    BX_MEM(0)->dmaReadPhysicalPage(at, 4096, page);
    if (memcmp(page, zero, 4096)) { fseeko(f, at, SEEK_SET); fwrite(page, 1, 4096, f); }
  }
  if (!f || fflush(f) || ftruncate(fileno(f), size)) { fprintf(stderr, "cannot write the dump\n"); _exit(2); }
  fclose(f);
}

void lab_remember_memory()
{
  remembered.assign(BX_MEM(0)->get_memory_len(), 0);
  for (Bit64u at = 0; at < remembered.size(); at += 4096)
    if (is_ram(at)) BX_MEM(0)->dmaReadPhysicalPage(at, 4096, &remembered[at]);
}

bool lab_differs(bx_phy_address address, const Bit8u *now, unsigned length)
{
  return address + length > remembered.size() || memcmp(&remembered[address], now, length);
}

Bit64u lab_remembered(bx_phy_address address)
{
  Bit64u value = 0;
  if (address + 8 <= remembered.size()) memcpy(&value, &remembered[address], 8);
  return value;
}
