/* From a place in the running block to a position, from a position to local time. */
#ifndef TRACEKIT_CLOCK_H
#define TRACEKIT_CLOCK_H

#include "engine.h"

/* Instructions retired before the one at `pc` inside the running block. */
static inline uint64_t tk_position_at(const Engine *e, uint64_t pc) {
  return e->s.stop_position - (uint64_t)((e->s.left + (int64_t)(e->s.block_end - pc)) >> 2);
}
static inline uint64_t tk_ns_at(const Engine *e, uint64_t position) {
  const State *s = &e->s;
  uint64_t parts = (position - s->clock_position) * s->ns_numerator + s->clock_remainder;
  return s->clock_ns + (s->ns_denominator == 1 ? parts : parts / s->ns_denominator);
}
static inline void tk_note_event(Engine *e, uint64_t pc) {
  e->s.event_pc = pc;
  e->s.event_position = tk_position_at(e, pc);
}
static inline void tk_note_event_and_time(Engine *e, uint64_t pc) {
  tk_note_event(e, pc);
  e->s.event_ns = tk_ns_at(e, e->s.event_position);
}

#endif
