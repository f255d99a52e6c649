"""The native library's face: its structs field by field, and the numbers that Unicorn gives things."""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from tracekit.formats.errors import TracekitError

VCPUS_MAX = 8
CAPTURE_ROWS = 98304
WATCHES_MAX = 16

STOP_LIMIT = 1
STOP_WFI = 2
STOP_HYPERCALL = 3
STOP_INTERRUPT = 4
STOP_TIMER = 5
STOP_REQUESTED = 6
STOP_LOCKUP = 7
STOP_ERROR = 8
STOP_WFE = 9

WRITES, READS, BLOCKS = 0, 1, 2


class NativeLibraryError(TracekitError):
    """The native library is missing or does not fit this package."""


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.replace(",", " ").split()]


class Timer(ctypes.Structure):
    """One generic timer of one vCPU: compare value (ticks), CTL bits 1:0, level of its line."""

    _fields_ = [("cval", c_uint64), ("ctl", c_uint32), ("asserted", c_uint32)]


class Columns(ctypes.Structure):
    """Buffered rows of one thick table."""

    _fields_ = [
        *_fields(c_uint64 * CAPTURE_ROWS, "position vtime_ns ipa value pc"),
        ("sequence", c_uint32 * CAPTURE_ROWS),
        *_fields(c_uint16 * CAPTURE_ROWS, "vcpu instructions"),
        *_fields(c_uint8 * CAPTURE_ROWS, "size origin"),
        *_fields(c_uint64, "count limit"),
    ]


class State(ctypes.Structure):
    """The live state of the hot path; see native/engine.h for each field."""

    _fields_ = [
        *_fields(c_int64, "left floor"),
        *_fields(c_uint64, "block_end stop_position"),
        *_fields(c_uint64, "clock_position clock_ns clock_remainder ns_numerator ns_denominator counter_high_ns"),
        *_fields(c_uint64, "position event_position event_pc event_ns sequence_position thick_position"),
        *_fields(c_uint32, "sequence_next thick_next"),
        *_fields(c_uint64, "limit_position horizon_ns"),
        *_fields(c_uint32, "vcpu vcpu_count"),
        ("line", c_uint32 * VCPUS_MAX),
        ("timer", (Timer * 2) * VCPUS_MAX),
        ("random_state", c_uint64),
        *_fields(
            c_uint32,
            "takes_interrupts cures_stale_code counts_each_instruction captures_writes captures_reads captures_blocks "
            "has_pan has_rndr page_size smc_undefined finds_wfe stops_at_wfe eases_hints leaves_out_checks",
        ),
        *_fields(c_uint64, "ram_base ram_size watch_count"),
        *_fields(c_uint64 * WATCHES_MAX, "watch_begin watch_end"),
        *_fields(c_uint64, "plain_ipa plain_value exit_cost_ns"),
        *_fields(c_uint32, "hypercall_is_smc hypercall_immediate"),
        ("engine_error", c_int32),
        ("stop_wanted", c_uint32),
        *_fields(c_uint64, "fault_position faults_here fault_pc"),
        *_fields(c_uint64, "exceptions external_aborts tails slow_blocks cache_lines wfe_sites hints"),
    ]


API_NAMES = (
    "emu_start emu_stop reg_read reg_write hook_add ctl context_save context_restore vmem_translate "
    "context_alloc context_free context_size mmio_map mem_protect hook_del"
).split()


class Api(ctypes.Structure):
    """Entry points of libunicorn."""

    _fields_ = _fields(c_void_p, " ".join(API_NAMES))


class Ids(ctypes.Structure):
    """Unicorn's numbers for registers, hooks, instructions, controls and errors."""

    _fields_ = _fields(
        c_int32,
        "x0 x29 x30 sp pc pstate nzcv cp_reg elr_el1 esr_el1 far_el1 vbar_el1 sp_el0 sp_el1 q0 "
        "hook_intr hook_insn hook_code hook_block hook_mem_unmapped hook_mem_prot hook_mem_write hook_mem_read_after hook_edge "
        "insn_mrs insn_msr insn_sys "
        "ctl_exits_on ctl_exits_off ctl_remove_cache ctl_request_cache ctl_flush_tlb ctl_flush_tb "
        "err_read_unmapped err_write_unmapped err_fetch_unmapped prot_read prot_exec "
        "mem_write_prot mem_write_unmapped",
    )


MMIO_READ = ctypes.CFUNCTYPE(c_uint64, c_uint64, c_uint32)
MMIO_WRITE = ctypes.CFUNCTYPE(None, c_uint64, c_uint32, c_uint64)
TIMER_CHANGED = ctypes.CFUNCTYPE(None, c_uint32)
WATCHED = ctypes.CFUNCTYPE(None, c_uint32, c_uint64, c_uint32, c_uint64)
CAPTURE_FULL = ctypes.CFUNCTYPE(None, c_uint32)


class Callbacks(ctypes.Structure):
    """Python functions that the hot path calls."""

    _fields_ = [
        ("mmio_read", MMIO_READ),
        ("mmio_write", MMIO_WRITE),
        ("timer_changed", TIMER_CHANGED),
        ("watched", WATCHED),
        ("capture_full", CAPTURE_FULL),
    ]


def _library_path() -> Path:
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    return Path(__file__).with_name("_native" + suffix)


@cache
def library() -> ctypes.CDLL:
    """Load the native library and check that both sides see the same structs.

    Errors: NativeLibraryError when it is missing or of another version.
    """
    path = _library_path()
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeLibraryError(
            f"cannot load the native library {path.name}: {error}; install the package again (pip builds it)"
        ) from None
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "tk_layout": (c_size_t, [c_int]),
        "tk_new": (c_void_p, [POINTER(Api), POINTER(Ids), POINTER(Callbacks), c_void_p, c_void_p]),
        "tk_free": (None, [c_void_p]),
        "tk_state": (POINTER(State), [c_void_p]),
        "tk_install": (c_int, [c_void_p, c_int64, c_int64, c_int]),
        "tk_map_device": (c_int, [c_void_p, c_uint64, c_uint64]),
        "tk_capture_into": (None, [c_void_p, c_int, POINTER(Columns)]),
        "tk_capture_drop": (None, [c_void_p, c_int, c_uint64]),
        "tk_close_run": (None, [c_void_p]),
        "tk_switch": (c_int, [c_void_p, c_uint32]),
        "tk_reset_vcpu": (c_int, [c_void_p, c_uint32, c_uint64, c_uint64]),
        "tk_read_registers": (
            c_int,
            [c_void_p, c_uint32, POINTER(c_int32), c_uint32, POINTER(c_uint32), c_uint32, POINTER(c_uint64)],
        ),
        "tk_write_registers": (
            c_int,
            [c_void_p, c_uint32, POINTER(c_int32), c_uint32, POINTER(c_uint32), c_uint32, POINTER(c_uint64), c_char_p],
        ),
        "tk_portable_gap": (
            c_int64,
            [c_void_p, c_uint32, POINTER(c_int32), c_uint32, POINTER(c_uint32), c_uint32, POINTER(c_uint64), c_int64, c_char_p],
        ),
        "tk_context_size": (c_size_t, [c_void_p]),
        "tk_context_get": (None, [c_void_p, c_uint32, c_char_p]),
        "tk_context_set": (c_int, [c_void_p, c_uint32, c_char_p]),
        "tk_set_line": (None, [c_void_p, c_uint32, c_uint32]),
        "tk_request_stop": (None, [c_void_p]),
        "tk_flush_code": (None, [c_void_p]),
        "tk_plan": (None, [c_void_p]),
        "tk_now_ns": (c_uint64, [c_void_p]),
        "tk_take_interrupt": (None, [c_void_p]),
        "tk_forget": (None, [c_void_p]),
        "tk_mark": (c_int, [c_void_p]),
        "tk_changed_pages": (c_uint64, [c_void_p, c_void_p, c_void_p, c_uint64, c_uint32, c_void_p]),
        "tk_run": (c_int, [c_void_p, c_uint64, c_uint64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    for index, struct in enumerate((State, Api, Ids, Callbacks, Columns)):
        found = lib.tk_layout(index)
        if found != ctypes.sizeof(struct):
            raise NativeLibraryError(
                f"the native library {path.name} is of another version ({struct.__name__}: {found} bytes instead of "
                f"{ctypes.sizeof(struct)}); install the package again"
            )
    return lib
