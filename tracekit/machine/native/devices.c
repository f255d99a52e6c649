/* Devices.
 *
 * A device region is mapped as I/O and then protected against reading and writing: the protection hook fires first, with the
 * exact PC and the true size; the I/O callback, which knows neither, only hands the value over. */
#include "clock.h"
#include "engine.h"
#include "registers.h"

static bool hook_device(uc_engine *uc, int type, uint64_t pa, int size, int64_t value, void *user) {
  (void)uc;
  Engine *e = user;
  tk_note_event_and_time(e, tk_pc(e));
  if (type == e->id.mem_write_prot) {
    if (e->mmio_bytes_left && size == 1) { /* the engine repeats an unaligned store byte by byte */
      e->mmio_bytes_left--;
      return true;
    }
    e->mmio_bytes_left = pa & (uint64_t)(size - 1) ? (uint64_t)size : 0;
    e->call.mmio_write(pa, (uint32_t)size, size == 8 ? (uint64_t)value : (uint64_t)value & ((1ull << 8 * size) - 1));
  } else {
    e->mmio_bytes_left = 0;
    e->mmio_base = pa;
    if (pa != e->s.plain_ipa || !pa) e->mmio_value = e->call.mmio_read(pa, (uint32_t)size);
    else {
      e->mmio_value = e->s.plain_value;
      if (e->s.exit_cost_ns) e->s.clock_ns += e->s.exit_cost_ns, tk_plan(e);
    }
  }
  return true;
}
static uint64_t device_read(uc_engine *uc, uint64_t offset, unsigned size, void *user) {
  (void)uc;
  struct { Engine *engine; uint64_t base; } *region = user;
  Engine *e = region->engine;
  uint64_t at = region->base + offset, v = 0;
  for (unsigned i = 0; i < size; i++)
    if (at + i - e->mmio_base < 8) v |= (e->mmio_value >> 8 * (at + i - e->mmio_base) & 0xff) << 8 * i;
  return v;
}
static void device_write(uc_engine *uc, uint64_t offset, unsigned size, uint64_t value, void *user) {
  (void)uc, (void)offset, (void)size, (void)value, (void)user;
}
TK_EXPORT int tk_map_device(Engine *e, uint64_t base, uint64_t size) {
  size_t hook;
  if (e->region_count == 8) return -1;
  e->region[e->region_count].engine = e;
  e->region[e->region_count].base = base;
  int error = e->api.mmio_map(e->uc, base, size, device_read, &e->region[e->region_count], device_write, &e->region[e->region_count]);
  if (error) return error;
  e->region_count++;
  if ((error = e->api.mem_protect(e->uc, base, size, 0))) return error;
  return e->api.hook_add(e->uc, &hook, e->id.hook_mem_prot, (void *)hook_device, e, base, base + size - 1);
}
