/* Leaving out the check that Unicorn makes after every load and store: whether somebody has asked it to stop.
 *
 * It is compiled into each access, and a quarter of a boot's time goes there. Nothing here needs it: a run is stopped in front of a
 * block, where another check stays; exceptions leave a block at once, with or without it; and so does an access to a physical hole
 * (exceptions.c, leave_block). Unicorn leaves the check out while a mark is set that the translator for Thumb keeps ("inside an IT
 * block"), and the translator for A64 never touches the mark. So one Thumb block that ends inside an IT block is run here, from RAM
 * that is still empty: `it al; svc #0`. A guest that runs Thumb code of its own may bring the check back: slower, and nothing else.
 *
 * Public calls only; whether it took is tried out, not assumed. Registers and RAM are afterwards as before. */
#include "engine.h"
#include "registers.h"

#include <string.h>

static void stop_at_exception(uc_engine *uc, uint32_t number, void *user) {
  (void)uc, (void)number;
  tk_stop(user);
}
static int run_stub(Engine *e) {
  static const uint32_t stub[] = {0xd69f03e0 /* ERET */, 0xdf00bfe8 /* IT AL; SVC #0 */, 0xdf00df00};
  size_t hook;
  memcpy(e->ram, stub, sizeof stub);
  int error = e->api.hook_add(e->uc, &hook, e->id.hook_intr, (void *)stop_at_exception, e, 1, 0);
  if (error) return error;
  write64(e, e->id.elr_el1, e->s.ram_base + 4);
  write_system(e, 3, 0, 4, 0, 0, 0x1f0); /* SPSR_EL1: AArch32 User, Thumb, A, I and F masked */
  error = e->api.emu_start(e->uc, e->s.ram_base, 0, 0, 0);
  e->api.hook_del(e->uc, hook);
  return error;
}
/* With the check the engine stops behind a store that fails, without it at the block's end. */
static int run_trial(Engine *e) {
  static const uint32_t trial[] = {0xf9000020 /* STR X0, [X1] */, 0xd2800022 /* MOV X2, #1 */, 0x14000000 /* B . */};
  memcpy(e->ram, trial, sizeof trial);
  write64(e, e->id.x0 + 1, e->s.ram_base - 4096);
  write64(e, e->id.x0 + 2, 0);
  int error = e->api.emu_start(e->uc, e->s.ram_base, 0, 0, 0);
  if (error != e->id.err_write_unmapped) return error ? error : -1;
  e->s.leaves_out_checks = read64(e, e->id.x0 + 2) == 1;
  return 0;
}
static int afresh(Engine *e) {
  int error = e->api.context_restore(e->uc, e->scratch);
  tk_flush_code(e);
  return error;
}
/* Before any hook is there and before devices are mapped. Sets leaves_out_checks; 0 also where it did not take. */
int tk_leave_out_checks(Engine *e) {
  uint8_t kept[16];
  memcpy(kept, e->ram, sizeof kept);
  int error = e->api.context_save(e->uc, e->scratch);
  if (!error) error = run_stub(e);
  if (!error) error = afresh(e);
  if (!error) error = run_trial(e);
  memcpy(e->ram, kept, sizeof kept);
  int last = afresh(e);
  e->stopping = false;
  return error ? error : last;
}
