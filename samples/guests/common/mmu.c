#include "mmu.h"
static u64 l1[512] __attribute__((aligned(4096)));
static u64 l2[512] __attribute__((aligned(4096)));
u64 page_table_l3[512] __attribute__((aligned(4096)));

void mmu_map(u64 va, u64 descriptor) {
  page_table_l3[(va - RAM) / PAGE] = descriptor;
  __asm__ volatile("dsb ishst\n tlbi vaae1is, %0\n dsb ish\n isb" : : "r"(va >> 12) : "memory");
}
void mmu_on(u64 text_end) {
  for (u64 i = 0; i < 512; i++) {
    u64 pa = RAM + i * PAGE;
    u64 rights = pa >= 0x40080000ul && pa < text_end ? AP_RO_ALL : AP_RW_ALL | UXN | PXN;
    page_table_l3[i] = pa | rights | AF | SHARED | NORMAL | 3;
  }
  l2[0] = (u64)page_table_l3 | 3;
  for (u64 i = 1; i < 512; i++) l2[i] = (RAM + i * 0x200000) | AP_RW_ALL | UXN | PXN | AF | SHARED | NORMAL | 1;
  l1[0] = 0 | AP_RW_ALL | UXN | PXN | AF | DEVICE | 1;
  l1[1] = (u64)l2 | 3;
  l1[2] = 0 | AP_RO_ALL | AF | SHARED | NORMAL | 1;
  WRITE_SYS(mair_el1, 0x00ff);
  WRITE_SYS(tcr_el1, 25ul | 1ul << 8 | 1ul << 10 | 3ul << 12 | 1ul << 23 | 2ul << 32);
  WRITE_SYS(ttbr0_el1, l1);
  __asm__ volatile("dsb ish\n tlbi vmalle1\n dsb ish\n isb" : : : "memory");
  WRITE_SYS(sctlr_el1, 0x30d00800ul | 1 | 1 << 2 | 1 << 12);
}
