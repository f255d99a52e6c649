// A small MMU set-up shared by guests: 4 KiB pages over the first 2 MiB of RAM, blocks for the rest. 39-bit addresses.
#ifndef MMU_H
#define MMU_H
#include "board.h"
#define RAM 0x40000000ul
#define PAGE 4096ul
// VA 0..1 GiB: devices, writable at EL0 too. 1..2 GiB: RAM page by page. 2..3 GiB: PA 0.. again, read-only and executable.
#define HOLE 0x0b000000ul
#define HOLE_EXECUTABLE 0x8b000000ul
#define UXN (1ul << 54)
#define PXN (1ul << 53)
#define AF (1ul << 10)
#define SHARED (3ul << 8)
#define AP_RW_EL1 (0ul << 6)
#define AP_RW_ALL (1ul << 6)
#define AP_RO_ALL (3ul << 6)
#define NORMAL (0ul << 2)
#define DEVICE (1ul << 2)
extern char __text_end[];
extern u64 page_table_l3[512];
void mmu_on(u64 text_end);             // text (up to text_end): read-only and executable; the rest: writable, not executable
void mmu_map(u64 va, u64 descriptor);  // one page of the first 2 MiB of RAM; 0 unmaps it
#endif
