#include "linux.h"
const u32 *boot_devicetree;
static Conduit conduit; // CONDUIT_NONE until SMCCC 1.1 has been found

static u32 big_endian(u32 value) { return __builtin_bswap32(value); }
static u32 same(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}
// Spec: Devicetree Specification v0.4, chapter 5.
Conduit conduit_of(const u32 *tree) {
  if (!tree || big_endian(tree[0]) != 0xd00dfeed) return CONDUIT_NONE;
  const u32 *at = tree + big_endian(tree[2]) / 4, *end = tree + big_endian(tree[1]) / 4;
  const char *strings = (const char *)tree + big_endian(tree[3]);
  u32 depth = 0, inside = 0;
  while (at < end) {
    u32 token = big_endian(*at++);
    if (token == 1) {
      const char *name = (const char *)at;
      depth++;
      if (depth == 2) inside = same(name, "psci");
      u32 length = 0;
      while (name[length]) length++;
      at += length / 4 + 1;
    } else if (token == 2) {
      depth--;
    } else if (token == 3) {
      u32 length = big_endian(at[0]);
      const char *name = strings + big_endian(at[1]), *value = (const char *)(at + 2);
      if (depth == 2 && inside && same(name, "method"))
        return same(value, "hvc") ? CONDUIT_HVC : same(value, "smc") ? CONDUIT_SMC : CONDUIT_NONE;
      at += 2 + (length + 3) / 4;
    } else if (token != 4) {
      break;
    }
  }
  return CONDUIT_NONE;
}
static Result by(Conduit how, u64 function, u64 a, u64 b, u64 c) {
  if (how == CONDUIT_HVC) return hvc(function, a, b, c);
  if (how == CONDUIT_SMC) return smc(function, a, b, c);
  return (Result){NOT_SUPPORTED, 0, 0, 0};
}
Result smccc_1_1(u64 function, u64 a, u64 b, u64 c) { return by(conduit, function, a, b, c); }
Conduit smccc_conduit(void) { return conduit; }

static Result ask(Tell tell, const char *name, Conduit how, u64 function, u64 argument) {
  Result result = by(how, function, argument, 0, 0);
  if (tell) tell(name, result);
  return result;
}
void psci_probe(Conduit method, Tell tell) {
  int version = (int)ask(tell, "PSCI_VERSION", method, PSCI_VERSION, 0).x0;
  if (version < 0x2) return;
  ask(tell, "MIGRATE_INFO_TYPE", method, PSCI_MIGRATE_INFO_TYPE, 0);
  if (version < 0x10000) return;
  if ((int)ask(tell, "PSCI_FEATURES(SMCCC_VERSION)", method, PSCI_FEATURES, SMCCC_VERSION).x0 >= 0)
    if ((int)ask(tell, "SMCCC_VERSION", method, SMCCC_VERSION, 0).x0 >= 0x10001) conduit = method;
  if (conduit != CONDUIT_NONE) ask(tell, "TRNG_VERSION", conduit, TRNG_VERSION, 0);
  ask(tell, "PSCI_FEATURES(CPU_SUSPEND)", method, PSCI_FEATURES, PSCI_CPU_SUSPEND);
  ask(tell, "PSCI_FEATURES(SYSTEM_SUSPEND)", method, PSCI_FEATURES, PSCI_SYSTEM_SUSPEND);
  ask(tell, "PSCI_FEATURES(SYSTEM_RESET2)", method, PSCI_FEATURES, PSCI_SYSTEM_RESET2);
  if (conduit == CONDUIT_NONE) return;
  Result uid = ask(tell, "CALL_UID", conduit, CALL_UID, 0);
  if ((u32)uid.x0 == 0xb66fb428 && (u32)uid.x1 == 0xe911c52e && (u32)uid.x2 == 0x564bcaa9 && (u32)uid.x3 == 0x743a004d)
    ask(tell, "KVM_FEATURES", conduit, KVM_FEATURES, 0);
}
u32 has_steal_clock(Tell tell) {
  if (conduit == CONDUIT_NONE) return 0;
  if (ask(tell, "ARCH_FEATURES(PV_TIME_FEATURES)", conduit, SMCCC_ARCH_FEATURES, PV_TIME_FEATURES).x0) return 0;
  return !ask(tell, "PV_TIME_FEATURES(PV_TIME_ST)", conduit, PV_TIME_FEATURES, PV_TIME_ST).x0;
}
PvTime *steal_clock_of_this_cpu(u64 *answer) {
  *answer = smccc_1_1(PV_TIME_ST, 0, 0, 0).x0;
  return *answer == NOT_SUPPORTED ? 0 : (PvTime *)*answer;
}
