/* Just enough of the A64 encoding to say which address a load or store used and whether it wrote.
 * Source: Arm ARM DDI 0487, section C4.1.96 "Loads and Stores". */
#include "engine.h"

static int64_t sign_extend(uint64_t value, int bits) { return (int64_t)(value << (64 - bits)) >> (64 - bits); }

static Access access_of(uint32_t word, bool is_write, uint32_t size) {
  return (Access){.known = true, .is_write = is_write, .base = (int)(word >> 5 & 31), .index = -1, .size = size};
}

/* Address generation and direction of a load or store; known = false where it is none (or not one that can be told). */
Access tk_decode_access(uint32_t word) {
  Access none = {.known = false, .index = -1};
  if ((word & 0x0a000000u) != 0x08000000u) {
    if ((word & 0xffffffe0u) == 0xd50b7420u) { /* DC ZVA, Xt */
      Access zva = {.known = true, .is_write = true, .base = (int)(word & 31), .index = -1, .size = 64};
      return zva;
    }
    if ((word & 0xfff80000u) == 0xd5080000u && (word & 0xf000u) == 0x7000u) { /* other cache operations by address */
      Access line = {.known = true, .is_write = true, .base = (int)(word & 31), .index = -1, .size = 1};
      return line;
    }
    return none;
  }
  uint32_t size = 1u << (word >> 30), vector = word >> 26 & 1, group = word >> 28 & 3;
  if (group == 0 && !vector) { /* exclusives, ordered, compare and swap: base register only */
    if ((word & 0x3f000000u) != 0x08000000u) return none;
    bool load = word >> 22 & 1;
    bool cas = tk_is_cas(word) || tk_is_casp(word);
    return access_of(word, cas || !load, size);
  }
  if (group == 0) return access_of(word, !(word >> 22 & 1), 8); /* ST1..ST4, LD1..LD4 */
  if (group == 1 && (word & 0x3b000000u) == 0x18000000u) {      /* literal: PC + imm19; base 32 stands for the PC */
    Access a = access_of(word, false, vector ? 4u << (word >> 30) : (word >> 30 & 1 ? 8u : 4u));
    a.base = 32, a.offset = sign_extend(word >> 5 & 0x7ffff, 19) * 4;
    return a;
  }
  if (group == 1) { /* LDAPUR, STLUR */
    Access a = access_of(word, (word >> 22 & 3) == 0, size);
    a.offset = sign_extend(word >> 12 & 0x1ff, 9);
    return a;
  }
  if (group == 2) { /* pairs */
    uint32_t opc = word >> 30, mode = word >> 23 & 3;
    Access a = access_of(word, !(word >> 22 & 1), vector ? 4u << opc : (opc & 2 ? 8u : 4u));
    if (mode != 1) a.offset = sign_extend(word >> 15 & 0x7f, 7) * (int64_t)a.size; /* 1: post-index */
    return a;
  }
  /* group 3: one register */
  uint32_t opc = word >> 22 & 3;
  if (vector && (opc & 2)) size = 16;
  bool is_write = vector ? !(opc & 1) : opc == 0;
  Access a = access_of(word, is_write, size);
  if (word >> 24 & 1) { /* unsigned scaled immediate */
    a.offset = (int64_t)((word >> 10 & 0xfff) * size);
    return a;
  }
  if (word >> 21 & 1) {
    switch (word >> 10 & 3) {
      case 0: a.is_write = true; return a; /* LSE atomics (LDAPR also here: a read, told by its opcode) */
      case 2:
        a.index = (int)(word >> 16 & 31), a.extend = (int)(word >> 13 & 7);
        a.shift = word >> 12 & 1 ? __builtin_ctz(size) : 0;
        return a;
      default: a.offset = sign_extend((word >> 22 & 1) << 9 | (word >> 12 & 0x1ff), 10) * 8; a.is_write = false; return a;
    }
  }
  if ((word >> 10 & 3) != 1) a.offset = sign_extend(word >> 12 & 0x1ff, 9); /* 1: post-index */
  return a;
}

bool tk_is_cas(uint32_t word) { return (word & 0x3fa07c00u) == 0x08a07c00u; }
bool tk_is_casp(uint32_t word) { return (word & 0xbfa07c00u) == 0x08207c00u; }
bool tk_is_store_exclusive(uint32_t word) { return (word & 0x3fc00000u) == 0x08000000u && !tk_is_casp(word); }
bool tk_is_dc_zva(uint32_t word) { return (word & 0xffffffe0u) == 0xd50b7420u; }

/* MSR DAIFSet/DAIFClr/... at EL0 reaches us as an undefined instruction without a syndrome; the architecture says EC 0x18. */
bool tk_decode_msr_immediate(uint32_t word, uint32_t *esr) {
  if ((word & 0xfff8f01fu) != 0xd500401fu) return false;
  uint32_t op1 = word >> 16 & 7, crm = word >> 8 & 15, op2 = word >> 5 & 7;
  *esr = 0x18u << 26 | 1u << 25 | op2 << 17 | op1 << 14 | 4u << 10 | 31u << 5 | crm << 1;
  return true;
}
