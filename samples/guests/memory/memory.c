// Stores of every shape, self-modifying code, and code patched through a writable alias of an executable page (W^X): a machine
// that runs stale code, or that loses or invents a store, does not pass.
#include "mmu.h"
u64 stores(u8 *buffer);
extern u32 template_a[], template_b[];
static u8 buffer[2 * PAGE] __attribute__((aligned(4096)));
static u32 code_page[PAGE / 4] __attribute__((aligned(4096)));
static u32 failures;

static void report(const char *name, u64 got, u64 wanted) {
  failures += got != wanted;
  print(got == wanted ? "ok   " : "FAIL ");
  print(name);
  print(" ");
  print_hex(got);
  print("\n");
}
static u64 checksum(const u8 *p, u64 count) {
  u64 sum = 14695981039346656037ul;
  for (u64 i = 0; i < count; i++) sum = (sum ^ p[i]) * 1099511628211ul;
  return sum;
}
static void sync_line(volatile void *written, volatile void *executed) {
  __asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %1\n dsb ish\n isb" : : "r"(written), "r"(executed) : "memory");
}
static u32 moved(u32 value) { return 0x52800000u | value << 5; } // mov w0, #value
typedef u32 (*Function)(void);

// Two functions in one page, patched in turn through `write` and called through `execute`.
static u64 patch(volatile u32 *write, u32 *execute, int with_zva) {
  u64 sum = 0;
  for (u32 i = 0; i < 200; i++) {
    for (u32 f = 0; f < 2; f++) {
      volatile u32 *w = write + f * 64;
      if (with_zva) __asm__ volatile("dc zva, %0" : : "r"(w) : "memory");
      w[0] = moved(i + f);
      w[1] = 0xd65f03c0u; // ret
    }
    for (u32 f = 0; f < 2; f++) sync_line(write + f * 64, execute + f * 64);
    sum += ((Function)execute)() + ((Function)(execute + 64))();
  }
  return sum;
}
int main(void) {
  u64 wanted = 0;
  for (u32 i = 0; i < 200; i++) wanted += 2 * i + 1;
  report("stores, failed exclusives", stores(buffer), 1);
  report("checksum", checksum(buffer, sizeof buffer), 0xb2ebf2acc565280cul);
  report("code changed in place, MMU off", patch(code_page, code_page, 0), wanted);
  mmu_on((u64)__text_end);
  // The alias: the last page of the first 2 MiB shows code_page, writable and not executable; code_page itself becomes RX.
  u64 alias = RAM + 511 * PAGE;
  mmu_map(alias, (u64)code_page | AP_RW_ALL | UXN | PXN | AF | SHARED | NORMAL | 3);
  mmu_map((u64)code_page, (u64)code_page | AP_RO_ALL | AF | SHARED | NORMAL | 3);
  report("code changed through an alias", patch((volatile u32 *)alias, code_page, 0), wanted);
  report("the same with DC ZVA", patch((volatile u32 *)alias, code_page, 1), wanted);
  print(failures ? "FAIL\n" : "PASS\n");
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
