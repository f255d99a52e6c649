// Entry of the guests that read their device tree: X0 is kept, then as every guest.
    .section .text.linux_start,"ax"
    .globl linux_start
linux_start:
    adrp x1, boot_devicetree
    str x0, [x1, :lo12:boot_devicetree]
    b _start
