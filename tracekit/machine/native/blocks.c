/* Blocks of code: counted as they are entered, stopped in front of the one in which something is due. */
#include "clock.h"
#include "engine.h"
#include "registers.h"

#define UNLIKELY(x) __builtin_expect(!!(x), 0)

void tk_look_before_blocks(Engine *e) {
  const State *s = &e->s;
  bool waiting = s->takes_interrupts && s->line[s->vcpu];
  bool translates = e->wfe_block_size || e->hint_size || e->hint_word;
  e->s.floor = waiting || e->flush_wanted || s->stop_wanted || e->wfe_retires || translates ? INT64_MAX : 0;
}
void tk_stop(Engine *e) {
  e->stopping = true;
  e->api.emu_stop(e->uc);
}
TK_EXPORT void tk_request_stop(Engine *e) {
  e->s.stop_wanted = 1;
  tk_look_before_blocks(e);
}

/* Something may be due before this block, or the block would run past the stop. */
static __attribute__((noinline, cold)) void look(Engine *e, uint64_t pc, uint64_t size) {
  State *s = &e->s;
  s->slow_blocks++;
  s->left += (int64_t)size; /* not run yet */
  s->block_end = pc;
  if (e->hint_word) {
    tk_hint_restore(e);
    tk_look_before_blocks(e);
  }
  if (e->again) { /* an access to a device that has been carried out: its instruction retires, whatever is due behind it */
    s->left -= (int64_t)size;
    s->block_end = pc + size;
    return;
  }
  if (e->flush_wanted || s->stop_wanted || e->wfe_retires || e->wfe_block_size || e->hint_size || s->left <= 0) {
    tk_stop(e);
    return;
  }
  if (s->takes_interrupts && s->line[s->vcpu] && !(read32(e, e->id.pstate) & PSTATE_I)) {
    tk_stop(e);
    return;
  }
  if ((int64_t)size > s->left && !e->tail_running && !s->counts_each_instruction) {
    e->tail = s->left, e->tail_pc = pc, e->tail_size = size; /* due inside: tk_run runs just the head */
    tk_stop(e);
    return;
  }
  s->left -= (int64_t)size;
  s->block_end = pc + size;
}
void tk_hook_block(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  (void)uc;
  State *s = user;
  s->block_end = pc + size;
  if (UNLIKELY((s->left -= size) < s->floor)) look((Engine *)s, pc, size);
}
void tk_hook_block_captured(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  Engine *e = user;
  tk_hook_block(uc, pc, size, &e->s);
  if (!e->stopping) tk_capture_enter(e, pc);
  if (!e->stopping && e->s.captures_blocks) tk_capture_block(e, pc, size);
}
/* The slow reference: one callback for each instruction. */
void tk_hook_block_counting(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  (void)uc, (void)size;
  Engine *e = user;
  if (e->s.captures_writes || e->s.captures_reads || e->s.watch_count || e->s.finds_wfe) tk_capture_enter(e, pc);
  if (e->s.floor) {
    e->s.block_end = pc;
    if (e->flush_wanted || e->s.stop_wanted || e->wfe_retires ||
        (e->s.takes_interrupts && e->s.line[e->s.vcpu] && !(read32(e, e->id.pstate) & PSTATE_I)))
      tk_stop(e);
  }
}
void tk_hook_code(uc_engine *uc, uint64_t pc, uint32_t size, void *user) {
  (void)uc, (void)size;
  Engine *e = user;
  State *s = &e->s;
  if (e->stopping) return;
  if (s->left <= 0 || e->cut_wanted) {
    s->block_end = pc;
    tk_stop(e);
    return;
  }
  s->left -= 4;
  s->block_end = pc + 4;
  if (s->captures_blocks) tk_capture_block(e, pc, 4);
  if (s->finds_wfe) tk_wfe_reached(e, pc, tk_captured_word(e, pc));
}
