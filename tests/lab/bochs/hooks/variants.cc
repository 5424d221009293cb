// One resumer that stands at restore_image serves several experiments: each goes on in a process of its own.
//
// LAB_VARIANTS names a file with a line for each: NAME LATENCY warm|cold EVENT, EVENT being none or nmi:1,3 (also smi,
// mce).  NAME.events and NAME.serial are written.
#include "bochs.h"
#include "cpu/cpu.h"
#include <fstream>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

lab_variant_t lab_variant;

static bool parse(const std::string &line, lab_variant_t &variant)
{
  std::istringstream words(line);
  std::string tlb;
  if (!(words >> variant.name >> variant.latency >> tlb >> variant.event)) return false;
  variant.cold = tlb == "cold";
  return true;
}

void lab_run_variants()
{
  const char *name = getenv("LAB_VARIANTS");
  if (!name) return;
  std::ifstream file(name);
  std::string line;
  while (std::getline(file, line)) {
    lab_variant_t variant;
    if (!parse(line, variant)) continue;
    pid_t child = fork();
    if (child < 0) { perror("fork"); _exit(2); }
    if (child == 0) {
      lab_variant = variant;
      lab_open_events(lab_out(variant.name + ".events"));
      lab_open_serial(lab_out(variant.name + ".serial"));
      return;
    }
    int status;
    waitpid(child, &status, 0);
  }
  lab_end("variants done", 0);
}
