/* Devices.
 *
 * A device region is mapped as I/O and then protected against reading and writing: the protection hook fires first, with the
 * exact PC and the true size; the I/O callback, which knows neither, only hands the value over.
 *
 * An access may make something due behind its instruction, in the middle of a block: an interrupt of the same vCPU, a timer or a turn's end
 * because the access took time, a stop that was asked for. Where blocks end is the engine's affair, so that must not wait for it. The
 * block is left in front of the instruction (exceptions.c), which is then run again as a block of its own: what its accesses gave is
 * kept, and the device is not asked twice. */
#include "clock.h"
#include "engine.h"
#include "registers.h"

static bool is_due_behind(Engine *e) {
  const State *s = &e->s;
  if (s->left < 0 || s->stop_wanted) return true;
  return s->takes_interrupts && s->line[s->vcpu] && !(read32(e, e->id.pstate) & PSTATE_I);
}
/* An access has been carried out; mmio_value is what it gave. */
static void carried_out(Engine *e) {
  State *s = &e->s;
  if (e->done_position != s->event_position || e->done_pc != s->event_pc)
    e->done_position = s->event_position, e->done_pc = s->event_pc, e->done_count = 0;
  if (e->done_count == TK_ACCESSES_MAX) return;
  e->done_value[e->done_count++] = e->mmio_value;
  if (e->again || !is_due_behind(e)) return;
  if (s->counts_each_instruction) e->cut_wanted = true;
  else if (s->block_end != s->event_pc + 4) {
    int32_t before = s->engine_error;
    e->cutting = true;
    e->cutting = tk_leave_block(e);
    if (!s->leaves_out_checks) s->engine_error = before; /* it is due at the block's end then */
  }
}
/* An access of an instruction that is run again: true if it was carried out before. */
static bool is_done(Engine *e) {
  if (!e->again || e->done_next >= e->done_count) return false;
  e->mmio_value = e->done_value[e->done_next++];
  return true;
}
/* Between two runs of the engine: the block was left in front of the access. Its instruction comes next, alone. */
void tk_cut_behind_access(Engine *e) {
  State *s = &e->s;
  uint64_t pc = tk_pc(e);
  e->cutting = e->leaving = false;
  e->again = true, e->done_next = 0, e->mmio_bytes_left = 0;
  e->tail = 4, e->tail_pc = pc, e->tail_size = s->block_end - pc;
  s->left += (int64_t)(s->block_end - pc);
  s->block_end = pc;
  if (s->captures_blocks) tk_capture_cut(e, pc);
}
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
    if (is_done(e)) return true;
    e->call.mmio_write(pa, (uint32_t)size, size == 8 ? (uint64_t)value : (uint64_t)value & ((1ull << 8 * size) - 1));
  } else {
    e->mmio_bytes_left = 0;
    e->mmio_base = pa;
    if (is_done(e)) return true;
    if (pa != e->s.plain_ipa || !pa) e->mmio_value = e->call.mmio_read(pa, (uint32_t)size);
    else {
      e->mmio_value = e->s.plain_value;
      if (e->s.exit_cost_ns) e->s.clock_ns += e->s.exit_cost_ns, tk_plan(e);
    }
  }
  carried_out(e);
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
