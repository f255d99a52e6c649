/* Limits, timers and the clock, folded into one budget of bytes: when does something happen next? */
#include "clock.h"

#define NO_TIME ((uint64_t)1 << 62)

/* The first position at which the local time is `ns` or later. */
static uint64_t position_of(const Engine *e, uint64_t ns) {
  const State *s = &e->s;
  if (ns <= s->clock_ns) return s->clock_position;
  uint64_t wait = ns - s->clock_ns;
  if (wait > (uint64_t)1 << 44) wait = (uint64_t)1 << 44; /* five hours ahead: far enough, and it cannot overflow */
  uint64_t units = wait * s->ns_denominator;
  if (units <= s->clock_remainder) return s->clock_position;
  return s->clock_position + (units - s->clock_remainder + s->ns_numerator - 1) / s->ns_numerator;
}
static bool timer_waits(const Timer *t) { return (t->ctl & 3) == 1 && !t->asserted && t->cval < NO_TIME >> 4; }

/* Fold every coming event of this vCPU into one budget of bytes. */
TK_EXPORT void tk_plan(Engine *e) {
  State *s = &e->s;
  uint64_t stop = position_of(e, s->horizon_ns);
  if (s->limit_position < stop) stop = s->limit_position;
  for (int i = 0; i < 2; i++) {
    const Timer *t = &s->timer[s->vcpu][i];
    if (!timer_waits(t)) continue;
    uint64_t due = position_of(e, t->cval << 4);
    if (due < stop) stop = due;
  }
  s->left += (int64_t)(stop - s->stop_position) * 4;
  s->stop_position = stop;
}
bool tk_timer_is_due(const Engine *e) {
  uint64_t now = tk_ns_at(e, e->s.position);
  for (int i = 0; i < 2; i++) {
    const Timer *t = &e->s.timer[e->s.vcpu][i];
    if (timer_waits(t) && t->cval << 4 <= now) return true;
  }
  return false;
}
TK_EXPORT uint64_t tk_now_ns(Engine *e) { return tk_ns_at(e, e->s.position); }
