"""Random A64 guests for a whole board: everything that cuts blocks, changes code or page tables, waits, or reaches out of memory.

A guest runs for ever; its exception vectors log what they see and go on. Virtual and physical addresses are equal but for three pages:
HOLE (no memory behind it), ALIAS (the page of rewritten code, writable, not executable) and TURNED (one of two pages of data by turns).
"""

from __future__ import annotations

import random
import struct

from a64 import DSB, HVC, ISB, NOP, SEV, WFE, WFI, Word, add, adr, assemble, branch, cbnz, cbz, ic_ivau, movk, movz

RAM, BASE = 0x4000_0000, 0x4008_0000
SETUP, VECTORS, LOGS, STATE, DATA, HOLE, MORE, FUNCTIONS, ALIAS, TURNED, TABLE, CODE = (
    BASE + 0x1000 * page for page in (0, 1, 2, 6, 8, 10, 11, 12, 13, 14, 16, 20)
)
CODE_PAGES = 6
FAR_HOLE = 0x3FF0_0000
UART, DISTRIBUTOR, INTERFACE, STOLEN = 0x0900_0000, 0x0800_0000, 0x0801_0000, 0x090A_0000
YIELD, ERET = 0xD503203F, 0xD69F03E0
SERVICES = (0xD4000001, 0xD4200000, 0x00000000, HVC, 0xD4000003)  # SVC, BRK, UDF, HVC, SMC
COUNTERS = (0xD53BE042, 0xD53BE023, 0xD53BE301, 0xD53BE322, 0xD53BE203)  # MRS of CNTVCT, CNTPCT, CNTV_TVAL, CNTV_CTL, CNTP_TVAL
ACCESSES = (  # with Xn to fill in: single, pair, unscaled, vector, exclusive and ordered, with and without write-back
    0xF9000001, 0xF9400002, 0xA9000801, 0xA9400C02, 0xB8001001, 0x3C800001, 0xAD000400, 0x4C007000, 0x4C407001, 0xC8007C01,
    0xC85F7C02, 0xC89FFC01, 0xC8DFFC02, 0x39000001, 0x79400001, 0xD50B7420, 0xA9BF0801, 0xF8408403, 0xF8008401, 0xC87F0C02,
)  # fmt: skip
WRITES_BACK = (0xA9BF0801, 0xF8408403, 0xF8008401)
LSE = (0xF8210002, 0xF8A18003, 0xC8A17C02, 0x48207C02, 0x38211002)  # LDADD, SWPA, CAS, CASP X0,X1,X2,X3, LDCLRB
DEVICES = (  # (address, instruction on [X17]): words and bytes, wider, unaligned, exclusive, to and from each device
    (UART, 0xB9000221), (UART + 0x18, 0xB9400221), (UART + 0x38, 0xB9000221), (DISTRIBUTOR + 0x100, 0xB9400221),
    (DISTRIBUTOR + 0x200, 0xB9000221), (DISTRIBUTOR + 0x280, 0xB9000221), (DISTRIBUTOR + 0x400, 0xF9400221), (DISTRIBUTOR + 0x402, 0xB9400221),
    (DISTRIBUTOR + 0x404, 0xA9400621), (INTERFACE + 4, 0xB9400221), (INTERFACE + 0x18, 0xB9400221), (STOLEN, 0xA9400621), (STOLEN + 8, 0xF9000221),
    (STOLEN + 64, 0xC85F7E21), (STOLEN + 3, 0xF9000221),
)  # fmt: skip
CROSSING = ((DISTRIBUTOR + 0xFFFE, 0xF9400221), (UART + 0xFFE, 0xB9000221))  # from a device to a hole
POINTERS = {10: DATA + 0x800, 11: HOLE + 0x100, 12: HOLE - 3, 13: MORE - 3, 14: HOLE - 16, 15: TURNED + 0x10, 16: DATA + 0x3FC}
FLAT = {11: FAR_HOLE + 0x100, 12: FAR_HOLE + 0x40, 13: RAM - 3, 14: FAR_HOLE + 8, 15: DATA + 0x1010}  # where the MMU is off


def constant(d: int, value: int) -> list[Word]:
    return [movz(d, value & 0xFFFF), *(movk(d, value >> at & 0xFFFF, at) for at in (16, 32, 48) if value >> at & 0xFFFF)]


def msr(op0: int, op1: int, crn: int, crm: int, op2: int, t: int) -> int:
    return 0xD5000000 | op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | t


# Keep syndrome, address and return address, around in one page; go on behind what faulted: X20 to X27 are the vectors' own.
SYNC = assemble(
    0xD5385214, 0xD5386015, 0xD5384036, 0xF80086F4, 0xF80086F5, 0xF80086F6,  # MRS X20..X22, ESR, FAR, ELR; STR each, [X23], #8
    0xF80086FF, 0xB3402EF9, 0xAA1903F7,  # STR XZR, [X23], #8; BFXIL X25, X23, #0, #12; MOV X23, X25
    0xD35AFE98, 0xF1005718, cbz(24, "out"), 0xD35AFE98, 0x927FFB18, 0xF1008318, cbz(24, "fetch"),  # EC == SVC; EC & ~1 == 0x20
    add(22, 22, 4), 0xD5184036, "out", ERET, "fetch", 0xD518403E, ERET,  # ELR += 4; a fetch returns by X30
)  # fmt: skip
IRQ = assemble(  # acknowledge, end; timers are set again; count in [X28]
    *constant(26, INTERFACE), 0xB9400F5B, 0xB900135B, 0xF940039A, add(26, 26, 1), 0xF900039A,
    0xF1006F78, cbnz(24, "not27"), *constant(26, 270_000), 0xD51BE31A, "not27",  # SUBS X24, X27, #27; MSR CNTV_TVAL
    0xF1007B78, cbnz(24, "not30"), *constant(26, 610_000), 0xD51BE21A, "not30", ERET,
)  # fmt: skip


def _setup(el: int, mmu: bool, vcpus: int, chance: random.Random) -> list[Word]:
    words: list[Word] = []
    for vcpu in range(1, vcpus):
        words += [*constant(0, 0xC400_0003), movz(1, vcpu), adr(2, "both"), movz(3, 0), HVC]
    words += [
        "both", 0xD53800BC, 0x92400F9C, 0xD3744F97, *constant(25, LOGS), 0x8B1902F7,  # X28 = MPIDR & 15; X23 = LOGS + X28 << 12
        0xAA1703F9, 0xD37AE79C, *constant(24, STATE), 0x8B18039C,  # X25 = X23; X28 = STATE + X28 << 6
        *constant(1, VECTORS), msr(3, 0, 12, 0, 0, 1), movz(1, 0x303), msr(3, 0, 14, 1, 0, 1), *constant(1, 3 << 20), msr(3, 0, 1, 0, 2, 1),
        *constant(2, DISTRIBUTOR), movz(1, 1), 0xB9000041, *constant(1, 0xFFFF_FFFF), 0xB9010041,  # CTLR, ISENABLER0
        *constant(2, INTERFACE), movz(1, 0xF0), 0xB9000441, movz(1, 1), 0xB9000041,  # PMR, CTLR
        *constant(1, chance.randrange(1 << 19)), msr(3, 3, 14, 3, 0, 1), movz(1, 1), msr(3, 3, 14, 3, 1, 1),  # CNTV_TVAL, CTL
        *constant(1, chance.randrange(1 << 20)), msr(3, 3, 14, 2, 0, 1), movz(1, 1), msr(3, 3, 14, 2, 1, 1),
    ]  # fmt: skip
    for register, at in (POINTERS if mmu else POINTERS | FLAT).items():
        words += constant(register, at)
    words += [
        *constant(1, TABLE), msr(3, 0, 2, 0, 0, 1), *constant(1, 25 | 1 << 23), msr(3, 0, 2, 0, 2, 1), movz(1, 0xFF), msr(3, 0, 10, 2, 0, 1),
        ISB, *constant(1, 0x34D0_C800 | mmu), msr(3, 0, 1, 0, 0, 1), ISB,
        *constant(1, CODE), msr(3, 0, 4, 0, 1, 1), movz(1, 5 if el else 0), msr(3, 0, 4, 0, 0, 1),
        *[word for n in range(10) for word in constant(n, chance.randrange(1 << 16))], ERET,
    ]  # fmt: skip
    return words


def _code(el: int, mmu: bool, has_lse: bool, crosses: bool, chance: random.Random) -> list[Word]:
    words: list[Word] = ["w0"]
    wanted, index = CODE_PAGES * 1024 - 300, 0

    def length() -> int:
        return sum(not isinstance(word, str) for word in words)

    while length() < wanted:
        index += 1
        words.append(f"w{index}")
        pick = chance.random()
        if pick < 0.25:
            words.append(add(chance.randrange(1, 10), chance.randrange(1, 10), chance.randrange(256)))
        elif pick < 0.58:
            word = chance.choice(ACCESSES + LSE if has_lse else ACCESSES)
            pointer = chance.choice(list(POINTERS)) if chance.random() < 0.3 else 10
            words += (
                [word | pointer << 5, *constant(pointer, (POINTERS if mmu else POINTERS | FLAT)[pointer])]
                if word in WRITES_BACK
                else [word | pointer << 5]
            )
        elif pick < 0.68:
            words.append(chance.choice((WFE, WFE, YIELD, YIELD, SEV, ISB, DSB, NOP, 0xD50320BF)))
        elif pick < 0.70:
            words.append(WFI)
        elif pick < 0.75:
            words.append(chance.choice(SERVICES))
        elif pick < 0.79:
            words.append(chance.choice((0xD50342DF, 0xD50342FF, 0xD50342FF, 0xD50342FF)))  # DAIFSet, DAIFClr #2
        elif pick < 0.83:
            words.append(chance.choice(COUNTERS))
        elif pick < 0.84:
            words += [movz(1, chance.randrange(4000)), msr(3, 3, 14, 3, 0, 1)]  # the timer comes soon
        elif pick < 0.88:
            at, word = chance.choice(DEVICES + CROSSING if crosses else DEVICES)
            words += [*constant(17, at), movz(1, 1 << chance.randrange(16)), word]
        elif pick < 0.90:  # an SGI, and much straight code behind it
            words += [
                *constant(17, DISTRIBUTOR),
                *constant(1, chance.choice((0x200_0001, 0x100_0002, 0x2_0003, 0x1_0004))),
                0xB90F0221,
            ]
            words += [add(2, 2, 1), 0xF9000142] * chance.choice((0, 3, 40, 140))
        elif pick < 0.92:
            loop = f"x{index}"
            words += [loop, 0xC85F7D42, add(2, 2, 1), 0xC8017D42, cbnz(1, loop)]
        elif pick < 0.95:
            words += _rewrite(mmu, chance)
        elif pick < 0.96 and el:
            words += [chance.choice((0xD508751F, 0xD508711F)), DSB, ISB]  # IC IALLU, IALLUIS
        elif pick < 0.97 and el and mmu:
            words += _turn()
        elif pick < 0.975:
            words += [*constant(17, FAR_HOLE + 4 * chance.randrange(64)), 0xD63F0220]  # BLR to nowhere
        elif pick < 0.99:
            target = f"w{index + chance.randrange(1, 6)}"
            words.append(branch(target) if chance.random() < 0.5 else cbz(chance.randrange(1, 4), target))
    words += [f"w{n}" for n in range(index + 1, index + 7)]
    words.append(branch("w0"))
    return words


def _rewrite(mmu: bool, chance: random.Random) -> list[Word]:
    """A function gets another first instruction, through one of its addresses, and is called."""
    number = chance.randrange(4)
    at, through = FUNCTIONS + 32 * number, FUNCTIONS + 32 * number + (ALIAS - FUNCTIONS if mmu else 0)
    word = chance.choice((add(5, 5, 1 + chance.randrange(100)), NOP, WFE, YIELD, 0xF9000145, 0x00000000))
    again = chance.choice(([], [*constant(18, at), 0xD63F0240]))
    return [*constant(17, through), *again, *constant(1, word), 0xB9000221, *ic_ivau(17), *constant(18, at), 0xD63F0240]


def _turn() -> list[Word]:
    """TURNED becomes the other page of data: break before make."""
    entry = TABLE + 0x2000 + (TURNED - RAM) // 512
    return [
        *constant(17, entry), 0xF9400221, 0xD2740021, 0xF900023F, DSB,  # LDR X1; EOR X1, X1, #0x1000; STR XZR
        *constant(18, TURNED >> 12), msr(1, 0, 8, 3, 3, 18), DSB, 0xF9000221, DSB, ISB,  # TLBI VAAE1IS
    ]  # fmt: skip


def _tables(el: int) -> bytes:
    level1, level3 = bytearray(4096), bytearray(4096)
    struct.pack_into("<QQ", level1, 0, 0x60_0000_0000_0741, TABLE + 0x1000 | 3)  # devices and holes for all, not executable
    level2 = bytearray(4096)
    struct.pack_into("<Q", level2, 0, TABLE + 0x2000 | 3)
    user, never = 0x40, 0x60 << 48
    pages = {at: (at, 0) for at in range(BASE, CODE + CODE_PAGES * 0x1000, 0x1000)}
    for at in (DATA, DATA + 0x1000, MORE):
        pages[at] = (at, user | never)
    for at in (FUNCTIONS, *range(CODE, CODE + CODE_PAGES * 0x1000, 0x1000)):
        pages[at] = (at, 0 if el else 0xC0)
    pages[HOLE], pages[ALIAS], pages[TURNED] = (FAR_HOLE, user | never), (FUNCTIONS, user | never), (DATA, user | never)
    for at, (physical, access) in pages.items():
        struct.pack_into("<Q", level3, (at - RAM) // 512, physical | 0x703 | access)
    return bytes(level1) + bytes(level2) + bytes(level3)


def guest(seed: int, el: int, mmu: bool, vcpus: int, has_lse: bool, crosses: bool = True) -> bytes:
    """The flat image of a seed. crosses: accesses that begin in a device and end in a hole are among it."""
    chance = random.Random(f"{seed} {el} {mmu} {vcpus} {has_lse}")
    function = assemble(NOP, add(6, 6, 1), 0xD65F03C0)
    parts = {
        SETUP: assemble(*_setup(el, mmu, vcpus, chance)),
        VECTORS + 0x200: SYNC, VECTORS + 0x280: IRQ, VECTORS + 0x400: SYNC, VECTORS + 0x480: IRQ,
        TABLE: _tables(el), CODE: assemble(*_code(el, mmu, has_lse, crosses, chance)),
        **{FUNCTIONS + 32 * n: function for n in range(4)},
    }  # fmt: skip
    image = bytearray(CODE + CODE_PAGES * 0x1000 - BASE)
    for at, part in parts.items():
        image[at - BASE : at - BASE + len(part)] = part
    assert len(image) == CODE + CODE_PAGES * 0x1000 - BASE
    return bytes(image)
