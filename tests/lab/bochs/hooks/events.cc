// The file of events: one JSON object a line, written at once.
#include "bochs.h"
#include "cpu/cpu.h"
#include "pc_system.h"
#include <stdarg.h>
#include <unistd.h>

static FILE *out;
static unsigned lines;
static const unsigned LIMIT = 20000;   // a CPU that runs wild may say much

std::string lab_out(const std::string &name)
{
  const char *directory = getenv("LAB_OUT");
  return std::string(directory ? directory : ".") + "/" + name;
}

void lab_open_events(const std::string &path)
{
  if (out) fclose(out);
  out = fopen(path.c_str(), "w");
  if (!out) { fprintf(stderr, "cannot write %s\n", path.c_str()); _exit(2); }
  lines = 0;
}

// The members of an object, without its braces; "tick" is added.
void lab_say(const char *format, ...)
{
  if (!out || lines++ > LIMIT) return;
  va_list list;
  va_start(list, format);
  fprintf(out, "{\"tick\": %llu, ", (unsigned long long)bx_pc_system.time_ticks());
  vfprintf(out, format, list);
  fputs("}\n", out);
  va_end(list);
  fflush(out);
}

void lab_end(const char *why, int status)
{
  lines = 0;
  lab_say("\"event\": \"end\", \"why\": \"%s\"", why);
  if (out) fclose(out);
  _exit(status);
}
