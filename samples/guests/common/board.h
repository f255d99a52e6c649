// What every guest uses: console, calls, timers, interrupts, vCPUs. The board is docs/machine.md's.
#ifndef BOARD_H
#define BOARD_H
#include <stdint.h>
typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

typedef struct { u64 x[31], elr, spsr, esr, far, vector; } Frame;
typedef struct { u64 x0, x1, x2, x3; } Result;

#define UART 0x09000000ul
#define GICD 0x08000000ul
#define GICC 0x08010000ul
#define PSCI_VERSION 0x84000000u
#define PSCI_CPU_OFF 0x84000002u
#define PSCI_CPU_ON 0xc4000003u
#define PSCI_AFFINITY_INFO 0xc4000004u
#define PSCI_SYSTEM_OFF 0x84000008u
#define PSCI_FEATURES 0x8400000au
#define SMCCC_VERSION 0x80000000u
#define SMCCC_ARCH_FEATURES 0x80000001u
#define PV_TIME_FEATURES 0xc5000020u
#define PV_TIME_ST 0xc5000021u
#define VCPUS_MAX 8

static inline void write32(u64 a, u32 v) { *(volatile u32 *)a = v; }
static inline u32 read32(u64 a) { return *(volatile u32 *)a; }
static inline void write8(u64 a, u8 v) { *(volatile u8 *)a = v; }
#define READ_SYS(name) ({ u64 v_; __asm__ volatile("mrs %0, " #name : "=r"(v_)); v_; })
#define WRITE_SYS(name, value) __asm__ volatile("msr " #name ", %0\n isb" : : "r"((u64)(value)) : "memory")
static inline u64 counter(void) { __asm__ volatile("isb"); return READ_SYS(cntvct_el0); }
static inline void wfi(void) { __asm__ volatile("wfi" : : : "memory"); }
static inline void irq_on(void) { __asm__ volatile("msr daifclr, #2" : : : "memory"); }
static inline void irq_off(void) { __asm__ volatile("msr daifset, #2" : : : "memory"); }
static inline u32 this_cpu(void) { return READ_SYS(mpidr_el1) & 0xff; }
static inline void barrier(void) { __asm__ volatile("dmb ish" : : : "memory"); }

Result hvc(u64 function, u64 a, u64 b, u64 c);
Result smc(u64 function, u64 a, u64 b, u64 c);
void put(char c);
u32 letters(void);                     // what has arrived at the UART: bit n is the letter 'a' + n
void print(const char *text);
void print_dec(u64 value);
void print_hex(u64 value);
void print_label(const char *text, u64 value);
void print_number(u64 value);          // small numbers, also negative ones, in decimal; others in hex
void print_exception(const Frame *frame);
void spend(u64 instructions);           // exactly so many (an even number), give or take the call
void power_off(void) __attribute__((noreturn));
void cpu_off(void);
u32 start_vcpus(u32 most);             // starts vCPUs 1.. until PSCI says there are no more; gives how many there are
void gic_init_cpu(void);
void gic_enable(u32 intid);
u32 gic_acknowledge(void);
void gic_end(u32 iar);
void gic_sgi(u32 targets, u32 intid);
void timer_at(u64 count);              // virtual timer, PPI 27: when the counter reaches `count`
void timer_after(u64 ticks);           // the same, so many ticks of the counter from now
void timer_stop(void);

// Each guest gives these.
int main(void);
void secondary_main(u64 vcpu);
void exception(Frame *frame);
#endif
