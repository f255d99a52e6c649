#include "board.h"

Result hvc(u64 function, u64 a, u64 b, u64 c) {
  register u64 x0 __asm__("x0") = function, x1 __asm__("x1") = a, x2 __asm__("x2") = b, x3 __asm__("x3") = c;
  __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "memory");
  return (Result){x0, x1, x2, x3};
}
Result smc(u64 function, u64 a, u64 b, u64 c) {
  register u64 x0 __asm__("x0") = function, x1 __asm__("x1") = a, x2 __asm__("x2") = b, x3 __asm__("x3") = c;
  __asm__ volatile("smc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "memory");
  return (Result){x0, x1, x2, x3};
}
void put(char c) {
  while (read32(UART + 0x18) & 0x20) {}
  write32(UART, (u32)c);
}
u32 letters(void) {
  u32 seen = 0;
  while (!(read32(UART + 0x18) & 0x10)) {
    u32 letter = (read32(UART) & 0xff) - 'a';
    if (letter < 26) seen |= 1u << letter;
  }
  return seen;
}
void print(const char *text) {
  while (*text) put(*text++);
}
void print_dec(u64 value) {
  char digits[20];
  int n = 0;
  do digits[n++] = (char)('0' + value % 10); while (value /= 10);
  while (n) put(digits[--n]);
}
void print_hex(u64 value) {
  print("0x");
  int shift = 60;
  while (shift && !(value >> shift)) shift -= 4;
  for (; shift >= 0; shift -= 4) put("0123456789abcdef"[value >> shift & 15]);
}
void print_label(const char *text, u64 value) {
  print(text);
  print_dec(value);
}
void print_number(u64 value) {
  if (value + 16 < 16) {
    print("-");
    print_dec(-value);
  } else if (value < 10) {
    print_dec(value);
  } else {
    print_hex(value);
  }
}
void print_exception(const Frame *frame) {
  print("FAIL: unexpected exception, esr ");
  print_hex(frame->esr);
  print(" elr ");
  print_hex(frame->elr);
  print(" far ");
  print_hex(frame->far);
  print("\n");
}
void spend(u64 instructions) {
  u64 turns = instructions / 2;
  if (turns) __asm__ volatile("1: subs %0, %0, #1\n b.ne 1b" : "+r"(turns) : : "cc");
}
void power_off(void) {
  hvc(PSCI_SYSTEM_OFF, 0, 0, 0);
  for (;;) wfi();
}
void cpu_off(void) { hvc(PSCI_CPU_OFF, 0, 0, 0); }
extern char secondary_start[];
u32 start_vcpus(u32 most) {
  u32 n = 1;
  while (n < most && (long)hvc(PSCI_CPU_ON, n, (u64)secondary_start, n).x0 == 0) n++;
  return n;
}
void gic_init_cpu(void) {
  write32(GICD, 1);
  write32(GICC + 4, 0xf0);
  write32(GICC, 1);
}
void gic_enable(u32 intid) {
  write8(GICD + 0x400 + intid, 0xa0);
  write32(GICD + 0x100 + intid / 32 * 4, 1u << intid % 32);
}
u32 gic_acknowledge(void) { return read32(GICC + 0xc); }
void gic_end(u32 iar) { write32(GICC + 0x10, iar); }
void gic_sgi(u32 targets, u32 intid) { write32(GICD + 0xf00, targets << 16 | intid); }
void timer_at(u64 count) {
  WRITE_SYS(cntv_cval_el0, count);
  WRITE_SYS(cntv_ctl_el0, 1);
}
void timer_after(u64 ticks) {
  WRITE_SYS(cntv_cval_el0, counter() + ticks);
  WRITE_SYS(cntv_ctl_el0, 1);
}
void timer_stop(void) { WRITE_SYS(cntv_ctl_el0, 0); }
// The compiler may ask for these even in freestanding code.
void *memset(void *to, int value, unsigned long count) {
  volatile u8 *p = to;
  while (count--) *p++ = (u8)value;
  return to;
}
void *memcpy(void *to, const void *from, unsigned long count) {
  volatile u8 *p = to;
  const u8 *q = from;
  while (count--) *p++ = *q++;
  return to;
}
