// LSE atomics, successful and failing compare-and-swaps among them.
#include "board.h"
u64 atomics(u64 *buffer);
static u64 buffer[16] __attribute__((aligned(64)));
int main(void) {
  if ((READ_SYS(id_aa64isar0_el1) >> 20 & 15) < 2) {
    print("this CPU model has no LSE; use --cpu max\nFAIL\n");
    return 0;
  }
  u64 got = atomics(buffer), wanted = 11ul | 7ul << 8 | 12ul << 16 | 99ul << 24 | 21ul << 32 | 22ul << 40;
  print("lse ");
  print_hex(got);
  print(got == wanted ? "\nPASS\n" : "\nFAIL\n");
  return 0;
}
void secondary_main(u64 vcpu) { (void)vcpu; }
void exception(Frame *frame) {
  print("FAIL: unexpected exception, esr ");
  print_hex(frame->esr);
  print(" elr ");
  print_hex(frame->elr);
  print("\n");
  power_off();
}
