/* WFE and YIELD without leaving the engine's loop. Both only hint that the vCPU waits; the engine retires them, ends the block, and unwinds
 * to its outermost loop, as if another vCPU of its own could use the time. That costs some 40 ns each time, and vCPUs that wait for each
 * other execute them by the ten million.
 *
 * An ISB does as little for the guest (there is nothing to synchronise here), and it ends the block too, but with a jump to the next one.
 * So a block that ends in a hint is translated with an ISB in its place: the block that has just been translated (see wfe.c) is refused
 * by the block hook, its translation is dropped, the hint's word in memory becomes an ISB, the block is translated anew, and the block
 * hook puts the word back before any of the block's instructions runs. Blocks, counts and places of interrupts stay what they were. */
#include "engine.h"

#include <string.h>

#define YIELD 0xd503203fu
#define WFE 0xd503205fu
#define ISB 0xd5033fdfu

/* A block has been translated; its code lies here. */
void tk_hint_translated(Engine *e, uint64_t pc, uint64_t size, const uint8_t *code) {
  uint32_t last; /* a hint ends its block */
  if (!e->s.eases_hints || e->tail_running) return;
  memcpy(&last, code + size - 4, 4);
  if (last != YIELD && last != WFE) return;
  e->hint_block = pc, e->hint_size = size;
  tk_look_before_blocks(e);
}
/* The block was refused, in the context that has just translated it. */
void tk_hint_settle(Engine *e) {
  int error = e->api.ctl(e->uc, e->id.ctl_remove_cache, e->hint_block, e->hint_block + e->hint_size);
  if (error) e->s.engine_error = error;
  e->hint_end = e->hint_block + e->hint_size;
  e->hint_size = 0;
}
/* The engine starts at `pc`: if that is the refused block, it is translated anew. */
void tk_hint_replace(Engine *e, uint64_t pc) {
  const uint32_t isb = ISB;
  const uint8_t *at = pc == e->hint_block ? tk_code_word(e, e->hint_end - 4) : NULL;
  e->hint_end = 0;
  if (!at) return;
  e->hint_word = e->ram + (at - e->ram);
  memcpy(&e->hint_saved, at, 4);
  memcpy(e->hint_word, &isb, 4);
  tk_look_before_blocks(e);
}
/* It has been translated, or something came in between. */
void tk_hint_restore(Engine *e) {
  memcpy(e->hint_word, &e->hint_saved, 4);
  e->hint_word = NULL;
  e->s.hints++;
}
