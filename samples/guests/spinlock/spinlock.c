// Several vCPUs count under a lock (LDAXR/STXR) and, beside it, without one: the second count loses updates under those
// schedules that switch vCPUs between the load and the store.
#include "board.h"
#define TURNS 12000
static volatile u32 lock;
static volatile u64 locked_total, racy_total;
static volatile u32 ready, go, done;

static void acquire(void) {
  u32 seen, failed;
  do {
    do __asm__ volatile("ldaxr %w0, [%1]" : "=&r"(seen) : "r"(&lock) : "memory"); while (seen);
    __asm__ volatile("stxr %w0, %w1, [%2]" : "=&r"(failed) : "r"(1), "r"(&lock) : "memory");
  } while (failed);
}
static void release(void) { __asm__ volatile("stlr wzr, [%0]" : : "r"(&lock) : "memory"); }
static void add(volatile u32 *to) {
  u32 seen, failed;
  do {
    __asm__ volatile("ldaxr %w0, [%1]" : "=&r"(seen) : "r"(to) : "memory");
    __asm__ volatile("stlxr %w0, %w1, [%2]" : "=&r"(failed) : "r"(seen + 1), "r"(to) : "memory");
  } while (failed);
}
static void work(void) {
  add(&ready);
  while (!go) {}
  for (int i = 0; i < TURNS; i++) {
    acquire();
    locked_total++;
    release();
    u64 seen = racy_total; // not locked: that is the point
    for (volatile int pause = 0; pause < 3; pause++) {}
    racy_total = seen + 1;
  }
  add(&done);
}
int main(void) {
  u32 count = start_vcpus(VCPUS_MAX);
  while (ready + 1 < count) {}
  go = 1;
  work();
  while (done < count) {}
  print("vcpus ");
  print_dec(count);
  print(", locked total ");
  print_dec(locked_total);
  print(", racy total ");
  print_dec(racy_total);
  print(", lost ");
  print_dec((u64)count * TURNS - racy_total);
  print(locked_total == (u64)count * TURNS ? "\nPASS\n" : "\nFAIL\n");
  return 0;
}
void secondary_main(u64 vcpu) {
  (void)vcpu;
  work();
}
void exception(Frame *frame) {
  (void)frame;
  print("FAIL: unexpected exception\n");
  power_off();
}
