/* Stopping behind a WFE. The engine tells nobody that it executes one; it goes on at once.
 *
 * But it tells of every block that it translates (UC_HOOK_EDGE_GENERATED), before that block runs for the first time. The block's
 * words are looked at there, once. A block with a WFE that is not known yet is refused by the block hook, its translation is
 * dropped, and a code hook bounded to just this address is added: hooks are compiled in at translation, so that the WFE calls it
 * from then on and no other instruction pays. Where the address means other code (another address space, code written anew) the
 * hook finds another word there and does nothing. The stop itself is made in front of the next block. */
#include "engine.h"

#include <string.h>

#define WFE 0xd503205fu

/* The instruction at `pc` is about to retire. */
void tk_wfe_reached(Engine *e, uint64_t pc, uint32_t word) {
  if (word != WFE || !e->s.stops_at_wfe) return;
  e->wfe_retires = true, e->wfe_next_pc = pc + 4;
  tk_look_before_blocks(e);
}
static void hook_wfe(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  (void)uc, (void)size;
  Engine *e = user;
  uint32_t word = 0;
  const uint8_t *at = e->stopping || !e->s.stops_at_wfe ? NULL : tk_code_word(e, pc);
  if (at) memcpy(&word, at, 4);
  tk_wfe_reached(e, pc, word);
}
static bool is_known(const Engine *e, uint64_t va) {
  for (uint64_t i = 0; i < e->s.wfe_sites; i++)
    if (e->wfe_site[i].va == va) return true;
  return false;
}
static void hook_translated(uc_engine *uc, const Block *block, const Block *before, void *user) {
  (void)uc, (void)before;
  Engine *e = user;
  e->translations++;
  const uint8_t *code = block->size ? tk_code_word(e, block->pc) : NULL; /* a block lies in one page */
  if (code) tk_hint_translated(e, block->pc, block->size, code);
  for (uint32_t i = 0; code && e->s.finds_wfe && i < block->size; i += 4) {
    uint32_t word;
    memcpy(&word, code + i, 4);
    if (word != WFE || is_known(e, block->pc + i)) continue;
    e->wfe_new = block->pc + i, e->wfe_block = block->pc, e->wfe_block_size = block->size;
    tk_look_before_blocks(e);
    return;
  }
}
/* Between two runs of the engine, in the context that has just translated the block. */
void tk_wfe_settle(Engine *e) {
  State *s = &e->s;
  if (s->wfe_sites == TK_WFE_SITES_MAX) { /* each site makes each translation a little slower: begin anew */
    for (uint64_t i = 0; i < s->wfe_sites; i++) e->api.hook_del(e->uc, e->wfe_site[i].hook);
    s->wfe_sites = 0;
    e->flush_wanted = true;
  }
  size_t *hook = &e->wfe_site[s->wfe_sites].hook;
  int error = e->api.hook_add(e->uc, hook, e->id.hook_code, (void *)hook_wfe, e, e->wfe_new, e->wfe_new);
  if (!error) error = e->api.ctl(e->uc, e->id.ctl_remove_cache, e->wfe_block, e->wfe_block + e->wfe_block_size);
  if (error) s->engine_error = error;
  e->wfe_site[s->wfe_sites++].va = e->wfe_new;
  e->wfe_block_size = 0;
}
/* The engine tells of a translation only once some block has left it in the ordinary way: one is run here, `b .+4`, in RAM that is
 * still empty. Then it must tell of the next. Before all other hooks. */
int tk_wfe_install(Engine *e) {
  size_t hook;
  uint32_t branch = 0x14000001u, old;
  if (e->s.counts_each_instruction) return 0; /* every instruction is looked at there */
  memcpy(&old, e->ram, 4);
  memcpy(e->ram, &branch, 4);
  int error = e->api.hook_add(e->uc, &hook, e->id.hook_edge, (void *)hook_translated, e, 1, 0);
  if (!error) error = e->api.context_save(e->uc, e->scratch);
  if (!error) error = e->api.ctl(e->uc, e->id.ctl_exits_off, 0);
  if (!error) error = e->api.emu_start(e->uc, e->s.ram_base, e->s.ram_base + 4, 0, 0);
  if (!error) error = e->api.ctl(e->uc, e->id.ctl_exits_on, 1);
  if (!error) error = e->api.context_restore(e->uc, e->scratch);
  memcpy(e->ram, &old, 4);
  e->api.ctl(e->uc, e->id.ctl_flush_tb);
  e->api.ctl(e->uc, e->id.ctl_flush_tlb);
  return error ? error : e->translations ? 0 : TK_NO_TRANSLATIONS_TOLD;
}
