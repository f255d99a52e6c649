// Timer interrupts (virtual and physical), software-generated interrupts to itself and to another vCPU, sleeping in WFI.
#include "board.h"
#define TICKS 20
static volatile u32 virtual_count, physical_count, self_count, remote_count[VCPUS_MAX], echo_count, early;

static void sleep_until(volatile u32 *count, u32 wanted) {
  while (*count < wanted) {
    irq_off();
    if (*count < wanted) wfi();
    irq_on();
  }
}
int main(void) {
  gic_init_cpu();
  gic_enable(27);
  gic_enable(30);
  u32 vcpus = start_vcpus(2);
  irq_on();
  for (u32 i = 1; i <= TICKS; i++) {
    timer_after(1000 + 37 * i);
    sleep_until(&virtual_count, i);
  }
  for (u32 i = 1; i <= TICKS; i++) {
    WRITE_SYS(cntp_tval_el0, 900 + 11 * i);
    WRITE_SYS(cntp_ctl_el0, 1);
    sleep_until(&physical_count, i);
  }
  for (u32 i = 1; i <= 5; i++) {
    gic_sgi(1, 3);
    sleep_until(&self_count, i);
  }
  if (vcpus > 1)
    for (u32 i = 1; i <= 5; i++) {
      gic_sgi(2, 4);
      sleep_until(&echo_count, i);
    }
  irq_off();
  print("virtual ");
  print_dec(virtual_count);
  print(", physical ");
  print_dec(physical_count);
  print(", to itself ");
  print_dec(self_count);
  print(", there and back ");
  print_dec(echo_count);
  print(", early ");
  print_dec(early);
  print(early ? "\nFAIL\n" : "\nPASS\n");
  return 0;
}
void secondary_main(u64 vcpu) {
  gic_init_cpu();
  for (;;) {
    irq_on();
    wfi();
    irq_off();
    (void)vcpu;
  }
}
void exception(Frame *frame) {
  if ((frame->vector & 3) != 1) {
    print("FAIL: unexpected exception\n");
    power_off();
  }
  u32 iar = gic_acknowledge();
  switch (iar & 0x3ff) {
    case 27:
      early += !(READ_SYS(cntv_ctl_el0) & 4);
      timer_stop();
      virtual_count++;
      break;
    case 30:
      early += !(READ_SYS(cntp_ctl_el0) & 4);
      WRITE_SYS(cntp_ctl_el0, 0);
      physical_count++;
      break;
    case 3: self_count++; break;
    case 4: remote_count[1]++; gic_sgi(1, 5); break;
    case 5: echo_count++; break;
  }
  gic_end(iar);
}
