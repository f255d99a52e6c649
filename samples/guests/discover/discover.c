// Asks everything that a guest may ask about stolen time and prints the answers: first what Linux asks, in Linux's order and
// through the conduit that Linux would choose; then what Linux never asks. The table is the same in every run on the same
// hypervisor, whatever the host does.
#include "linux.h"
enum { HVC_0, HVC_1, SMC_0, SMC_1 }; // how call_all calls: bit 0 the immediate, bit 1 the conduit
void call_all(u64 x[18], u64 how);
static volatile u32 undefined; // an SMC came back as an exception
static u32 clobbered, leftovers;
static volatile u64 answer[VCPUS_MAX];
static volatile u32 revision[VCPUS_MAX], attributes[VCPUS_MAX], done[VCPUS_MAX], offered;

typedef struct { const char *name; u64 function, argument; } Question;
static const Question odd[] = {
    {"ARCH_FEATURES(SMCCC_VERSION)", SMCCC_ARCH_FEATURES, SMCCC_VERSION},
    {"ARCH_FEATURES(ARCH_FEATURES)", SMCCC_ARCH_FEATURES, SMCCC_ARCH_FEATURES},
    {"ARCH_FEATURES(PV_TIME_FEATURES)", SMCCC_ARCH_FEATURES, PV_TIME_FEATURES},
    {"ARCH_FEATURES(PV_TIME_ST)", SMCCC_ARCH_FEATURES, PV_TIME_ST},
    {"ARCH_FEATURES(PV_TIME_LPT)", SMCCC_ARCH_FEATURES, 0xc5000022},
    {"ARCH_FEATURES(85000020)", SMCCC_ARCH_FEATURES, 0x85000020},
    {"ARCH_FEATURES(WORKAROUND_1)", SMCCC_ARCH_FEATURES, 0x80008000},
    {"ARCH_FEATURES(WORKAROUND_2)", SMCCC_ARCH_FEATURES, 0x80007fff},
    {"ARCH_FEATURES(WORKAROUND_3)", SMCCC_ARCH_FEATURES, 0x80003fff},
    {"WORKAROUND_1", 0x80008000, 0},
    {"WORKAROUND_2", 0x80007fff, 0},
    {"WORKAROUND_3", 0x80003fff, 0},
    {"PV_TIME_FEATURES(PV_TIME_FEATURES)", PV_TIME_FEATURES, PV_TIME_FEATURES},
    {"PV_TIME_FEATURES(PV_TIME_ST)", PV_TIME_FEATURES, PV_TIME_ST},
    {"PV_TIME_FEATURES(PV_TIME_LPT)", PV_TIME_FEATURES, 0xc5000022},
    {"PV_TIME_FEATURES(85000021)", PV_TIME_FEATURES, 0x85000021},
    {"PV_TIME_FEATURES(0)", PV_TIME_FEATURES, 0},
    {"PV_TIME_FEATURES(ffffffffc5000021)", PV_TIME_FEATURES, 0xffffffffc5000021},
    {"PV_TIME_FEATURES(1c5000022)", PV_TIME_FEATURES, 0x1c5000022},
    {"feedc5000020(PV_TIME_ST)", 0xfeedc5000020, PV_TIME_ST},
    {"85000020(PV_TIME_ST)", 0x85000020, PV_TIME_ST},
    {"85000021", 0x85000021, 0},
    {"PV_TIME_LPT", 0xc5000022, 0},
    {"c5000023", 0xc5000023, 0},
    {"c500001f", 0xc500001f, PV_TIME_ST},
    {"c5008020", 0xc5008020, PV_TIME_ST},
    {"45000021", 0x45000021, 0},
    {"PV_TIME_ST", PV_TIME_ST, 0xfeed},
    {"1c5000021", 0x1c5000021, 0},
};

static void tell(const char *name, Result result) {
  print(name);
  print(" = ");
  if (undefined) {
    print("undefined");
  } else {
    print_number(result.x0);
    if (result.x1 | result.x2 | result.x3) {
      print(" ");
      print_number(result.x1);
      print(" ");
      print_number(result.x2);
      print(" ");
      print_number(result.x3);
    }
  }
  print("\n");
  undefined = 0;
}
static void ask(const char *name, u64 function, u64 argument, u64 how) {
  u64 x[18] = {function, argument, 0xa002, 0xa003};
  for (u32 n = 4; n < 18; n++) x[n] = 0xfeedfacecafe0000 + n;
  call_all(x, how);
  if (!undefined) {
    leftovers += (x[1] | x[2] | x[3]) != 0;
    for (u32 n = 4; n < 18; n++) clobbered += x[n] != 0xfeedfacecafe0000 + n;
  }
  tell(name, (Result){x[0], x[1], x[2], x[3]});
}
static const char *word(Conduit conduit) { return conduit == CONDUIT_HVC ? "hvc" : conduit == CONDUIT_SMC ? "smc" : "none"; }

static void retrieve(u64 vcpu) {
  u64 told = NOT_SUPPORTED;
  PvTime *structure = offered ? steal_clock_of_this_cpu(&told) : 0;
  answer[vcpu] = told;
  if (structure) revision[vcpu] = structure->revision, attributes[vcpu] = structure->attributes;
  barrier();
  done[vcpu] = 1;
}
int main(void) {
  Conduit method = conduit_of(boot_devicetree);
  print("device tree: ");
  print(word(method));
  print("\n");
  psci_probe(method, tell);
  print("SMCCC 1.1: ");
  print(word(smccc_conduit()));
  print("\n");
  offered = has_steal_clock(tell);
  retrieve(0);
  u32 count = start_vcpus(VCPUS_MAX);
  for (u32 vcpu = 0; vcpu < count; vcpu++) {
    while (!done[vcpu]) spend(100);
    barrier();
    print_label("cpu", vcpu);
    print(": PV_TIME_ST = ");
    print_number(answer[vcpu]);
    if (answer[vcpu] != NOT_SUPPORTED) {
      print_label(" revision ", revision[vcpu]);
      print_label(" attributes ", attributes[vcpu]);
    }
    print("\n");
  }
  print("what Linux never asks:\n");
  u64 how = method == CONDUIT_SMC ? SMC_0 : HVC_0;
  for (u32 n = 0; n < sizeof odd / sizeof *odd; n++) ask(odd[n].name, odd[n].function, odd[n].argument, how);
  ask("PV_TIME_FEATURES(PV_TIME_ST), immediate 1", PV_TIME_FEATURES, PV_TIME_ST, how + 1);
  print(clobbered ? "X4-X17 changed\n" : "X4-X17 kept\n");
  print(leftovers ? "X1-X3 not 0\n" : "X1-X3 are 0\n");
  print("PASS\n");
  return 0;
}
void secondary_main(u64 vcpu) { retrieve(vcpu); }
void exception(Frame *frame) {
  u32 instruction = *(u32 *)frame->elr;
  if (frame->esr >> 26 == 0 && (instruction & 0xffe0001f) == 0xd4000003) { // SMC as KVM before v5.10 had it
    undefined = 1;
    frame->elr += 4;
    frame->x[0] = NOT_SUPPORTED;
    return;
  }
  print_exception(frame);
  power_off();
}
