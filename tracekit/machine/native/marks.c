/* Marks: places where the machine is described by portable values alone.
 *
 * The exclusive monitor is the one thing of a vCPU that has no portable form. Any return from the host may clear it, and at a mark it
 * does, for every vCPU; an exclusive store behind it fails and the guest tries again, as after an interrupt. */
#include "engine.h"

#include <string.h>

TK_EXPORT int tk_mark(Engine *e) {
  State *s = &e->s;
  if (s->captures_blocks) tk_capture_break(e, 0);
  if (e->exclusive_offset < 0) return 0;
  int error = e->api.context_save(e->uc, e->context[s->vcpu]);
  for (uint32_t i = 0; i < s->vcpu_count; i++) memset((uint8_t *)e->context[i] + e->exclusive_offset, 0xff, 8);
  return error ? error : e->api.context_restore(e->uc, e->context[s->vcpu]);
}
