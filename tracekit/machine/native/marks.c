/* Marks: places where the machine is described by portable values alone.
 *
 * The exclusive monitor is the one thing of a vCPU that has no portable form. Any return from the host may clear it, and at a mark it
 * does, for every vCPU; an exclusive store behind it fails and the guest tries again, as after an interrupt. Cached translations of
 * addresses go as well, so that a guest which forgets a TLBI sees the same whether it ran through the mark or started there. */
#include "engine.h"

#include <string.h>

TK_EXPORT int tk_mark(Engine *e) {
  State *s = &e->s;
  if (s->captures_blocks) tk_capture_break(e, 0);
  int error = e->api.context_save(e->uc, e->context[s->vcpu]);
  for (uint32_t i = 0; i < s->vcpu_count && e->exclusive_offset >= 0; i++)
    memset((uint8_t *)e->context[i] + e->exclusive_offset, 0xff, 8);
  if (!error) error = e->api.context_restore(e->uc, e->context[s->vcpu]);
  return error ? error : e->api.ctl(e->uc, e->id.ctl_flush_tlb);
}
/* What has run so far is another run's: rows not yet taken, the open straight run, and what is remembered of the last instructions. */
TK_EXPORT void tk_forget(Engine *e) {
  State *s = &e->s;
  for (int i = 0; i < 3; i++)
    if (e->columns[i]) e->columns[i]->count = 0;
  e->straddle_count = 0;
  e->run_open = e->wfe_retires = e->flush_wanted = false;
  e->zva_position = e->cas_position = s->fault_position = UINT64_MAX;
  e->tail = 0, e->hypercall_pending = 0, e->mmio_bytes_left = 0;
  s->thick_position = 0, s->thick_next = 0, s->faults_here = 0, s->stop_wanted = 0; /* as before the first instruction */
}
