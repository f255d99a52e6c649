// One short routine for each exception; and the way in and back out.
    .text
    .globl run, run_back
// run(code, el): run `code` at EL0 or EL1; comes back when it returns or when the handler sends it to run_back.
run:
    adrp x2, saved
    add x2, x2, :lo12:saved
    stp x19, x20, [x2]
    stp x21, x22, [x2, #16]
    stp x23, x24, [x2, #32]
    stp x25, x26, [x2, #48]
    stp x27, x28, [x2, #64]
    stp x29, x30, [x2, #80]
    mov x3, sp
    str x3, [x2, #96]
    cbz x1, 1f
    blr x0
    b run_back
1:  adrp x3, user_stack
    add x3, x3, :lo12:user_stack
    add x3, x3, #2048
    msr sp_el0, x3
    msr elr_el1, x0
    msr spsr_el1, xzr
    eret
run_back:
    adrp x2, saved
    add x2, x2, :lo12:saved
    ldr x3, [x2, #96]
    mov sp, x3
    ldp x19, x20, [x2]
    ldp x21, x22, [x2, #16]
    ldp x23, x24, [x2, #32]
    ldp x25, x26, [x2, #48]
    ldp x27, x28, [x2, #64]
    ldp x29, x30, [x2, #80]
    ret

    .macro code name
    .globl \name
\name:
    .endm
code code_svc
    svc #7
    ret
code code_hvc
    hvc #0
    ret
code code_smc
    smc #0
    ret
code code_brk
    brk #5
    ret
code code_udf
    .inst 0
    ret
code code_unknown_register
    mrs x0, S3_3_C15_C15_7
    ret
code code_read_el1_register
    mrs x0, sctlr_el1
    ret
code code_daifset
    msr daifset, #2
    ret
code code_read_ctr
    mrs x0, ctr_el0
    ret
code code_read_counter
    mrs x0, cntvct_el0
    ret
code code_wfi
    wfi
    ret
code code_call
    adrp x9, target
    ldr x9, [x9, :lo12:target]
    br x9
code code_load
    adrp x9, target
    ldr x9, [x9, :lo12:target]
    ldr w10, [x9], #4
    ret
code code_store
    adrp x9, target
    ldr x9, [x9, :lo12:target]
    mov w10, #1
    str w10, [x9, #8]!
    ret
code code_store_pair
    adrp x9, target
    ldr x9, [x9, :lo12:target]
    mov w10, #1
    stp x10, x10, [x9]
    ret
code code_spin
1:  b 1b

    .bss
    .balign 16
saved: .space 112
user_stack: .space 2048
    .globl target
target: .space 8
