// Discovers stolen time in the order in which Linux does, burns CPU on every vCPU, sleeps now and then, and prints what each
// vCPU was told. Source of the order: Linux drivers/firmware/psci/psci.c, arch/arm64/kernel/paravirt.c.
#include "board.h"
#define ROUNDS 12
typedef struct { u32 revision, attributes; volatile u64 stolen_ns; u8 padding[48]; } __attribute__((aligned(64))) PvTime;
static PvTime *volatile structure[VCPUS_MAX];
static volatile u64 told[VCPUS_MAX], reads[VCPUS_MAX], sink[VCPUS_MAX];
static volatile u32 done[VCPUS_MAX], interrupts[VCPUS_MAX];
static u32 offered;

static u32 discover(void) {
  if (hvc(PSCI_VERSION, 0, 0, 0).x0 < 0x10000) return 0;
  if ((int)hvc(PSCI_FEATURES, SMCCC_VERSION, 0, 0).x0 < 0) return 0;
  if (hvc(SMCCC_VERSION, 0, 0, 0).x0 < 0x10001) return 0;
  if ((int)hvc(SMCCC_ARCH_FEATURES, PV_TIME_FEATURES, 0, 0).x0 < 0) return 0;
  return (long)hvc(PV_TIME_FEATURES, PV_TIME_ST, 0, 0).x0 == 0;
}
static void burn(u64 vcpu, u64 turns) {
  u64 x = sink[vcpu] + vcpu;
  for (u64 i = 0; i < turns; i++) {
    x = x * 6364136223846793005ul + 1442695040888963407ul;
    if (!(i & 4095) && structure[vcpu]) told[vcpu] = structure[vcpu]->stolen_ns, reads[vcpu]++;
  }
  sink[vcpu] = x;
}
static void nap(u64 vcpu, u64 ticks) {
  u32 before = interrupts[vcpu];
  timer_after(ticks);
  while (interrupts[vcpu] == before) wfi();
}
static void work(u64 vcpu) {
  gic_init_cpu();
  gic_enable(27);
  irq_on();
  if (offered) {
    long ipa = (long)hvc(PV_TIME_ST, 0, 0, 0).x0;
    if (ipa > 0) structure[vcpu] = (PvTime *)ipa;
  }
  for (int round = 0; round < ROUNDS; round++) {
    burn(vcpu, 150000 + 20000 * vcpu);
    if (round % 3 == 2) nap(vcpu, 40000 + 5000 * vcpu);
  }
  if (structure[vcpu]) told[vcpu] = structure[vcpu]->stolen_ns;
  irq_off();
  barrier();
  done[vcpu] = 1;
}
int main(void) {
  offered = discover();
  if (!offered) print("no stolen time is offered\n");
  u32 count = start_vcpus(VCPUS_MAX);
  work(0);
  for (u32 vcpu = 1; vcpu < count; vcpu++)
    while (!done[vcpu]) burn(0, 4096);
  barrier();
  for (u32 vcpu = 0; vcpu < count; vcpu++) {
    print("vcpu ");
    print_dec(vcpu);
    print(": told ");
    print_dec(told[vcpu]);
    print(" ns stolen\n");
  }
  print("PASS\n");
  return 0;
}
void secondary_main(u64 vcpu) { work(vcpu); }
void exception(Frame *frame) {
  if ((frame->vector & 3) != 1) {
    print("FAIL: unexpected exception\n");
    power_off();
  }
  u32 iar = gic_acknowledge();
  if ((iar & 0x3ff) == 27) {
    timer_stop();
    interrupts[READ_SYS(mpidr_el1) & 0xff]++;
  }
  gic_end(iar);
}
