// Accounts CPU time as Linux does (kernel/sched/cputime.c, arch/arm64/kernel/paravirt.c): a tick of 4 ms on every CPU, steal by a
// cursor, /proc/stat on the console. The tick goes on while idle, as with nohz=off.
// Letters at the UART: h: the last CPU goes down and up again (as Linux does it, so that its steal steps back); r: the cursor is
// reset together with the clock, as Linux does not.
#include "linux.h"
#define TICK 250000ul        // of the 62.5 MHz counter: 4 ms
#define TICK_NS 4000000ul
#define USER_HZ_NS 10000000ul
#define BUDGET 30000000ul    // instructions of the first phase over all CPUs
enum { USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL, GUEST, GUEST_NICE, COLUMNS };
typedef struct {
  PvTime *volatile structure; // 0: the steal clock reads 0
  u64 previous_steal;         // the cursor; it lives as long as the machine
  volatile u64 column[COLUMNS];
  u64 next_tick;
  volatile u32 doing, ticks, phase_done, is_online;
  u64 shown; // steal in the last reading
} __attribute__((aligned(64))) Cpu;
static Cpu cpus[VCPUS_MAX];
static volatile u32 phase, offered, warned;
static u32 count, wants_hotplug, resets_cursor;

static u64 steal_clock(const Cpu *cpu) {
  PvTime *structure = cpu->structure;
  u64 value = 0;
  if (structure) __asm__ volatile("ldr %0, [%1]" : "=r"(value) : "r"(&structure->stolen_ns)); // one load of 8 bytes
  return value;
}
static void tick(Cpu *cpu) {
  u64 steal = steal_clock(cpu) - cpu->previous_steal; // mod 2^64: a clock that stepped back takes the column with it
  cpu->column[STEAL] += steal;
  cpu->previous_steal += steal;
  if (steal < TICK_NS) cpu->column[cpu->doing] += TICK_NS - steal;
  cpu->next_tick += ((counter() - cpu->next_tick) / TICK + 1) * TICK;
  timer_at(cpu->next_tick);
  cpu->ticks++;
}
static void sleep_ticks(u32 ticks) {
  Cpu *cpu = &cpus[this_cpu()];
  u32 until = cpu->ticks + ticks;
  cpu->doing = IDLE;
  while ((int)(cpu->ticks - until) < 0) {
    irq_off();
    if ((int)(cpu->ticks - until) < 0) wfi();
    irq_on();
  }
  cpu->doing = SYSTEM;
}
static void work(u64 instructions) {
  Cpu *cpu = &cpus[this_cpu()];
  cpu->doing = USER;
  spend(instructions);
  cpu->doing = SYSTEM;
}
static void cpu_up(Cpu *cpu) {
  gic_init_cpu();
  gic_enable(27);
  cpu->doing = SYSTEM;
  cpu->is_online = 1;
  cpu->next_tick = (counter() / TICK + 1) * TICK;
  timer_at(cpu->next_tick);
  irq_on();
  if (!offered) return;
  u64 answer;
  PvTime *structure = steal_clock_of_this_cpu(&answer);
  irq_off();
  if (resets_cursor) cpu->previous_steal = 0;
  cpu->structure = structure;
  if (structure && (structure->revision | structure->attributes)) warned = 1;
  irq_on();
}
static void cpu_down(Cpu *cpu) {
  irq_off();
  cpu->structure = 0;
  if (resets_cursor) cpu->previous_steal = 0;
  irq_on();
  sleep_ticks(1); // the rest of Linux's way down takes longer than a tick
  irq_off();
  timer_stop();
  cpu->is_online = 0;
  cpu_off();
}

static void print_columns(const volatile u64 *column) {
  for (u32 n = 0; n < COLUMNS; n++) print_label(" ", column[n] / USER_HZ_NS);
  print("\n");
}
static void print_stat(void) {
  static u64 columns[VCPUS_MAX][COLUMNS], sum[COLUMNS];
  u64 before = counter();
  for (u32 n = 0; n < COLUMNS; n++) {
    sum[n] = 0;
    for (u32 vcpu = 0; vcpu < count; vcpu++) sum[n] += columns[vcpu][n] = cpus[vcpu].column[n];
  }
  u64 after = counter();
  print_label("STAT BEGIN ", before);
  print("\ncpu ");
  print_columns(sum);
  for (u32 vcpu = 0; vcpu < count; vcpu++) {
    if (!cpus[vcpu].is_online) continue; // the sum has all CPUs, the lines those that are online
    print_label("cpu", vcpu);
    print_columns(columns[vcpu]);
  }
  print_label("STAT END ", after);
  print("\n");
  for (u32 vcpu = 0; vcpu < count; vcpu++) {
    u64 steal = columns[vcpu][STEAL];
    if (steal < cpus[vcpu].shown) {
      print_label("cpu", vcpu);
      print_label(": steal stepped back from ", cpus[vcpu].shown);
      print_label(" to ", steal);
      print(" ns\n");
    }
    cpus[vcpu].shown = steal;
  }
}

// Phase 1: rounds of work and idleness. 2: work, while the last CPU is down where that is wanted. 3: work of all. 4: the end.
static u32 goes_down(u32 vcpu) { return wants_hotplug && vcpu && vcpu == count - 1; }
static void do_phase(u32 vcpu, u32 number) {
  if (number == 1) {
    for (u32 round = 1; round <= 2; round++) {
      work(BUDGET / 3 / count * (3 - round)); // one long stretch, one short one
      sleep_ticks(2 + (vcpu + round) % 2);
      if (!vcpu) print_stat();
    }
  } else {
    work(BUDGET / 6 / count);
  }
  barrier();
  cpus[vcpu].phase_done = number;
}
static void wait_for(u32 number) {
  for (u32 vcpu = 0; vcpu < count; vcpu++)
    while (cpus[vcpu].phase_done < number && !(number == 2 && goes_down(vcpu))) sleep_ticks(1);
  barrier();
}
int main(void) {
  u32 seen = letters();
  wants_hotplug = seen >> ('h' - 'a') & 1;
  resets_cursor = seen >> ('r' - 'a') & 1;
  psci_probe(conduit_of(boot_devicetree), 0);
  offered = has_steal_clock(0);
  print(offered ? "using stolen time PV\n" : "no stolen time is offered\n");
  cpu_up(&cpus[0]);
  count = start_vcpus(VCPUS_MAX);
  for (u32 vcpu = 1; vcpu < count; vcpu++)
    while (!cpus[vcpu].is_online) spend(100);
  barrier();
  print_stat();
  for (u32 number = 1; number <= 3; number++) {
    phase = number;
    do_phase(0, number);
    if (number == 2 && goes_down(count - 1)) {
      while (hvc(PSCI_AFFINITY_INFO, count - 1, 0, 0).x0 != 1) sleep_ticks(1);
      print_label("cpu", count - 1);
      print(" is down\n");
    }
    wait_for(number);
    print_stat();
    if (number == 2 && goes_down(count - 1)) {
      extern char secondary_start[];
      hvc(PSCI_CPU_ON, count - 1, (u64)secondary_start, count - 1);
    }
  }
  if (warned) print("unexpected revision or attributes\n");
  print("PASS\n");
  return 0;
}
void secondary_main(u64 vcpu) {
  Cpu *cpu = &cpus[vcpu];
  cpu_up(cpu);
  for (u32 number = cpu->phase_done ? 3 : 1; number <= 3; number++) {
    while (phase < number) sleep_ticks(1);
    if (number == 2 && goes_down(vcpu)) cpu_down(cpu);
    do_phase(vcpu, number);
  }
  for (;;) sleep_ticks(1);
}
void exception(Frame *frame) {
  if ((frame->vector & 3) != 1) {
    print_exception(frame);
    power_off();
  }
  u32 iar = gic_acknowledge();
  if ((iar & 0x3ff) == 27) tick(&cpus[this_cpu()]);
  gic_end(iar);
}
