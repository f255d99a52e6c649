// What becomes of the structures when the guest uses their memory for something else. No call disables stolen time, so after a
// kexec the host goes on adding to memory that the new kernel believes to be its own (docs/pvtime.md 8.1 f).
// Every CPU enables stolen time and works until 8 ms; then it fills its structure with data of its own, works on, and says what
// became of the data. Letter f at the UART: it forges its stolen time once instead (8.1 d), and says what it reads later.
#include "linux.h"
#define BEGIN 500000ul     // of the 62.5 MHz counter: 8 ms
#define WORDS 8
#define ROUNDS 40
#define ROUND 100000ul     // instructions
#define FORGED 1000000000ul // ns
static volatile u64 first_bad[VCPUS_MAX], bad_value[VCPUS_MAX], before[VCPUS_MAX], after[VCPUS_MAX];
static volatile u32 done[VCPUS_MAX], has_clock[VCPUS_MAX];
static volatile u32 offered, forges;

static u64 pattern(u64 vcpu, u32 word) { return 0x5eed000000000000ul | vcpu << 8 | word; }
static void reuse(u64 vcpu, volatile u64 *memory) {
  first_bad[vcpu] = WORDS;
  for (u32 word = 0; word < WORDS; word++) memory[word] = pattern(vcpu, word);
  for (u32 round = 0; round < ROUNDS; round++) spend(ROUND);
  for (u32 word = 0; word < WORDS && first_bad[vcpu] == WORDS; word++)
    if (memory[word] != pattern(vcpu, word)) first_bad[vcpu] = word, bad_value[vcpu] = memory[word];
}
static void forge(u64 vcpu, PvTime *structure) {
  before[vcpu] = structure->stolen_ns;
  structure->stolen_ns = FORGED;
  for (u32 round = 0; round < ROUNDS; round++) spend(ROUND);
  after[vcpu] = structure->stolen_ns;
}
static void work(u64 vcpu) {
  u64 answer;
  PvTime *structure = offered ? steal_clock_of_this_cpu(&answer) : 0;
  while (counter() < BEGIN) spend(ROUND / 4);
  if (structure && forges) forge(vcpu, structure);
  if (structure && !forges) reuse(vcpu, (volatile u64 *)structure);
  has_clock[vcpu] = structure != 0;
  barrier();
  done[vcpu] = 1;
}
static void report(u64 vcpu) {
  print_label("cpu", vcpu);
  if (!has_clock[vcpu]) {
    print(": no stolen time");
  } else if (forges) {
    print_label(": read ", before[vcpu]);
    print_label(", wrote ", FORGED);
    print_label(", read later ", after[vcpu]);
  } else if (first_bad[vcpu] == WORDS) {
    print(": data intact");
  } else {
    print_label(": data changed, word ", first_bad[vcpu]);
    print(" by ");
    print_dec(bad_value[vcpu] - pattern(vcpu, (u32)first_bad[vcpu]));
  }
  print("\n");
}
int main(void) {
  forges = letters() >> ('f' - 'a') & 1;
  psci_probe(conduit_of(boot_devicetree), 0);
  offered = has_steal_clock(0);
  u32 count = start_vcpus(VCPUS_MAX);
  work(0);
  for (u32 vcpu = 0; vcpu < count; vcpu++)
    while (!done[vcpu]) spend(ROUND / 4);
  barrier();
  for (u32 vcpu = 0; vcpu < count; vcpu++) report(vcpu);
  print("PASS\n");
  return 0;
}
void secondary_main(u64 vcpu) { work(vcpu); }
void exception(Frame *frame) {
  print_exception(frame);
  power_off();
}
