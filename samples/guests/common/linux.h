// Stolen time as Linux finds and reads it: the conduit from the device tree, SMCCC 1.1's wrapper, discovery, one clock a CPU.
// Source of the order: Linux drivers/firmware/psci/psci.c, include/linux/arm-smccc.h, arch/arm64/kernel/paravirt.c.
// A guest that uses this starts at linux_start (build.py), which keeps X0 for conduit_of().
#ifndef LINUX_H
#define LINUX_H
#include "board.h"
#define PSCI_MIGRATE_INFO_TYPE 0x84000006u
#define PSCI_CPU_SUSPEND 0xc4000001u
#define PSCI_SYSTEM_SUSPEND 0xc400000eu
#define PSCI_SYSTEM_RESET2 0xc4000012u
#define TRNG_VERSION 0x84000050u
#define CALL_UID 0x8600ff01u
#define KVM_FEATURES 0x86000000u
#define NOT_SUPPORTED (~0ul)

typedef enum { CONDUIT_NONE, CONDUIT_HVC, CONDUIT_SMC } Conduit;
typedef struct { u32 revision, attributes; volatile u64 stolen_ns; u8 padding[48]; } __attribute__((aligned(64))) PvTime;
typedef void (*Tell)(const char *name, Result result);

extern const u32 *boot_devicetree;
Conduit conduit_of(const u32 *devicetree);               // what /psci names
Result smccc_1_1(u64 function, u64 a, u64 b, u64 c);     // through the conduit that was found; none: X0 = -1 without a trap
Conduit smccc_conduit(void);
void psci_probe(Conduit method, Tell tell);              // PSCI, then whether SMCCC 1.1 is there
u32 has_steal_clock(Tell tell);                          // ARCH_FEATURES(PV_TIME_FEATURES), PV_TIME_FEATURES(PV_TIME_ST)
PvTime *steal_clock_of_this_cpu(u64 *answer);            // PV_TIME_ST; 0 where the answer is -1
#endif
