"""The board's address map and interrupt numbers: QEMU `virt`-compatible. Spec: docs/machine.md."""

GICD_BASE, GICD_SIZE = 0x0800_0000, 0x1_0000
GICC_BASE, GICC_SIZE = 0x0801_0000, 0x1_0000
UART_BASE, UART_SIZE = 0x0900_0000, 0x1000
PVTIME_BASE, PVTIME_SIZE = 0x090A_0000, 0x1_0000
RAM_BASE = 0x4000_0000

TIMER_PPIS = (27, 30)  # virtual, physical
UART_INTID = 33  # SPI 1
COUNTER_HZ = 62_500_000
NS_PER_TICK = 16
