/* The loop around the engine: it runs until something happens. */
#include "clock.h"
#include "engine.h"
#include "registers.h"

static int finish(Engine *e, int reason) {
  e->tail = 0;
  return reason;
}
static bool is_external_abort(const Engine *e, int error) {
  return error == e->id.err_read_unmapped || error == e->id.err_write_unmapped || error == e->id.err_fetch_unmapped;
}
/* Run the present vCPU until its position is limit_position, its local time horizon_ns, or something happens. */
TK_EXPORT int tk_run(Engine *e, uint64_t limit_position, uint64_t horizon_ns) {
  State *s = &e->s;
  s->limit_position = limit_position, s->horizon_ns = horizon_ns;
  s->stop_position = s->position, s->left = 0, s->engine_error = 0, s->stop_wanted = 0, s->faults_here = 0;
  e->hypercall_pending = 0, e->hint_end = 0, e->done_position = UINT64_MAX;
  for (;;) {
    uint64_t pc = tk_pc(e);
    s->block_end = pc;
    s->position = tk_position_at(e, pc);
    e->cut_wanted = false;
    if (e->flush_wanted) {
      tk_flush_code(e);
      e->flush_wanted = false;
    }
    tk_plan(e);
    tk_look_before_blocks(e);
    if (!e->again) {
      if (tk_timer_is_due(e)) return finish(e, TK_STOP_TIMER);
      if (s->position >= limit_position || tk_ns_at(e, s->position) >= horizon_ns) return finish(e, TK_STOP_LIMIT);
      if (s->stop_wanted) return finish(e, TK_STOP_REQUESTED);
      if (s->takes_interrupts && s->line[s->vcpu] && !(read32(e, e->id.pstate) & PSTATE_I)) return finish(e, TK_STOP_INTERRUPT);
    }
    e->stopping = false, e->abort_seen = false, e->code_is_stale = true;
    int error;
    bool is_cut = e->tail && pc == e->tail_pc;
    if (is_cut) { /* exact stop: only the first instructions of this block */
      s->tails++;
      uint64_t end = pc + (uint64_t)e->tail;
      e->tail_running = true;
      e->api.ctl(e->uc, e->id.ctl_remove_cache, pc, pc + e->tail_size);
      e->api.ctl(e->uc, e->id.ctl_exits_off, 0);
      error = e->api.emu_start(e->uc, pc, end, 0, 0);
      e->api.ctl(e->uc, e->id.ctl_exits_on, 1);
      e->tail_running = e->again = false;
      e->tail = 0;
      if (!e->stopping && tk_pc(e) == end) e->stopping = true;
    } else {
      e->tail = 0;
      if (e->hint_end) tk_hint_replace(e, pc);
      error = e->api.emu_start(e->uc, pc, 0, 0, 0);
    }
    if (e->straddle_count) tk_capture_settle(e);
    if (e->wfe_block_size) tk_wfe_settle(e);
    if (e->hint_word) tk_hint_restore(e);
    if (e->hint_size) tk_hint_settle(e);
    if (s->engine_error) return finish(e, TK_STOP_ERROR);
    if (e->cutting) {
      if (is_cut) e->api.ctl(e->uc, e->id.ctl_remove_cache, pc, pc + (s->block_end - pc));
      tk_cut_behind_access(e);
      continue;
    }
    if (e->wfe_retires && tk_pc(e) == e->wfe_next_pc) {
      e->wfe_retires = false;
      s->position = tk_position_at(e, e->wfe_next_pc);
      return finish(e, TK_STOP_WFE);
    }
    e->wfe_retires = false;
    if (e->leaving) {
      e->leaving = false;
      error = e->id.err_write_unmapped;
    }
    if (is_external_abort(e, error)) {
      if (is_cut) e->api.ctl(e->uc, e->id.ctl_remove_cache, e->tail_pc, e->tail_pc + e->tail_size); /* as for every exception */
      tk_external_abort(e, error);
      if (s->faults_here > TK_FAULTS_WITHOUT_PROGRESS_MAX) return finish(e, TK_STOP_LOCKUP);
      continue;
    }
    pc = tk_pc(e);
    if (error) {
      s->engine_error = error;
      s->fault_pc = pc;
      s->position = tk_position_at(e, pc);
      return finish(e, TK_STOP_ERROR);
    }
    if (s->faults_here > TK_FAULTS_WITHOUT_PROGRESS_MAX) {
      s->position = tk_position_at(e, s->block_end);
      return finish(e, TK_STOP_LOCKUP);
    }
    if (e->hypercall_pending) {
      s->position = tk_position_at(e, s->block_end);
      return finish(e, TK_STOP_HYPERCALL);
    }
    if (e->stopping) continue;
    /* Nobody asked for it: WFI. */
    s->position = tk_position_at(e, pc);
    if (s->line[s->vcpu]) continue;
    return finish(e, TK_STOP_WFI);
  }
}
