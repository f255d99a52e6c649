/* System registers that the machine keeps itself: timers and counters, those that would read the host, the vCPU's number.
 *
 * A hook may answer only for what the present exception level may use; for everything else the engine's own check raises the exception.
 * Nor may it answer for a register that the CPU model does not have: the engine would execute the instruction for ever. */
#include "clock.h"
#include "engine.h"
#include "registers.h"

/* The counter as the guest sees it: never behind what any vCPU of the board has read. */
static uint64_t counter_ns(Engine *e) {
  uint64_t now = tk_ns_at(e, e->s.event_position);
  return now > e->s.counter_high_ns ? now : e->s.counter_high_ns;
}
static bool el0_may_not(Engine *e, const CpReg *r) { /* CNTKCTL_EL1: EL0PCTEN, EL0VCTEN, EL0VTEN, EL0PTEN */
  if (read32(e, e->id.pstate) & PSTATE_EL) return false;
  uint64_t control = read_system(e, 3, 0, 14, 1, 0);
  if (r->crm == 0) return !(control >> (r->op2 == 1 ? 0 : 1) & 1);
  return r->crm == 3 ? !(control >> 8 & 1) : !(control >> 9 & 1);
}
/* The cycle counter would count the host's clock. So no counter of the PMU is ever enabled: PMCNTENSET_EL0 stays 0, and PMCCNTR_EL0 is
 * 0. (Without it an enabled counter would also set its overflow bit when the host's clock says so.) */
static bool is_pmu(Engine *e, const CpReg *r, bool is_write) {
  bool is_enable = r->crm == 12 && r->op2 == 1, is_cycles = r->crm == 13 && r->op2 == 0;
  if (r->op0 != 3 || r->op1 != 3 || r->crn != 9 || !(is_cycles || (is_enable && is_write))) return false;
  if (read32(e, e->id.pstate) & PSTATE_EL) return true;
  return read_system(e, 3, 3, 9, 14, 0) & (is_write ? 1 : 5); /* PMUSERENR_EL0: EN, CR */
}
static bool is_timer(const CpReg *r) { return r->op0 == 3 && r->op1 == 3 && r->crn == 14 && (r->crm == 0 || r->crm == 2 || r->crm == 3); }

uint32_t tk_hook_mrs(uc_engine *uc, int reg, const CpReg *r, void *user) {
  (void)uc;
  Engine *e = user;
  State *s = &e->s;
  if (is_timer(r)) {
    if (el0_may_not(e, r)) return 0; /* the engine's own check traps it */
    tk_note_event(e, tk_pc(e));
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
  if (is_pmu(e, r, false)) {
    write64(e, reg, 0);
    return 1;
  }
  if (r->op0 == 3 && r->op1 == 3 && r->crn == 2 && r->crm == 4 && r->op2 < 2 && s->has_rndr) { /* RNDR, RNDRRS read the host's random source */
    uint64_t x = s->random_state;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    s->random_state = x;
    write64(e, reg, x);
    write32(e, e->id.nzcv, 0);
    return 1;
  }
  if (r->op0 == 3 && r->op1 == 0 && r->crn == 0 && r->crm == 0 && r->op2 == 5 && read32(e, e->id.pstate) & PSTATE_EL) { /* MPIDR_EL1 */
    write64(e, reg, 0x80000000u | s->vcpu);
    return 1;
  }
  return 0;
}
uint32_t tk_hook_msr(uc_engine *uc, int reg, const CpReg *r, void *user) {
  (void)uc, (void)reg;
  Engine *e = user;
  e->code_is_stale = true; /* it may be a register of the MMU */
  if (is_pmu(e, r, true)) return 1;
  if (!is_timer(r) || r->crm == 0 || r->op2 > 2 || el0_may_not(e, r)) return 0;
  tk_note_event_and_time(e, tk_pc(e));
  uint32_t which = r->crm == 3 ? 0 : 1;
  Timer *t = &e->s.timer[e->s.vcpu][which];
  uint64_t now = counter_ns(e) >> 4;
  if (r->op2 == 0) t->cval = now + (uint64_t)(int64_t)(int32_t)(uint32_t)r->val;
  else if (r->op2 == 1) t->ctl = r->val & 3;
  else t->cval = r->val;
  e->call.timer_changed(which);
  tk_plan(e);
  return 1;
}
