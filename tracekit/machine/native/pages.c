/* Which pages of guest memory differ from a shadow of it; the shadow then holds them too.
 *
 * Memory that nobody ever touched is zero and is not read, so that it costs nothing: the system is asked what is resident, where it
 * can tell. The answer is only a short cut. What is reported depends on contents alone. */
#if defined(__linux__)
#define _DEFAULT_SOURCE
#include <sys/mman.h>
#include <unistd.h>
#endif
#include "engine.h"

#include <string.h>

#define PAGE 4096u
#define CHUNK 4096u /* system pages asked about at once */

static const uint8_t zero[PAGE];

/* The first `count` pages of `memory` from page `at` on, `resident` as mincore() tells or NULL. */
static uint64_t compare(const uint8_t *memory, uint8_t *shadow, uint8_t *known, uint64_t at, uint64_t count, const uint8_t *resident,
                        uint64_t pages_per_flag, uint32_t *changed) {
  uint64_t found = 0;
  for (uint64_t i = 0; i < count; i++) {
    uint64_t page = at + i;
    if (resident && !known[page] && !(resident[i / pages_per_flag] & 1)) continue;
    const uint8_t *now = memory + page * PAGE;
    uint8_t *before = shadow + page * PAGE;
    if (!memcmp(now, known[page] ? before : zero, PAGE)) continue;
    memcpy(before, now, PAGE);
    known[page] = 1;
    changed[found++] = (uint32_t)page;
  }
  return found;
}
/* Numbers of the pages that differ from the shadow into `changed` (room for all), ascending; returns their count. known[page] is 1
 * where the shadow holds the page, 0 where it was zero so far. ask_system 0: look at every page. */
TK_EXPORT uint64_t tk_changed_pages(const uint8_t *memory, uint8_t *shadow, uint8_t *known, uint64_t pages, uint32_t ask_system,
                                    uint32_t *changed) {
#if defined(__linux__)
  long system_page = sysconf(_SC_PAGESIZE);
  if (ask_system && system_page >= (long)PAGE && (uintptr_t)memory % (uintptr_t)system_page == 0) {
    uint64_t per = (uint64_t)system_page / PAGE, found = 0;
    unsigned char resident[CHUNK];
    for (uint64_t at = 0; at < pages; at += CHUNK * per) {
      uint64_t count = pages - at < CHUNK * per ? pages - at : CHUNK * per;
      bool told = !mincore((void *)(uintptr_t)(memory + at * PAGE), count * PAGE, resident);
      found += compare(memory, shadow, known, at, count, told ? resident : NULL, per, changed + found);
    }
    return found;
  }
#else
  (void)ask_system;
#endif
  return compare(memory, shadow, known, 0, pages, NULL, 1, changed);
}
