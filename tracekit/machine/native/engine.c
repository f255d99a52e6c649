/* Running guest code: blocks counted and stopped exactly, exceptions delivered, timers and counters read, code kept coherent. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define PSTATE_I 0x80u
#define PSTATE_PAN (1u << 22)
#define NO_TIME ((uint64_t)1 << 62)

enum { EXC_UNDEF = 1, EXC_SVC = 2, EXC_PREFETCH_ABORT = 3, EXC_DATA_ABORT = 4, EXC_BREAKPOINT = 7, EXC_HVC = 11, EXC_SMC = 13 };
enum { EC_INSN_ABORT = 0x20, EC_DATA_ABORT = 0x24 };

/* --- registers -------------------------------------------------------------------------------------------------------- */

static void write64(Engine *e, int id, uint64_t v) { e->api.reg_write(e->uc, id, &v); }
static void write32(Engine *e, int id, uint32_t v) { e->api.reg_write(e->uc, id, &v); }
static uint64_t read64(Engine *e, int id) {
  uint64_t v = 0;
  e->api.reg_read(e->uc, id, &v);
  return v;
}
static uint32_t read32(Engine *e, int id) {
  uint32_t v = 0;
  e->api.reg_read(e->uc, id, &v);
  return v;
}
static uint64_t read_system(Engine *e, uint32_t op0, uint32_t op1, uint32_t crn, uint32_t crm, uint32_t op2) {
  CpReg r = {.crn = crn, .crm = crm, .op0 = op0, .op1 = op1, .op2 = op2};
  e->api.reg_read(e->uc, e->id.cp_reg, &r);
  return r.val;
}
static void write_system(Engine *e, uint32_t op0, uint32_t op1, uint32_t crn, uint32_t crm, uint32_t op2, uint64_t v) {
  CpReg r = {.crn = crn, .crm = crm, .op0 = op0, .op1 = op1, .op2 = op2, .val = v};
  e->api.reg_write(e->uc, e->id.cp_reg, &r);
}
uint64_t tk_pc(Engine *e) { return read64(e, e->id.pc); }
uint64_t tk_register(Engine *e, int n) {
  if (n == 29) return read64(e, e->id.x29);
  if (n == 30) return read64(e, e->id.x30);
  return read64(e, n == 31 ? e->id.sp : e->id.x0 + n);
}

/* --- position and time -------------------------------------------------------------------------------------------------- */

/* Instructions retired before the one at `pc` inside the running block. */
uint64_t tk_position_at(const Engine *e, uint64_t pc) {
  return e->s.stop_position - (uint64_t)((e->s.left + (int64_t)(e->s.block_end - pc)) >> 2);
}
uint64_t tk_ns_at(const Engine *e, uint64_t position) {
  const State *s = &e->s;
  return s->clock_ns + ((position - s->clock_position) * s->ns_numerator + s->clock_remainder) / s->ns_denominator;
}
/* The first position at which the local time is `ns` or later. */
static uint64_t position_of(const Engine *e, uint64_t ns) {
  const State *s = &e->s;
  if (ns <= s->clock_ns) return s->clock_position;
  uint64_t wait = ns - s->clock_ns;
  if (wait > (uint64_t)1 << 44) wait = (uint64_t)1 << 44; /* five hours ahead: far enough, and it cannot overflow */
  uint64_t units = wait * s->ns_denominator;
  if (units <= s->clock_remainder) return s->clock_position;
  return s->clock_position + (units - s->clock_remainder + s->ns_numerator - 1) / s->ns_numerator;
}
static bool timer_waits(const Timer *t) { return (t->ctl & 3) == 1 && !t->asserted && t->cval < NO_TIME >> 4; }

/* Fold every coming event of this vCPU into one budget of bytes. */
static void plan(Engine *e) {
  State *s = &e->s;
  uint64_t stop = position_of(e, s->horizon_ns);
  if (s->limit_position < stop) stop = s->limit_position;
  for (int i = 0; i < 2; i++) {
    const Timer *t = &s->timer[s->vcpu][i];
    if (!timer_waits(t)) continue;
    uint64_t due = position_of(e, t->cval << 4);
    if (due < stop) stop = due;
  }
  s->left += (int64_t)(stop - s->stop_position) * 4;
  s->stop_position = stop;
}
static bool timer_is_due(const Engine *e) {
  uint64_t now = tk_ns_at(e, e->s.position);
  for (int i = 0; i < 2; i++) {
    const Timer *t = &e->s.timer[e->s.vcpu][i];
    if (timer_waits(t) && t->cval << 4 <= now) return true;
  }
  return false;
}
void tk_look_before_blocks(Engine *e) {
  const State *s = &e->s;
  bool waiting = s->takes_interrupts && s->line[s->vcpu];
  e->s.floor = waiting || e->flush_wanted || s->stop_wanted || e->wfe_retires || e->wfe_block_size ? INT64_MAX : 0;
}
static void note_event(Engine *e, uint64_t pc) {
  e->s.event_pc = pc;
  e->s.event_position = tk_position_at(e, pc);
}
static void stop(Engine *e) {
  e->stopping = true;
  e->api.emu_stop(e->uc);
}

/* --- exceptions ----------------------------------------------------------------------------------------------------------- */

const uint8_t *tk_code_word(Engine *e, uint64_t pc) {
  uint64_t pa;
  if (e->api.vmem_translate(e->uc, pc, e->id.prot_exec, &pa)) return NULL;
  if (pa - e->s.ram_base > e->s.ram_size - 4) return NULL;
  return e->ram + (pa - e->s.ram_base);
}
static uint32_t code_at(Engine *e, uint64_t pc) {
  const uint8_t *at = tk_code_word(e, pc);
  uint32_t word = 0;
  if (at) memcpy(&word, at, 4);
  return word;
}

/* Exception entry to EL1. Spec: Arm ARM DDI 0487 D1.3 (AArch64.TakeException). SPSR_EL1 is written last: a write of a
 * coprocessor register rebuilds the engine's cached flags. */
static void enter_exception(Engine *e, bool irq, uint64_t elr, uint32_t esr, bool has_far, uint64_t far) {
  uint32_t old = read32(e, e->id.pstate), el = old >> 2 & 3;
  uint32_t vector = old & 0x10 ? 0x600 : el == 0 ? 0x400 : old & 1 ? 0x200 : 0;
  if (irq) vector += 0x80;
  if ((old & 0x1f) != 5) { /* the current SP is SP_EL0; the engine does not bank it for us */
    write64(e, e->id.sp_el0, read64(e, e->id.sp));
    write64(e, e->id.sp, read64(e, e->id.sp_el1));
  }
  uint32_t pstate = 0x3c5 | (old & (0xf0000000u | PSTATE_PAN));
  if (e->s.has_pan && !(read_system(e, 3, 0, 1, 0, 0) >> 23 & 1)) pstate |= PSTATE_PAN; /* SCTLR_EL1.SPAN */
  write64(e, e->id.elr_el1, elr);
  if (!irq) write64(e, e->id.esr_el1, esr);
  if (has_far) write64(e, e->id.far_el1, far);
  write32(e, e->id.pstate, pstate);
  write_system(e, 3, 0, 4, 0, 0, old);
  write64(e, e->id.pc, read64(e, e->id.vbar_el1) + vector);
}

static bool makes_progress(Engine *e, uint64_t pc) {
  State *s = &e->s;
  s->exceptions++;
  uint64_t here = tk_position_at(e, s->block_end);
  if (s->fault_position != here) s->fault_position = here, s->faults_here = 0;
  s->fault_pc = pc;
  return ++s->faults_here <= TK_FAULTS_WITHOUT_PROGRESS_MAX;
}

static void read_syndrome(Engine *e, uint32_t *esr, uint64_t *far) {
  e->api.context_save(e->uc, e->scratch);
  memcpy(esr, (uint8_t *)e->scratch + e->syndrome_offset, 4);
  memcpy(far, (uint8_t *)e->scratch + e->syndrome_offset + 8, 8);
}

static void hook_intr(uc_engine *uc, uint32_t number, void *user) {
  (void)uc;
  Engine *e = user;
  State *s = &e->s;
  uint64_t pc = tk_pc(e);
  if (e->straddle_count) tk_capture_settle(e);
  if (e->tail_running && number == EXC_UNDEF && pc + 4 == e->tail_pc + (uint64_t)e->tail && s->left == 0) {
    /* Not the guest's: `until` is compiled as a WFI, and a WFI at EL0 traps (with PC - 4) while SCTLR_EL1.nTWI is 0. */
    write64(e, e->id.pc, pc + 4);
    stop(e);
    return;
  }
  if (e->wfe_retires) { /* the exception is the next instruction's fetch (it will come again) or, by BTI, the WFE's own */
    if (pc == e->wfe_next_pc && number == EXC_PREFETCH_ABORT) {
      stop(e);
      return;
    }
    e->wfe_retires = false;
  }
  bool smc_is_undefined = number == EXC_SMC && s->smc_undefined; /* a trapped SMC that is refused does not retire */
  if (smc_is_undefined) {
    number = EXC_UNDEF;
    pc -= 4;
  }
  if (number != EXC_PREFETCH_ABORT) s->left += (int64_t)(s->block_end - pc); /* what the block hook counted and the fault cut off */
  s->block_end = pc;
  if (s->captures_blocks) tk_capture_break(e, pc);
  uint32_t esr;
  uint64_t far;
  read_syndrome(e, &esr, &far);
  if (number == EXC_HVC || number == EXC_SMC) {
    s->hypercall_is_smc = number == EXC_SMC;
    s->hypercall_immediate = esr & 0xffff;
    e->hypercall_pending = 1;
    stop(e);
    return;
  }
  if (e->tail_running) /* the cut block must not survive: its mapping may change */
    e->api.ctl(e->uc, e->id.ctl_remove_cache, e->tail_pc, e->tail_pc + e->tail_size);
  /* Writing the PC inside a hook makes the engine skip the synchronisation of the PC at the next memory callback; starting it
   * anew ends that. */
  stop(e);
  if (!makes_progress(e, pc)) return;
  switch (number) {
    case EXC_UNDEF:
      if (smc_is_undefined)
        esr = 1u << 25;
      else if (!(esr >> 26)) { /* no class: say "unknown reason" unless the instruction tells more */
        esr = 1u << 25;
        if (!(read32(e, e->id.pstate) & 0xc)) tk_decode_msr_immediate(code_at(e, pc), &esr);
      }
      enter_exception(e, false, pc, esr, false, 0);
      break;
    case EXC_SVC:
    case EXC_BREAKPOINT: enter_exception(e, false, pc, esr, false, 0); break;
    case EXC_PREFETCH_ABORT:
    case EXC_DATA_ABORT: enter_exception(e, false, pc, esr, true, far); break;
    default: s->engine_error = -(int32_t)number;
  }
}

/* A physical hole answers with a synchronous external abort (DFSC/IFSC 0x10). The engine names the physical address; the
 * virtual one and the direction come from the instruction. */
static bool hook_unmapped(uc_engine *uc, int type, uint64_t pa, int size, int64_t value, void *user) {
  (void)uc, (void)value;
  Engine *e = user;
  e->abort_pa = pa, e->abort_size = (uint32_t)size, e->abort_seen = true;
  e->abort_is_write = type == e->id.mem_write_unmapped;
  e->abort_pc = tk_pc(e);
  return false;
}
static uint64_t extended(uint64_t v, int extend) {
  switch (extend) {
    case 2: return (uint32_t)v;
    case 6: return (uint64_t)(int64_t)(int32_t)v;
    default: return v;
  }
}
/* The virtual address of the piece of a load or store that has this physical address; false if the instruction does not tell.
 * Pieces (the second register of a pair, a line of DC ZVA) lie within 64 bytes and keep the offset inside their page. */
bool tk_access_address(Engine *e, uint32_t word, uint64_t pc, uint64_t pa, uint64_t *va) {
  Access a = tk_decode_access(word);
  if (!a.known) return false;
  uint64_t address = (a.base == 32 ? pc : tk_register(e, a.base)) + (uint64_t)a.offset;
  if (a.index >= 0) address += (a.index == 31 ? 0 : extended(tk_register(e, a.index), a.extend)) << a.shift;
  uint64_t piece = (pa - address) & 0xfff;
  *va = address + (piece < 64 ? piece : 0);
  return true;
}
static void external_abort(Engine *e, int error) {
  State *s = &e->s;
  bool fetch = error == e->id.err_fetch_unmapped;
  uint64_t pc = tk_pc(e), far = pc;
  s->external_aborts++;
  if (!fetch) s->left += (int64_t)(s->block_end - pc);
  s->block_end = pc;
  if (s->captures_blocks) tk_capture_break(e, pc);
  if (!makes_progress(e, pc)) return;
  uint32_t iss = 0x10;
  if (!fetch) {
    if (!tk_access_address(e, code_at(e, pc), pc, e->abort_pa, &far)) far = e->abort_pa;
    if (e->abort_is_write) iss |= 1u << 6;
  }
  uint32_t ec = (fetch ? EC_INSN_ABORT : EC_DATA_ABORT) + (read32(e, e->id.pstate) >> 2 & 3 ? 1 : 0);
  enter_exception(e, false, pc, ec << 26 | 1u << 25 | iss, true, far);
}

/* --- blocks --------------------------------------------------------------------------------------------------------------- */

/* Something may be due before this block, or the block would run past the stop. */
static __attribute__((noinline, cold)) void look(Engine *e, uint64_t pc, uint64_t size) {
  State *s = &e->s;
  s->slow_blocks++;
  s->left += (int64_t)size; /* not run yet */
  s->block_end = pc;
  if (e->flush_wanted || s->stop_wanted || e->wfe_retires || e->wfe_block_size || s->left <= 0) {
    stop(e);
    return;
  }
  if (s->takes_interrupts && s->line[s->vcpu] && !(read32(e, e->id.pstate) & PSTATE_I)) {
    stop(e);
    return;
  }
  if ((int64_t)size > s->left && !e->tail_running && !s->counts_each_instruction) {
    e->tail = s->left, e->tail_pc = pc, e->tail_size = size; /* due inside: tk_run runs just the head */
    stop(e);
    return;
  }
  s->left -= (int64_t)size;
  s->block_end = pc + size;
}
static void hook_block(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  (void)uc;
  State *s = user;
  s->block_end = pc + size;
  if (UNLIKELY((s->left -= size) < s->floor)) look((Engine *)s, pc, size);
}
static void hook_block_captured(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  Engine *e = user;
  hook_block(uc, pc, size, &e->s);
  if (!e->stopping) tk_capture_enter(e, pc);
  if (!e->stopping && e->s.captures_blocks) tk_capture_block(e, pc, size);
}
/* The slow reference: one callback for each instruction. */
static void hook_block_counting(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  (void)uc, (void)size;
  Engine *e = user;
  if (e->s.captures_writes || e->s.captures_reads || e->s.watch_count || e->s.finds_wfe) tk_capture_enter(e, pc);
  if (e->s.floor) {
    e->s.block_end = pc;
    if (e->flush_wanted || e->s.stop_wanted || e->wfe_retires ||
        (e->s.takes_interrupts && e->s.line[e->s.vcpu] && !(read32(e, e->id.pstate) & PSTATE_I)))
      stop(e);
  }
}
static void hook_code(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  (void)uc, (void)size;
  Engine *e = user;
  State *s = &e->s;
  if (e->stopping) return;
  if (s->left <= 0) {
    s->block_end = pc;
    stop(e);
    return;
  }
  s->left -= 4;
  s->block_end = pc + 4;
  if (s->captures_blocks) tk_capture_block(e, pc, 4);
  if (s->finds_wfe) tk_wfe_reached(e, pc, tk_captured_word(e, pc));
}

/* --- system registers ------------------------------------------------------------------------------------------------------ */

/* The counter as the guest sees it: never behind what any vCPU of the board has read. */
static uint64_t counter_ns(Engine *e) {
  uint64_t now = tk_ns_at(e, e->s.event_position);
  return now > e->s.counter_high_ns ? now : e->s.counter_high_ns;
}
static bool el0_may_not(Engine *e, uint32_t crm) { /* CNTKCTL_EL1: EL0PCTEN, EL0VCTEN, EL0VTEN, EL0PTEN */
  if (read32(e, e->id.pstate) & 0xc) return false;
  uint64_t control = read_system(e, 3, 0, 14, 1, 0);
  return crm == 0 ? (control & 3) == 0 : crm == 3 ? !(control >> 8 & 1) : !(control >> 9 & 1);
}
static bool is_timer(const CpReg *r) { return r->op0 == 3 && r->op1 == 3 && r->crn == 14 && (r->crm == 0 || r->crm == 2 || r->crm == 3); }

static uint32_t hook_mrs(uc_engine *uc, int reg, const CpReg *r, void *user) {
  (void)uc;
  Engine *e = user;
  State *s = &e->s;
  if (is_timer(r)) {
    if (el0_may_not(e, r->crm)) return 0; /* the engine's own check traps it */
    note_event(e, tk_pc(e));
    uint64_t now = counter_ns(e) >> 4, v;
    if (r->crm == 0) {
      if (r->op2 == 0) return 0; /* CNTFRQ_EL0: a constant */
      if (r->op2 > 2) return 0;
      s->counter_high_ns = counter_ns(e);
      v = now;
    } else {
      const Timer *t = &s->timer[s->vcpu][r->crm == 3 ? 0 : 1];
      if (r->op2 == 0) v = (uint64_t)(int64_t)(int32_t)(uint32_t)(t->cval - now) & 0xffffffffu;
      else if (r->op2 == 1) v = t->ctl | (t->ctl & 1 && now >= t->cval ? 4u : 0u);
      else if (r->op2 == 2) v = t->cval;
      else return 0;
    }
    write64(e, reg, v);
    return 1;
  }
  if (r->op0 == 3 && r->op1 == 3 && r->crn == 9 && r->crm == 13 && r->op2 == 0) { /* PMCCNTR_EL0 reads the host's clock */
    if (!(read32(e, e->id.pstate) & 0xc)) return 0;
    write64(e, reg, 0);
    return 1;
  }
  if (r->op0 == 3 && r->op1 == 3 && r->crn == 2 && r->crm == 4) { /* RNDR, RNDRRS read the host's random source */
    uint64_t x = s->random_state;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    s->random_state = x;
    write64(e, reg, x);
    write32(e, e->id.nzcv, 0);
    return 1;
  }
  if (r->op0 == 3 && r->op1 == 0 && r->crn == 0 && r->crm == 0 && r->op2 == 5 && read32(e, e->id.pstate) & 0xc) { /* MPIDR_EL1 */
    write64(e, reg, 0x80000000u | s->vcpu);
    return 1;
  }
  return 0;
}
static uint32_t hook_msr(uc_engine *uc, int reg, const CpReg *r, void *user) {
  (void)uc, (void)reg;
  Engine *e = user;
  if (!is_timer(r) || r->crm == 0 || r->op2 > 2 || el0_may_not(e, r->crm)) return 0;
  note_event(e, tk_pc(e));
  uint32_t which = r->crm == 3 ? 0 : 1;
  Timer *t = &e->s.timer[e->s.vcpu][which];
  uint64_t now = counter_ns(e) >> 4;
  if (r->op2 == 0) t->cval = now + (uint64_t)(int64_t)(int32_t)(uint32_t)r->val;
  else if (r->op2 == 1) t->ctl = r->val & 3;
  else t->cval = r->val;
  e->call.timer_changed(which);
  plan(e);
  return 1;
}

/* --- stale code --------------------------------------------------------------------------------------------------------------
 * The engine lets a store through an alias of a page go fast although the page holds translated code. The architecture makes
 * the guest execute IC IVAU before it may run new code, so translations are dropped there, by physical line. The public call
 * takes an address that is executable in the present regime; the alias named by IC IVAU may not be. EL3's regime is flat (MMU
 * off) with a TLB index of its own, so the call is made as if from EL3. */
static void drop_line(Engine *e, uint64_t va) {
  uint64_t pa;
  if (e->api.vmem_translate(e->uc, va & ~63ull, e->id.prot_read, &pa)) return;
  if (pa - e->s.ram_base >= e->s.ram_size) return;
  pa &= ~63ull;
  uint32_t pstate = read32(e, e->id.pstate);
  write32(e, e->id.pstate, 0x3cd);
  write_system(e, 3, 6, 13, 0, 2, 0); /* TPIDR_EL3, to rebuild the cached flags */
  e->api.ctl(e->uc, e->id.ctl_remove_cache, pa, pa + 64);
  write32(e, e->id.pstate, pstate);
  write_system(e, 3, 6, 13, 0, 2, 0);
  e->s.cache_lines++;
}
static uint32_t hook_sys(uc_engine *uc, int reg, const CpReg *r, void *user) {
  (void)uc, (void)reg;
  Engine *e = user;
  if (r->crn != 7 || !e->s.cures_stale_code) return 0;
  if (r->op1 == 3 && r->crm == 5 && r->op2 == 1) drop_line(e, r->val); /* IC IVAU */
  else if (r->op1 == 0 && r->op2 == 0 && (r->crm == 1 || r->crm == 5)) { /* IC IALLUIS, IC IALLU: at the next block */
    e->flush_wanted = true;
    tk_look_before_blocks(e);
  }
  return 0;
}

/* --- devices -----------------------------------------------------------------------------------------------------------------
 * A device region is mapped as I/O and then protected against reading and writing: the protection hook fires first, with the
 * exact PC and the true size; the I/O callback, which knows neither, only hands the value over. */
static bool hook_device(uc_engine *uc, int type, uint64_t pa, int size, int64_t value, void *user) {
  (void)uc;
  Engine *e = user;
  note_event(e, tk_pc(e));
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
    e->mmio_value = e->call.mmio_read(pa, (uint32_t)size);
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

/* --- setting up --------------------------------------------------------------------------------------------------------------- */

TK_EXPORT size_t tk_layout(int what) {
  switch (what) {
    case 0: return sizeof(State);
    case 1: return sizeof(Api);
    case 2: return sizeof(Ids);
    case 3: return sizeof(Callbacks);
    default: return sizeof(Columns);
  }
}
TK_EXPORT Engine *tk_new(const Api *api, const Ids *id, const Callbacks *call, uc_engine *uc, void *ram) {
  Engine *e = calloc(1, sizeof *e);
  if (!e) return NULL;
  e->api = *api, e->id = *id, e->call = *call, e->uc = uc, e->ram = ram;
  e->s.ns_numerator = e->s.ns_denominator = 1;
  e->zva_position = e->cas_position = UINT64_MAX;
  e->s.fault_position = UINT64_MAX;
  e->context_size = api->context_size(uc);
  if (api->context_alloc(uc, &e->scratch)) return NULL;
  return e;
}
TK_EXPORT State *tk_state(Engine *e) { return &e->s; }
TK_EXPORT void tk_free(Engine *e) {
  for (uint32_t i = 0; i < e->s.vcpu_count; i++)
    if (e->context[i]) e->api.context_free(e->context[i]);
  if (e->pristine) e->api.context_free(e->pristine);
  e->api.context_free(e->scratch);
  for (int i = 0; i < 3; i++) free(e->columns[i]);
  free(e);
}
/* All hooks, before the first instruction: the engine compiles most of them in. Then one context for each vCPU. */
TK_EXPORT int tk_install(Engine *e, int64_t syndrome_offset, int64_t exclusive_offset, int safe) {
  State *s = &e->s;
  size_t h;
  int error = s->finds_wfe ? tk_wfe_install(e) : 0;
  uc_engine *u = e->uc;
  e->syndrome_offset = syndrome_offset, e->exclusive_offset = exclusive_offset;
  bool captures = s->captures_writes || s->captures_reads || s->captures_blocks || s->watch_count;
#define ADD(...) do { if (!error) error = e->api.hook_add(u, &h, __VA_ARGS__); } while (0)
  ADD(e->id.hook_intr, (void *)hook_intr, e, 1, 0);
  if (s->counts_each_instruction) {
    ADD(e->id.hook_block, (void *)hook_block_counting, e, 1, 0);
    ADD(e->id.hook_code, (void *)hook_code, e, 1, 0);
  } else ADD(e->id.hook_block, captures ? (void *)hook_block_captured : (void *)hook_block, e, 1, 0);
  ADD(e->id.hook_insn, (void *)hook_mrs, e, 1, 0, e->id.insn_mrs);
  ADD(e->id.hook_insn, (void *)hook_msr, e, 1, 0, e->id.insn_msr);
  ADD(e->id.hook_insn, (void *)hook_sys, e, 1, 0, e->id.insn_sys);
  if (safe) ADD(e->id.hook_mem_unmapped, (void *)hook_unmapped, e, 1, 0); /* over all memory: every store stays on the checked path */
  else { /* beside RAM only; this also spares the engine a scan of its TLB at each translation (it asks with the virtual address) */
    ADD(e->id.hook_mem_unmapped, (void *)hook_unmapped, e, 0, s->ram_base - 1);
    ADD(e->id.hook_mem_unmapped, (void *)hook_unmapped, e, s->ram_base + s->ram_size, UINT64_MAX);
  }
  if (s->captures_writes || s->watch_count) ADD(e->id.hook_mem_write, (void *)tk_hook_write, e, 1, 0);
  if (s->captures_reads || s->watch_count) ADD(e->id.hook_mem_read_after, (void *)tk_hook_read, e, 1, 0);
#undef ADD
  for (int i = 0; i < 3 && !error; i++) {
    bool wanted = i == TK_WRITES ? s->captures_writes : i == TK_READS ? s->captures_reads : s->captures_blocks;
    if (wanted && !(e->columns[i] = calloc(1, sizeof(Columns)))) error = -1;
  }
  if (!error) error = e->api.context_alloc(u, &e->pristine);
  if (!error) error = e->api.context_save(u, e->pristine);
  for (uint32_t i = 0; i < s->vcpu_count && !error; i++) {
    error = e->api.context_alloc(u, &e->context[i]);
    if (!error) error = e->api.context_save(u, e->context[i]);
  }
  return error;
}
TK_EXPORT Columns *tk_columns(Engine *e, int table) { return e->columns[table]; }

/* --- vCPUs ------------------------------------------------------------------------------------------------------------------------ */

/* Let another vCPU have the engine. The exclusive monitor does not survive a switch. */
TK_EXPORT int tk_switch(Engine *e, uint32_t vcpu) {
  State *s = &e->s;
  if (vcpu == s->vcpu) return 0;
  if (s->captures_blocks) tk_capture_break(e, 0);
  int error = e->api.context_save(e->uc, e->context[s->vcpu]);
  if (e->exclusive_offset >= 0) memset((uint8_t *)e->context[vcpu] + e->exclusive_offset, 0xff, 8);
  if (!error) error = e->api.context_restore(e->uc, e->context[vcpu]);
  if (!error) error = e->api.ctl(e->uc, e->id.ctl_flush_tlb);
  s->vcpu = vcpu;
  return error;
}
/* Reset one vCPU and set where it starts. Spec: PSCI (DEN 0022) CPU_ON: x0 = context id, EL1h, MMU off, interrupts masked. */
TK_EXPORT int tk_reset_vcpu(Engine *e, uint32_t vcpu, uint64_t entry, uint64_t x0) {
  State *s = &e->s;
  int error = e->api.context_save(e->uc, e->context[s->vcpu]);
  if (!error) error = e->api.context_restore(e->uc, e->pristine);
  write64(e, e->id.x0, x0);
  write64(e, e->id.pc, entry);
  if (!error) error = e->api.context_save(e->uc, e->context[vcpu]);
  if (!error && vcpu != s->vcpu) error = e->api.context_restore(e->uc, e->context[s->vcpu]);
  memset(s->timer[vcpu], 0, sizeof s->timer[vcpu]);
  return error ? error : e->api.ctl(e->uc, e->id.ctl_flush_tlb);
}
/* Read registers of one vCPU: `plain` ids as u64 each, then `system` (op0, op1, crn, crm, op2) as u64 each, then 32 vector
 * registers as 16 bytes each. No guest code runs and no TLB entry is lost. */
TK_EXPORT int tk_read_registers(Engine *e, uint32_t vcpu, const int32_t *plain, uint32_t plain_count, const uint32_t *system,
                                uint32_t system_count, uint64_t *out) {
  bool other = vcpu != e->s.vcpu;
  if (other) {
    e->api.context_save(e->uc, e->context[e->s.vcpu]);
    e->api.context_restore(e->uc, e->context[vcpu]);
  }
  for (uint32_t i = 0; i < plain_count; i++) *out++ = read64(e, plain[i]);
  for (uint32_t i = 0; i < system_count; i++, system += 5) *out++ = read_system(e, system[0], system[1], system[2], system[3], system[4]);
  for (int i = 0; i < 32; i++, out += 2) e->api.reg_read(e->uc, e->id.q0 + i, out);
  if (other) e->api.context_restore(e->uc, e->context[e->s.vcpu]);
  return 0;
}
TK_EXPORT int tk_write_registers(Engine *e, uint32_t vcpu, const int32_t *plain, uint32_t plain_count, const uint32_t *system,
                                 uint32_t system_count, const uint64_t *in) {
  int error = 0;
  e->api.context_save(e->uc, e->context[e->s.vcpu]);
  e->api.context_restore(e->uc, e->pristine);
  for (uint32_t i = 0; i < plain_count; i++) write64(e, plain[i], *in++);
  for (uint32_t i = 0; i < system_count; i++, system += 5)
    write_system(e, system[0], system[1], system[2], system[3], system[4], *in++);
  for (int i = 0; i < 32; i++, in += 2) e->api.reg_write(e->uc, e->id.q0 + i, in);
  error = e->api.context_save(e->uc, e->context[vcpu]);
  e->api.context_restore(e->uc, e->context[e->s.vcpu]);
  e->api.ctl(e->uc, e->id.ctl_flush_tlb);
  return error;
}
/* The engine's own form of a vCPU: valid for one build of the engine only. */
static size_t context_body(Engine *e) { return *(size_t *)(void *)e->scratch; }
TK_EXPORT size_t tk_context_size(Engine *e) {
  e->api.context_save(e->uc, e->scratch);
  return context_body(e);
}
TK_EXPORT void tk_context_get(Engine *e, uint32_t vcpu, uint8_t *out) {
  if (vcpu == e->s.vcpu) e->api.context_save(e->uc, e->context[vcpu]);
  size_t body = tk_context_size(e);
  memcpy(out, (uint8_t *)e->context[vcpu] + (e->context_size - body), body);
}
TK_EXPORT int tk_context_set(Engine *e, uint32_t vcpu, const uint8_t *in) {
  size_t body = tk_context_size(e);
  memcpy((uint8_t *)e->context[vcpu] + (e->context_size - body), in, body);
  int error = vcpu == e->s.vcpu ? e->api.context_restore(e->uc, e->context[vcpu]) : 0;
  return error ? error : e->api.ctl(e->uc, e->id.ctl_flush_tlb);
}
TK_EXPORT void tk_set_line(Engine *e, uint32_t vcpu, uint32_t level) {
  e->s.line[vcpu] = level;
  if (vcpu == e->s.vcpu) tk_look_before_blocks(e);
}
TK_EXPORT void tk_request_stop(Engine *e) {
  e->s.stop_wanted = 1;
  tk_look_before_blocks(e);
}
TK_EXPORT void tk_flush_code(Engine *e) { e->api.ctl(e->uc, e->id.ctl_flush_tb), e->api.ctl(e->uc, e->id.ctl_flush_tlb); }
TK_EXPORT void tk_plan(Engine *e) { plan(e); }
TK_EXPORT uint64_t tk_event_ns(Engine *e) { return tk_ns_at(e, e->s.event_position); }
TK_EXPORT uint64_t tk_now_ns(Engine *e) { return tk_ns_at(e, e->s.position); }
TK_EXPORT void tk_take_interrupt(Engine *e) {
  if (e->s.captures_blocks) tk_capture_break(e, tk_pc(e));
  enter_exception(e, true, tk_pc(e), 0, false, 0);
}

/* --- running ------------------------------------------------------------------------------------------------------------------------ */

static int finish(Engine *e, int reason) {
  e->tail = 0;
  return reason;
}
static bool is_external_abort(const Engine *e, int error) {
  return error == e->id.err_read_unmapped || error == e->id.err_write_unmapped || error == e->id.err_fetch_unmapped;
}
/* Run the present vCPU until its position is limit_position, its local time horizon_ns, or something happens. */
TK_EXPORT int tk_run(Engine *e, uint64_t limit_position, uint64_t horizon_ns) {
  State *s = &e->s;
  s->limit_position = limit_position, s->horizon_ns = horizon_ns;
  s->stop_position = s->position, s->left = 0, s->engine_error = 0, s->stop_wanted = 0, s->faults_here = 0;
  e->hypercall_pending = 0;
  for (;;) {
    uint64_t pc = tk_pc(e);
    s->block_end = pc;
    s->position = tk_position_at(e, pc);
    if (e->flush_wanted) {
      tk_flush_code(e);
      e->flush_wanted = false;
    }
    plan(e);
    tk_look_before_blocks(e);
    if (timer_is_due(e)) return finish(e, TK_STOP_TIMER);
    if (s->position >= limit_position || tk_ns_at(e, s->position) >= horizon_ns) return finish(e, TK_STOP_LIMIT);
    if (s->stop_wanted) return finish(e, TK_STOP_REQUESTED);
    if (s->takes_interrupts && s->line[s->vcpu] && !(read32(e, e->id.pstate) & PSTATE_I)) return finish(e, TK_STOP_INTERRUPT);
    e->stopping = false, e->abort_seen = false;
    int error;
    if (e->tail && pc == e->tail_pc) { /* exact stop: only the first instructions of this block */
      s->tails++;
      uint64_t end = pc + (uint64_t)e->tail;
      e->tail_running = true;
      e->api.ctl(e->uc, e->id.ctl_remove_cache, pc, pc + e->tail_size);
      e->api.ctl(e->uc, e->id.ctl_exits_off, 0);
      error = e->api.emu_start(e->uc, pc, end, 0, 0);
      e->api.ctl(e->uc, e->id.ctl_exits_on, 1);
      e->tail_running = false;
      e->tail = 0;
      if (!e->stopping && tk_pc(e) == end) e->stopping = true;
    } else {
      e->tail = 0;
      error = e->api.emu_start(e->uc, pc, 0, 0, 0);
    }
    if (e->straddle_count) tk_capture_settle(e);
    if (e->wfe_block_size) tk_wfe_settle(e);
    if (s->engine_error) return finish(e, TK_STOP_ERROR);
    if (e->wfe_retires && tk_pc(e) == e->wfe_next_pc) {
      e->wfe_retires = false;
      s->position = tk_position_at(e, e->wfe_next_pc);
      return finish(e, TK_STOP_WFE);
    }
    e->wfe_retires = false;
    if (is_external_abort(e, error)) {
      external_abort(e, error);
      if (s->faults_here > TK_FAULTS_WITHOUT_PROGRESS_MAX) return finish(e, TK_STOP_LOCKUP);
      continue;
    }
    pc = tk_pc(e);
    if (error) {
      s->engine_error = error;
      s->fault_pc = pc;
      s->position = tk_position_at(e, pc);
      return finish(e, TK_STOP_ERROR);
    }
    if (s->faults_here > TK_FAULTS_WITHOUT_PROGRESS_MAX) {
      s->position = tk_position_at(e, s->block_end);
      return finish(e, TK_STOP_LOCKUP);
    }
    if (e->hypercall_pending) {
      s->position = tk_position_at(e, s->block_end);
      return finish(e, TK_STOP_HYPERCALL);
    }
    if (e->stopping) continue;
    /* Nobody asked for it: WFI. */
    s->position = tk_position_at(e, pc);
    if (s->line[s->vcpu]) continue;
    return finish(e, TK_STOP_WFI);
  }
}
