// Ten million stores of eight bytes by a loop that does nothing else: what capturing every write costs (tests/benchmarks).
#include "board.h"
#define WORDS 1000000u
#define PASSES 10u
static volatile u64 buffer[WORDS] __attribute__((aligned(4096)));

int main(void) {
  u64 value = 0;
  for (u32 pass = 0; pass < PASSES; pass++)
#pragma clang loop unroll(disable)
    for (volatile u64 *p = buffer; p < buffer + WORDS; p++) *p = value += 3;
  print("PASS\n");
  return 0;
}
void secondary_main(u64 vcpu) { (void)vcpu; }
void exception(Frame *frame) {
  (void)frame;
  print("FAIL: unexpected exception\n");
  power_off();
}
