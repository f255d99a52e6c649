/* Stale code: translations are dropped where the guest says that code has changed.
 *
 * The engine lets a store through an alias of a page go fast although the page holds translated code. The architecture makes
 * the guest execute IC IVAU before it may run new code, so translations are dropped there, by physical line. The public call
 * takes an address that is executable in the present regime; the alias named by IC IVAU may not be. EL3's regime is flat (MMU
 * off) with a TLB index of its own, so the call is made as if from EL3. */
#include "engine.h"
#include "registers.h"

TK_EXPORT void tk_flush_code(Engine *e) { e->api.ctl(e->uc, e->id.ctl_flush_tb), e->api.ctl(e->uc, e->id.ctl_flush_tlb); }

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
uint32_t tk_hook_sys(uc_engine *uc, int reg, const CpReg *r, void *user) {
  (void)uc, (void)reg;
  Engine *e = user;
  if (r->crn == 8) e->code_is_stale = true; /* TLBI */
  if (r->crn != 7 || !e->s.cures_stale_code) return 0;
  if (r->op1 == 3 && r->crm == 5 && r->op2 == 1) drop_line(e, r->val); /* IC IVAU */
  else if (r->op1 == 0 && r->op2 == 0 && (r->crm == 1 || r->crm == 5)) { /* IC IALLUIS, IC IALLU: at the next block */
    e->flush_wanted = true;
    tk_look_before_blocks(e);
  }
  return 0;
}
