/* vCPUs: one engine, N contexts, of which one is loaded. */
#include "engine.h"
#include "registers.h"

#include <string.h>

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
/* The engine's own form of a vCPU: valid for one build of the engine only. */
static size_t context_body(Engine *e) { return *(size_t *)(void *)e->scratch; }
TK_EXPORT size_t tk_context_size(Engine *e) {
  e->api.context_save(e->uc, e->scratch);
  return context_body(e);
}
/* Load the body of a context, or (NULL) a vCPU after reset. */
void tk_load_base(Engine *e, const uint8_t *base) {
  size_t body = tk_context_size(e);
  if (base) memcpy((uint8_t *)e->scratch + (e->context_size - body), base, body);
  e->api.context_restore(e->uc, base ? e->scratch : e->pristine);
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
/* The other way. base: the body of a context that they are written over, NULL: that of a vCPU after reset. */
TK_EXPORT int tk_write_registers(Engine *e, uint32_t vcpu, const int32_t *plain, uint32_t plain_count, const uint32_t *system,
                                 uint32_t system_count, const uint64_t *in, const uint8_t *base) {
  int error = 0;
  e->api.context_save(e->uc, e->context[e->s.vcpu]);
  tk_load_base(e, base);
  for (uint32_t i = 0; i < plain_count; i++) write64(e, plain[i], *in++);
  for (uint32_t i = 0; i < system_count; i++, system += 5)
    write_system(e, system[0], system[1], system[2], system[3], system[4], *in++);
  for (int i = 0; i < 32; i++, in += 2) e->api.reg_write(e->uc, e->id.q0 + i, in);
  error = e->api.context_save(e->uc, e->context[vcpu]);
  e->api.context_restore(e->uc, e->context[e->s.vcpu]);
  e->api.ctl(e->uc, e->id.ctl_flush_tlb);
  return error;
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
TK_EXPORT void tk_take_interrupt(Engine *e) {
  if (e->s.captures_blocks) tk_capture_break(e, tk_pc(e));
  tk_enter_exception(e, true, tk_pc(e), 0, false, 0);
}
