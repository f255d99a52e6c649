/* Guest stores, loads and straight runs of instructions, into columns.
 *
 * The engine's memory hooks have habits of their own; a row is an architectural piece of at most 8 bytes (SPEC "memory_writes"):
 * DC ZVA arrives as 66 single bytes and becomes eight rows; a store over a page boundary becomes one row for each byte; a failed CAS
 * writes the old value back and becomes none; STXR's inner load is no load. */
#include "clock.h"
#include "engine.h"
#include "registers.h"

#include <string.h>

static uint64_t truncated(uint64_t v, unsigned size) { return size >= 8 ? v : v & (((uint64_t)1 << 8 * size) - 1); }
static uint64_t ram_at(const Engine *e, uint64_t pa, unsigned size) {
  uint64_t v = 0;
  if (pa - e->s.ram_base <= e->s.ram_size - size) memcpy(&v, e->ram + (pa - e->s.ram_base), size);
  return v;
}
static bool is_ram(const Engine *e, uint64_t pa) { return pa - e->s.ram_base < e->s.ram_size; }
static bool is_watched(const Engine *e, uint64_t pa, unsigned size) {
  for (uint64_t i = 0; i < e->s.watch_count; i++)
    if (pa < e->s.watch_end[i] && pa + size > e->s.watch_begin[i]) return true;
  return false;
}
/* A block is about to run: find its page now. A translation asked for inside a memory hook would change the TLB under the
 * engine's hands, which goes on with the entry that it had found before the hook. */
void tk_capture_enter(Engine *e, uint64_t pc) {
  if (e->straddle_count) tk_capture_settle(e);
  if ((pc & ~0xfffull) == e->code_va && e->code_page && !e->code_is_stale) return;
  e->code_is_stale = false;
  e->code_va = pc & ~0xfffull;
  e->code_page = tk_code_word(e, e->code_va);
}
uint32_t tk_captured_word(Engine *e, uint64_t pc) {
  uint32_t word = 0;
  if (e->code_page && (pc & ~0xfffull) == e->code_va) memcpy(&word, e->code_page + (pc & 0xfff), 4);
  return word;
}
static void row(Engine *e, int table, uint64_t position, uint64_t vtime, uint64_t pa, unsigned size, uint64_t value, uint64_t pc) {
  Columns *c = e->columns[table];
  if (__builtin_expect(c->count >= c->limit, 0) && (!e->straddle_count || c->count == TK_CAPTURE_ROWS)) { /* rows that wait to be settled stay */
    e->call.capture_full((uint32_t)table);
    c = e->columns[table];
    if (c->count == TK_CAPTURE_ROWS) c->count = 0; /* Python could not take them; it has asked for a stop */
  }
  State *s = &e->s;
  if (table != TK_BLOCKS && s->thick_position != position) s->thick_position = position, s->thick_next = 0x80000000u;
  uint64_t i = c->count++;
  c->position[i] = position, c->vtime_ns[i] = vtime, c->ipa[i] = pa, c->value[i] = value, c->pc[i] = pc;
  c->sequence[i] = table == TK_BLOCKS ? 0xc0000000u : s->thick_next++, c->vcpu[i] = (uint16_t)s->vcpu, c->size[i] = (uint8_t)size, c->origin[i] = 0;
}
static void access_row(Engine *e, int table, uint64_t pc, uint64_t pa, unsigned size, uint64_t value) {
  uint64_t position = tk_position_at(e, pc);
  if (is_watched(e, pa, size)) {
    e->s.event_pc = pc, e->s.event_position = position, e->s.event_ns = tk_ns_at(e, position);
    e->call.watched(table == TK_WRITES, pa, size, value);
  } else if (table == TK_WRITES ? e->s.captures_writes : e->s.captures_reads)
    row(e, table, position, tk_ns_at(e, position), pa, size, value, pc);
}
/* A compare and swap that fails writes the old value back in the engine. Rs still holds what it compared with. */
static bool compare_failed(Engine *e, uint32_t word, uint64_t pc, uint64_t pa, unsigned size) {
  int rs = (int)(word >> 16 & 31);
  uint64_t wanted = rs == 31 ? 0 : tk_register(e, rs);
  if (tk_is_cas(word)) return truncated(wanted, size) != ram_at(e, pa, size);
  uint64_t position = tk_position_at(e, pc);
  if (e->cas_position == position) return e->cas_failed; /* the second half of a pair */
  e->cas_position = position;
  uint64_t second = tk_register(e, rs + 1 == 31 ? 31 : rs + 1);
  if (word >> 30 & 1) e->cas_failed = wanted != ram_at(e, pa, 8) || second != ram_at(e, pa + 8, 8);
  else e->cas_failed = truncated(wanted, 4) != ram_at(e, pa, 4) || truncated(second, 4) != ram_at(e, pa + 4, 4);
  return e->cas_failed;
}

/* A store over a 4 KiB boundary: the engine tells it once, with the first page's address; the second page may lie anywhere. It
 * becomes one row for each byte; the addresses of those in the second page are settled before the next block. */
static void straddle(Engine *e, uint32_t word, uint64_t pc, uint64_t pa, unsigned size, uint64_t value) {
  uint64_t va = 0;
  bool known = tk_access_address(e, word, pc, pa, &va);
  unsigned first = 0x1000 - (unsigned)(pa & 0xfff);
  for (unsigned i = 0; i < size; i++) {
    access_row(e, TK_WRITES, pc, pa + i, 1, value >> 8 * i & 0xff);
    Columns *c = e->columns[TK_WRITES];
    if (i >= first && known && c && c->count && c->ipa[c->count - 1] == pa + i && c->pc[c->count - 1] == pc && e->straddle_count < 16) {
      e->straddle[e->straddle_count].row = c->count - 1;
      e->straddle[e->straddle_count++].va = va + i;
    }
  }
}
/* Outside of memory hooks: put the physical addresses of second pages into rows that wait for them. */
void tk_capture_settle(Engine *e) {
  for (uint32_t i = 0; i < e->straddle_count; i++) {
    uint64_t pa;
    if (!e->api.vmem_translate(e->uc, e->straddle[i].va, e->id.prot_read, &pa)) e->columns[TK_WRITES]->ipa[e->straddle[i].row] = pa;
  }
  e->straddle_count = 0;
}

void tk_hook_write(uc_engine *uc, int type, uint64_t pa, int size, int64_t value, void *user) {
  (void)uc, (void)type;
  Engine *e = user;
  if (!is_ram(e, pa) || size <= 0) return;
  uint64_t pc = tk_pc(e);
  uint32_t word = tk_captured_word(e, pc);
  if (tk_is_dc_zva(word)) {
    uint64_t position = tk_position_at(e, pc);
    if (e->zva_position == position && e->zva_pc == pc) return;
    e->zva_position = position, e->zva_pc = pc;
    for (uint64_t i = 0; i < 64; i += 8) access_row(e, TK_WRITES, pc, (pa & ~63ull) + i, 8, 0);
    return;
  }
  if ((tk_is_cas(word) || tk_is_casp(word)) && compare_failed(e, word, pc, pa, (unsigned)size)) return;
  if ((pa & 0xfff) + (unsigned)size > 0x1000) {
    straddle(e, word, pc, pa, (unsigned)size, (uint64_t)value);
    return;
  }
  access_row(e, TK_WRITES, pc, pa, (unsigned)size, truncated((uint64_t)value, (unsigned)size));
}

void tk_hook_read(uc_engine *uc, int type, uint64_t pa, int size, int64_t value, void *user) {
  (void)uc, (void)type;
  Engine *e = user;
  if (!is_ram(e, pa) || size <= 0) return;
  uint64_t pc = tk_pc(e);
  if (tk_is_store_exclusive(tk_captured_word(e, pc))) return;
  access_row(e, TK_READS, pc, pa, (unsigned)size, truncated((uint64_t)value, (unsigned)size));
}

/* --- straight runs of instructions --------------------------------------------------------------------------------------------
 * A row is a run of instructions at consecutive addresses that one vCPU executes without a jump, an exception or a switch in
 * between, so that it does not depend on where the engine cuts its blocks. */
static void close_run(Engine *e, uint64_t end_pc) {
  uint64_t count = (end_pc - e->run_start_pc) >> 2, position = e->run_position, vtime = e->run_vtime, pc = e->run_start_pc;
  e->run_open = false;
  while (count) {
    uint64_t n = count > 0xffff ? 0xffff : count;
    row(e, TK_BLOCKS, position, vtime, 0, 0, 0, pc);
    Columns *c = e->columns[TK_BLOCKS];
    c->instructions[c->count - 1] = (uint16_t)n;
    c->vcpu[c->count - 1] = (uint16_t)e->run_vcpu;
    count -= n, position += n, pc += 4 * n;
    vtime = tk_ns_at(e, position);
  }
}
void tk_capture_block(Engine *e, uint64_t pc, uint64_t size) {
  if (e->run_open && e->run_next_pc == pc) {
    e->run_next_pc = pc + size;
    return;
  }
  if (e->run_open) close_run(e, e->run_next_pc);
  e->run_open = true;
  e->run_start_pc = pc, e->run_next_pc = pc + size, e->run_vcpu = e->s.vcpu;
  e->run_position = tk_position_at(e, pc);
  e->run_vtime = tk_ns_at(e, e->run_position);
}
/* The run ends in front of `pc` (0: where it stands): an exception was taken there. */
void tk_capture_break(Engine *e, uint64_t pc) {
  if (!e->run_open) return;
  uint64_t end = pc >= e->run_start_pc && pc <= e->run_next_pc && pc ? pc : e->run_next_pc;
  if (end == e->run_start_pc) e->run_open = false;
  else close_run(e, end);
}
/* The block was left in front of `pc`, where it goes on at once. */
void tk_capture_cut(Engine *e, uint64_t pc) {
  if (e->run_open && pc >= e->run_start_pc && pc <= e->run_next_pc) e->run_next_pc = pc;
}
TK_EXPORT void tk_close_run(Engine *e) { tk_capture_break(e, 0); }
/* Capture goes on in another buffer; it stays the caller's. */
TK_EXPORT void tk_capture_into(Engine *e, int table, Columns *columns) {
  columns->count = 0, columns->limit = TK_CAPTURE_ROWS;
  e->columns[table] = columns;
}
/* Forget the first `count` rows: they have been written. */
TK_EXPORT void tk_capture_drop(Engine *e, int table, uint64_t count) {
  Columns *c = e->columns[table];
  uint64_t rest = c->count - count;
  uint32_t kept = 0;
  for (uint32_t i = 0; i < e->straddle_count && table == TK_WRITES; i++)
    if (e->straddle[i].row >= count) {
      e->straddle[kept].va = e->straddle[i].va;
      e->straddle[kept++].row = e->straddle[i].row - count;
    }
  if (table == TK_WRITES) e->straddle_count = kept;
#define KEEP(name) memmove(c->name, c->name + count, rest * sizeof c->name[0])
  KEEP(position), KEEP(vtime_ns), KEEP(ipa), KEEP(value), KEEP(pc), KEEP(sequence), KEEP(vcpu), KEEP(instructions), KEEP(size), KEEP(origin);
#undef KEEP
  c->count = rest;
}
