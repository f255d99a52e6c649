// Takes every exception class of docs/machine.md, from EL1 and from EL0, and checks syndrome, fault address, return address and
// saved state against the architecture (Arm ARM DDI 0487, ESR_EL1).
#include "mmu.h"
#define IL (1ul << 25)
#define EC(n) ((u64)(n) << 26)
#define ANY (~0ul)
enum { EL0 = 0, EL1 = 1 };
typedef void (*Code)(void);
void run(Code code, u64 el);
extern char run_back[];
extern volatile u64 target;
extern void code_svc(void), code_hvc(void), code_smc(void), code_brk(void), code_udf(void), code_unknown_register(void),
    code_read_el1_register(void), code_daifset(void), code_read_ctr(void), code_read_counter(void), code_wfi(void), code_call(void),
    code_load(void), code_store(void), code_store_pair(void), code_spin(void);

static Frame seen;
static volatile u32 taken;
static u32 failures;
// Four pages beside code and data: unmapped, read-only, without access flag, not executable.
static u8 pages[4 * PAGE] __attribute__((aligned(4096)));
#define UNMAPPED ((u64)pages)
#define READ_ONLY ((u64)pages + PAGE)
#define NO_ACCESS_FLAG ((u64)pages + 2 * PAGE)
#define NOT_EXECUTABLE ((u64)pages + 3 * PAGE)

static void check(const char *name, Code code, u64 el, u64 at, u64 esr, u64 far, u64 elr_offset) {
  taken = 0;
  target = at;
  run(code, el);
  u64 elr = elr_offset == ANY ? seen.elr : (u64)code + elr_offset;
  u32 vector = (el == EL0 ? 8u : 4u) + (esr == ANY ? 1u : 0u);
  u32 good = taken == 1 && seen.vector == vector && (esr == ANY || seen.esr == esr) && (far == ANY || seen.far == far) &&
             seen.elr == elr && (seen.spsr & 0xf) == (el == EL0 ? 0u : 5u);
  failures += !good;
  print(good ? "ok   " : "FAIL ");
  print(el == EL0 ? "EL0 " : "EL1 ");
  print(name);
  if (!good) {
    print(": taken ");
    print_dec(taken);
    print(" vector ");
    print_dec(seen.vector);
    print(" esr ");
    print_hex(seen.esr);
    print(" wanted ");
    print_hex(esr);
    print(" far ");
    print_hex(seen.far);
    print(" elr ");
    print_hex(seen.elr - (u64)code);
    print(" spsr ");
    print_hex(seen.spsr);
  }
  print("\n");
}
static void check_irq(u64 el) {
  gic_init_cpu();
  gic_enable(27);
  timer_after(200);
  if (el == EL1) irq_on();
  check("irq", code_spin, el, 0, ANY, ANY, 0);
  irq_off();
}
static void aborts(u64 el) {
  u64 i = EC(el ? 0x21 : 0x20) | IL, d = EC(el ? 0x25 : 0x24) | IL;
  check("instruction abort, translation", code_call, el, UNMAPPED, i | 0x07, UNMAPPED, ANY);
  check("instruction abort, permission", code_call, el, NOT_EXECUTABLE, i | 0x0f, NOT_EXECUTABLE, ANY);
  check("instruction abort, external", code_call, el, HOLE_EXECUTABLE, i | 0x10, HOLE_EXECUTABLE, ANY);
  check("data abort, translation", code_load, el, UNMAPPED + 24, d | 0x07, UNMAPPED + 24, 8);
  check("data abort, permission", code_store, el, READ_ONLY + 24, d | 0x4f, READ_ONLY + 32, 12);
  check("data abort, access flag", code_load, el, NO_ACCESS_FLAG, d | 0x0b, NO_ACCESS_FLAG, 8);
  check("data abort, external, load", code_load, el, HOLE + 0x40, d | 0x10, HOLE + 0x40, 8);
  check("data abort, external, store", code_store, el, HOLE + 0x40, d | 0x50, HOLE + 0x48, 12);
  check("data abort, external, pair", code_store_pair, el, HOLE + 0x80, d | 0x50, HOLE + 0x80, 12);
}
int main(void) {
  mmu_on((u64)__text_end);
  mmu_map(UNMAPPED, 0);
  mmu_map(READ_ONLY, READ_ONLY | AP_RO_ALL | UXN | PXN | AF | SHARED | NORMAL | 3);
  mmu_map(NO_ACCESS_FLAG, NO_ACCESS_FLAG | AP_RW_ALL | UXN | PXN | SHARED | NORMAL | 3);
  WRITE_SYS(cntkctl_el1, 0);
  Result version = smc(PSCI_VERSION, 0, 0, 0);
  print(hvc(PSCI_VERSION, 0, 0, 0).x0 >= 0x10000 ? "ok   EL1 hvc\n" : "FAIL EL1 hvc\n");
  print(version.x0 >= 0x10000 ? "ok   EL1 smc\n" : "note EL1 smc is not answered here\n");
  for (u64 el = EL1;; el = EL0) {
    check("svc", code_svc, el, 0, EC(0x15) | IL | 7, ANY, 4);
    check("brk", code_brk, el, 0, EC(0x3c) | IL | 5, ANY, 0);
    check("undefined instruction", code_udf, el, 0, IL, ANY, 0);
    check("unknown system register", code_unknown_register, el, 0, IL, ANY, 0);
    aborts(el);
    check_irq(el);
    if (el == EL0) break;
  }
  check("hvc is undefined", code_hvc, EL0, 0, IL, ANY, 0);
  check("smc is undefined", code_smc, EL0, 0, IL, ANY, 0);
  check("EL1 register is undefined", code_read_el1_register, EL0, 0, IL, ANY, 0);
  // ISS of a trapped access: Op0 21:20, Op2 19:17, Op1 16:14, CRn 13:10, Rt 9:5, CRm 4:1, read 0
  check("MSR DAIFSet is trapped", code_daifset, EL0, 0, EC(0x18) | IL | 6 << 17 | 3 << 14 | 4 << 10 | 31 << 5 | 2 << 1, ANY, 0);
  check("CTR_EL0 is trapped", code_read_ctr, EL0, 0, EC(0x18) | IL | 3 << 20 | 1 << 17 | 3 << 14 | 1, ANY, 0);
  check("CNTVCT_EL0 is trapped", code_read_counter, EL0, 0, EC(0x18) | IL | 3 << 20 | 2 << 17 | 3 << 14 | 14 << 10 | 1, ANY, 0);
  check("WFI is trapped", code_wfi, EL0, 0, EC(0x01) | IL | 1ul << 24 | 0xeul << 20, ANY, 0);
  print(failures ? "FAIL\n" : "PASS\n");
  return 0;
}
void secondary_main(u64 vcpu) { (void)vcpu; }
void exception(Frame *frame) {
  taken++;
  seen = *frame;
  if ((frame->vector & 3) == 1) {
    u32 iar = gic_acknowledge();
    timer_stop();
    gic_end(iar);
  }
  frame->elr = (u64)run_back;
  frame->spsr = 0x3c5;
}
