/* Whether a vCPU's portable registers are all of it.
 *
 * Its context is loaded twice: once as it is, once on top of an untouched one (base: as for tk_write_registers), and the portable registers are written over both. What
 * still differs afterwards is state that they do not hold. A few places of a context are no state: the exclusive monitor (cleared at
 * marks), the record of the last exception (read only while it is being delivered) and the host's clock. */
#include "engine.h"
#include "registers.h"

#include <string.h>

#define EXCLUSIVE_SIZE 24 /* address, value, second value */
#define EXCEPTION_SIZE 24 /* syndrome, status, address, level */
#define CLOCK_SIZE 8

static void write_all(Engine *e, const int32_t *plain, uint32_t plain_count, const uint32_t *system, uint32_t system_count, const uint64_t *in) {
  for (uint32_t i = 0; i < plain_count; i++) write64(e, plain[i], *in++);
  for (uint32_t i = 0; i < system_count; i++, system += 5) write_system(e, system[0], system[1], system[2], system[3], system[4], *in++);
  for (int i = 0; i < 32; i++, in += 2) e->api.reg_write(e->uc, e->id.q0 + i, in);
}
static void mask(Engine *e, uc_context *context, int64_t offset, size_t size) {
  if (offset >= 0 && (size_t)offset + size <= e->context_size) memset((uint8_t *)context + offset, 0, size);
}
/* Offset in the context's body of the first byte that portable registers do not determine; -1: none; -2: out of memory. in: what
 * tk_read_registers gave for the same lists. */
TK_EXPORT int64_t tk_portable_gap(Engine *e, uint32_t vcpu, const int32_t *plain, uint32_t plain_count, const uint32_t *system,
                                  uint32_t system_count, const uint64_t *in, int64_t clock_offset, const uint8_t *base) {
  uc_context *as_it_is = NULL, *on_pristine = NULL;
  int64_t gap = -2;
  if (!e->api.context_alloc(e->uc, &as_it_is) && !e->api.context_alloc(e->uc, &on_pristine)) {
    uint32_t loaded = e->s.vcpu;
    e->api.context_save(e->uc, e->context[loaded]);
    for (int i = 0; i < 2; i++) {
      uc_context *into = i ? on_pristine : as_it_is;
      if (i) tk_load_base(e, base);
      else e->api.context_restore(e->uc, e->context[vcpu]);
      write_all(e, plain, plain_count, system, system_count, in);
      e->api.context_save(e->uc, into);
      mask(e, into, e->exclusive_offset, EXCLUSIVE_SIZE);
      mask(e, into, e->syndrome_offset, EXCEPTION_SIZE);
      mask(e, into, clock_offset, CLOCK_SIZE);
    }
    e->api.context_restore(e->uc, e->context[loaded]);
    size_t body = *(size_t *)(void *)as_it_is, head = e->context_size - body;
    gap = -1;
    for (size_t i = 0; i < body && gap < 0; i++)
      if (((uint8_t *)as_it_is)[head + i] != ((uint8_t *)on_pristine)[head + i]) gap = (int64_t)i;
  }
  if (as_it_is) e->api.context_free(as_it_is);
  if (on_pristine) e->api.context_free(on_pristine);
  return gap;
}
