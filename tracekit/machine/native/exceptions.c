/* Exceptions: delivered to EL1 as the architecture says; hypercalls stop the run. */
#include "clock.h"
#include "engine.h"
#include "registers.h"

#include <string.h>

enum { EXC_UNDEF = 1, EXC_SVC = 2, EXC_PREFETCH_ABORT = 3, EXC_DATA_ABORT = 4, EXC_BREAKPOINT = 7, EXC_HVC = 11, EXC_SMC = 13 };
enum { EC_WFX = 0x01, EC_INSN_ABORT = 0x20, EC_DATA_ABORT = 0x24 };

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
void tk_enter_exception(Engine *e, bool irq, uint64_t elr, uint32_t esr, bool has_far, uint64_t far) {
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

void tk_hook_intr(uc_engine *uc, uint32_t number, void *user) {
  (void)uc;
  Engine *e = user;
  State *s = &e->s;
  if (e->leaving) { /* not the guest's exception; tk_run goes on */
    tk_stop(e);
    return;
  }
  uint64_t pc = tk_pc(e);
  if (e->straddle_count) tk_capture_settle(e);
  uint32_t esr;
  uint64_t far;
  read_syndrome(e, &esr, &far);
  if (e->tail_running && number == EXC_UNDEF && pc + 4 == e->tail_pc + (uint64_t)e->tail && esr >> 26 == EC_WFX) {
    /* Not the guest's: `until` is compiled as a WFI, and a WFI at EL0 traps (with PC - 4) while SCTLR_EL1.nTWI is 0. A WFI of the guest
     * ends its block and is never the end of just its head. */
    write64(e, e->id.pc, pc + 4);
    tk_stop(e);
    return;
  }
  if (e->wfe_retires) { /* the exception is the next instruction's fetch (it will come again) or, by BTI, the WFE's own */
    if (pc == e->wfe_next_pc && number == EXC_PREFETCH_ABORT) {
      tk_stop(e);
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
  if (number == EXC_HVC || number == EXC_SMC) {
    s->hypercall_is_smc = number == EXC_SMC;
    s->hypercall_immediate = esr & 0xffff;
    e->hypercall_pending = 1;
    tk_stop(e);
    return;
  }
  if (e->tail_running) /* the cut block must not survive: its mapping may change */
    e->api.ctl(e->uc, e->id.ctl_remove_cache, e->tail_pc, e->tail_pc + e->tail_size);
  /* Writing the PC inside a hook makes the engine skip the synchronisation of the PC at the next memory callback; starting it
   * anew ends that. */
  tk_stop(e);
  if (!makes_progress(e, pc)) return;
  switch (number) {
    case EXC_UNDEF:
      if (smc_is_undefined)
        esr = 1u << 25;
      else if (!(esr >> 26)) { /* no class: say "unknown reason" unless the instruction tells more */
        esr = 1u << 25;
        if (!(read32(e, e->id.pstate) & PSTATE_EL)) tk_decode_msr_immediate(code_at(e, pc), &esr);
      }
      tk_enter_exception(e, false, pc, esr, false, 0);
      break;
    case EXC_SVC:
    case EXC_BREAKPOINT: tk_enter_exception(e, false, pc, esr, false, 0); break;
    case EXC_PREFETCH_ABORT:
    case EXC_DATA_ABORT: tk_enter_exception(e, false, pc, esr, true, far); break;
    default: s->engine_error = -(int32_t)number;
  }
}

/* A physical hole answers with a synchronous external abort (DFSC/IFSC 0x10). The engine names the physical address; the
 * virtual one and the direction come from the instruction.
 *
 * A load or a fetch that fails leaves the block at once. A store does not: the engine only remembers that it has failed, and goes on
 * until it looks. So the block is left here: the engine is asked for code at an address where none can be (it is beyond every
 * translation regime's input size, also with tags ignored, and beyond physical memory), the fetch faults, and the engine unwinds to
 * its loop, with the PC at the store, as it does for every fault. What comes of it (an exception while the MMU is on, a failed
 * fetch while it is off) is known by `leaving`. */
#define NOWHERE ((uint64_t)1 << 54)
bool tk_leave_block(Engine *e) { /* does not return, except where it does not work: false, and engine_error says how */
  Block none;
  e->leaving = true;
  int error = e->api.ctl(e->uc, e->id.ctl_request_cache, NOWHERE, &none);
  e->leaving = false;
  e->s.engine_error = error ? error : TK_CANNOT_LEAVE;
  return false;
}
bool tk_hook_unmapped(uc_engine *uc, int type, uint64_t pa, int size, int64_t value, void *user) {
  (void)uc, (void)value;
  Engine *e = user;
  if (e->leaving) return false;
  e->abort_pa = pa, e->abort_size = (uint32_t)size, e->abort_seen = true;
  e->abort_is_write = type == e->id.mem_write_unmapped;
  e->abort_pc = tk_pc(e);
  if (e->abort_is_write && !tk_leave_block(e) && !e->s.leaves_out_checks) e->s.engine_error = 0; /* with its check the engine stops behind the store all the same */
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
void tk_external_abort(Engine *e, int error) {
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
  tk_enter_exception(e, false, pc, ec << 26 | 1u << 25 | iss, true, far);
}
