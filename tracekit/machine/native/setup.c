/* Building an engine, and taking it down. */
#include "engine.h"

#include <stdlib.h>

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
  free(e);
}
/* All hooks, before the first instruction: the engine compiles most of them in. Then one context for each vCPU. */
TK_EXPORT int tk_install(Engine *e, int64_t syndrome_offset, int64_t exclusive_offset, int safe) {
  State *s = &e->s;
  size_t h;
  int error = s->leaves_out_checks ? tk_leave_out_checks(e) : 0;
  if (!error && (s->finds_wfe || s->eases_hints)) error = tk_wfe_install(e);
  uc_engine *u = e->uc;
  e->syndrome_offset = syndrome_offset, e->exclusive_offset = exclusive_offset;
  bool captures = s->captures_writes || s->captures_reads || s->captures_blocks || s->watch_count;
#define ADD(...) do { if (!error) error = e->api.hook_add(u, &h, __VA_ARGS__); } while (0)
  ADD(e->id.hook_intr, (void *)tk_hook_intr, e, 1, 0);
  if (s->counts_each_instruction) {
    ADD(e->id.hook_block, (void *)tk_hook_block_counting, e, 1, 0);
    ADD(e->id.hook_code, (void *)tk_hook_code, e, 1, 0);
  } else ADD(e->id.hook_block, captures ? (void *)tk_hook_block_captured : (void *)tk_hook_block, e, 1, 0);
  ADD(e->id.hook_insn, (void *)tk_hook_mrs, e, 1, 0, e->id.insn_mrs);
  ADD(e->id.hook_insn, (void *)tk_hook_msr, e, 1, 0, e->id.insn_msr);
  ADD(e->id.hook_insn, (void *)tk_hook_sys, e, 1, 0, e->id.insn_sys);
  if (safe) ADD(e->id.hook_mem_unmapped, (void *)tk_hook_unmapped, e, 1, 0); /* over all memory: every store stays on the checked path */
  else { /* beside RAM only; this also spares the engine a scan of its TLB at each translation (it asks with the virtual address) */
    ADD(e->id.hook_mem_unmapped, (void *)tk_hook_unmapped, e, 0, s->ram_base - 1);
    ADD(e->id.hook_mem_unmapped, (void *)tk_hook_unmapped, e, s->ram_base + s->ram_size, UINT64_MAX);
  }
  if (s->captures_writes || s->watch_count) ADD(e->id.hook_mem_write, (void *)tk_hook_write, e, 1, 0);
  if (s->captures_reads || s->watch_count) ADD(e->id.hook_mem_read_after, (void *)tk_hook_read, e, 1, 0);
#undef ADD
  if (!error) error = e->api.context_alloc(u, &e->pristine);
  if (!error) error = e->api.context_save(u, e->pristine);
  for (uint32_t i = 0; i < s->vcpu_count && !error; i++) {
    error = e->api.context_alloc(u, &e->context[i]);
    if (!error) error = e->api.context_save(u, e->context[i]);
  }
  return error;
}
