// The smallest guest: says hello and powers off.
#include "board.h"
int main(void) {
  print("hello from EL1 of an arm64 guest\n");
  return 0;
}
void secondary_main(u64 vcpu) { (void)vcpu; }
void exception(Frame *frame) {
  (void)frame;
  print("FAIL: unexpected exception\n");
  power_off();
}
