/* Registers of the loaded vCPU. No other vCPU's: see vcpus.c. */
#ifndef TRACEKIT_REGISTERS_H
#define TRACEKIT_REGISTERS_H

#include "engine.h"

#define PSTATE_I 0x80u
#define PSTATE_EL 0xcu /* 0: EL0 */
#define PSTATE_PAN (1u << 22)

static inline void write64(Engine *e, int id, uint64_t v) { e->api.reg_write(e->uc, id, &v); }
static inline void write32(Engine *e, int id, uint32_t v) { e->api.reg_write(e->uc, id, &v); }
static inline uint64_t read64(Engine *e, int id) {
  uint64_t v = 0;
  e->api.reg_read(e->uc, id, &v);
  return v;
}
static inline uint32_t read32(Engine *e, int id) {
  uint32_t v = 0;
  e->api.reg_read(e->uc, id, &v);
  return v;
}
static inline uint64_t read_system(Engine *e, uint32_t op0, uint32_t op1, uint32_t crn, uint32_t crm, uint32_t op2) {
  CpReg r = {.crn = crn, .crm = crm, .op0 = op0, .op1 = op1, .op2 = op2};
  e->api.reg_read(e->uc, e->id.cp_reg, &r);
  return r.val;
}
static inline void write_system(Engine *e, uint32_t op0, uint32_t op1, uint32_t crn, uint32_t crm, uint32_t op2, uint64_t v) {
  CpReg r = {.crn = crn, .crm = crm, .op0 = op0, .op1 = op1, .op2 = op2, .val = v};
  e->api.reg_write(e->uc, e->id.cp_reg, &r);
}
static inline uint64_t tk_pc(Engine *e) { return read64(e, e->id.pc); }
static inline uint64_t tk_register(Engine *e, int n) {
  if (n == 29) return read64(e, e->id.x29);
  if (n == 30) return read64(e, e->id.x30);
  return read64(e, n == 31 ? e->id.sp : e->id.x0 + n);
}

#endif
