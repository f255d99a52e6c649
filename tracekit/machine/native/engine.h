/* The hot path of the machine: what fires per block, per system-register access or per memory access.
 *
 * One Unicorn engine, N vCPU contexts. Nothing here knows of traces, hosts or hypercall numbers. The library is not linked
 * with Unicorn: it receives the entry points it needs (struct Api) and the numbers that Unicorn's headers give its
 * registers (struct Ids), so that it builds with any C compiler and without Python's headers.
 *
 * Every struct that Python sees is mirrored field by field in ../native.py; tk_layout() lets it check that.
 */
#ifndef TRACEKIT_ENGINE_H
#define TRACEKIT_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define TK_EXPORT __declspec(dllexport)
#else
#define TK_EXPORT __attribute__((visibility("default")))
#endif

#define TK_VCPUS_MAX 8
#define TK_CAPTURE_ROWS 98304 /* a whole batch of a trace, and room for what one block may still add */
#define TK_WFE_SITES_MAX 256
#define TK_NO_TRANSLATIONS_TOLD (-2)
#define TK_ACCESSES_MAX 80 /* of one instruction; DC ZVA makes most */
#define TK_CANNOT_LEAVE (-100)
#define TK_FAULTS_WITHOUT_PROGRESS_MAX 4096

typedef struct uc_struct uc_engine;
typedef struct uc_context uc_context;
typedef struct { uint64_t pc; uint16_t icount, size; } Block; /* layout of uc_tb */
typedef struct { uint32_t crn, crm, op0, op1, op2; uint64_t val; } CpReg; /* layout of uc_arm64_cp_reg */

/* Entry points of libunicorn. */
typedef struct {
  int (*emu_start)(uc_engine *, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
  int (*emu_stop)(uc_engine *);
  int (*reg_read)(uc_engine *, int, void *);
  int (*reg_write)(uc_engine *, int, const void *);
  int (*hook_add)(uc_engine *, size_t *handle, int type, void *callback, void *user, uint64_t begin, uint64_t end, ...);
  int (*ctl)(uc_engine *, int, ...);
  int (*context_save)(uc_engine *, uc_context *);
  int (*context_restore)(uc_engine *, uc_context *);
  int (*vmem_translate)(uc_engine *, uint64_t va, int prot, uint64_t *pa);
  int (*context_alloc)(uc_engine *, uc_context **);
  int (*context_free)(uc_context *);
  size_t (*context_size)(uc_engine *);
  int (*mmio_map)(uc_engine *, uint64_t, size_t, uint64_t (*)(uc_engine *, uint64_t, unsigned, void *), void *,
                  void (*)(uc_engine *, uint64_t, unsigned, uint64_t, void *), void *);
  int (*mem_protect)(uc_engine *, uint64_t, uint64_t, uint32_t);
  int (*hook_del)(uc_engine *, size_t handle);
} Api;

/* Unicorn's numbers for arm64 registers, hooks, instructions and controls. */
typedef struct {
  int32_t x0, x29, x30, sp, pc, pstate, nzcv, cp_reg, elr_el1, esr_el1, far_el1, vbar_el1, sp_el0, sp_el1, q0;
  int32_t hook_intr, hook_insn, hook_code, hook_block, hook_mem_unmapped, hook_mem_prot, hook_mem_write, hook_mem_read_after, hook_edge;
  int32_t insn_mrs, insn_msr, insn_sys;
  int32_t ctl_exits_on, ctl_exits_off, ctl_remove_cache, ctl_request_cache, ctl_flush_tlb, ctl_flush_tb;
  int32_t err_read_unmapped, err_write_unmapped, err_fetch_unmapped, prot_read, prot_exec;
  int32_t mem_write_prot, mem_write_unmapped;
} Ids;

/* Callbacks into Python; all are rare (devices, timers) or buffered (capture). */
typedef struct {
  uint64_t (*mmio_read)(uint64_t ipa, uint32_t size);
  void (*mmio_write)(uint64_t ipa, uint32_t size, uint64_t value);
  void (*timer_changed)(uint32_t which);                                       /* the running vCPU wrote CTL, CVAL or TVAL */
  void (*watched)(uint32_t is_write, uint64_t ipa, uint32_t size, uint64_t value); /* an access inside a watched RAM range */
  void (*capture_full)(uint32_t table);
} Callbacks;

enum StopReason {
  TK_STOP_LIMIT = 1,     /* the position or the time asked for is reached */
  TK_STOP_WFI = 2,       /* the vCPU waits for an interrupt; WFI has retired */
  TK_STOP_HYPERCALL = 3, /* HVC or SMC has retired; see hypercall_* */
  TK_STOP_INTERRUPT = 4, /* an interrupt is pending, unmasked, and may be taken here */
  TK_STOP_TIMER = 5,     /* an enabled timer of the running vCPU is due exactly here */
  TK_STOP_REQUESTED = 6, /* a callback asked for it */
  TK_STOP_LOCKUP = 7,    /* exceptions without an instruction retired in between */
  TK_STOP_ERROR = 8,     /* the engine failed; see engine_error */
  TK_STOP_WFE = 9,       /* WFE has retired; only with finds_wfe, while stops_at_wfe */
};

enum CaptureTable { TK_WRITES = 0, TK_READS = 1, TK_BLOCKS = 2 };

typedef struct { uint64_t cval; uint32_t ctl; uint32_t asserted; } Timer; /* asserted: level of its line, kept by Python */

typedef struct { /* columns of one thick table; blocks use value for instructions */
  uint64_t position[TK_CAPTURE_ROWS], vtime_ns[TK_CAPTURE_ROWS], ipa[TK_CAPTURE_ROWS], value[TK_CAPTURE_ROWS], pc[TK_CAPTURE_ROWS];
  uint32_t sequence[TK_CAPTURE_ROWS];
  uint16_t vcpu[TK_CAPTURE_ROWS], instructions[TK_CAPTURE_ROWS];
  uint8_t size[TK_CAPTURE_ROWS], origin[TK_CAPTURE_ROWS];
  uint64_t count, limit; /* at `limit` rows the buffer is taken for full */
} Columns;

typedef struct {
  /* --- touched by every block ------------------------------------------------------------------------------------- */
  int64_t left;           /* bytes of code until stop_position */
  int64_t floor;          /* 0; INT64_MAX while something has to be looked at before every block */
  uint64_t block_end;     /* address behind the running block: gives the position of any PC inside it */
  uint64_t stop_position; /* position at which left is 0 */
  /* --- the clock of the vCPU that runs: local time in ns = clock_ns + ((p - clock_position) * num + clock_remainder) / den */
  uint64_t clock_position, clock_ns, clock_remainder, ns_numerator, ns_denominator;
  uint64_t counter_high_ns; /* highest time that a counter read on this board has returned */
  /* --- position and order ------------------------------------------------------------------------------------------ */
  uint64_t position;        /* instructions retired, all vCPUs; exact between runs */
  uint64_t event_position;  /* inside a callback: position of the instruction that caused it */
  uint64_t event_pc;        /* and its address */
  uint64_t event_ns;        /* and its local time; only where Python is called for it */
  uint64_t sequence_position, thick_position;
  uint32_t sequence_next, thick_next;
  /* --- limits of the present run -------------------------------------------------------------------------------------- */
  uint64_t limit_position, horizon_ns;
  /* --- vCPUs ------------------------------------------------------------------------------------------------------------ */
  uint32_t vcpu, vcpu_count;
  uint32_t line[TK_VCPUS_MAX]; /* IRQ input of each vCPU */
  Timer timer[TK_VCPUS_MAX][2]; /* 0 virtual (CNTV), 1 physical (CNTP) */
  uint64_t random_state;
  /* --- configuration ------------------------------------------------------------------------------------------------------ */
  uint32_t takes_interrupts; /* 1: stop where an interrupt can be taken (recording); 0: places come from elsewhere (replay) */
  uint32_t cures_stale_code, counts_each_instruction, captures_writes, captures_reads, captures_blocks, has_pan, has_rndr, page_size, smc_undefined, finds_wfe, stops_at_wfe, eases_hints;
  uint32_t leaves_out_checks; /* wanted before tk_install, so it is after it; see noexit.c */
  uint64_t ram_base, ram_size;
  uint64_t watch_count, watch_begin[16], watch_end[16];
  uint64_t plain_ipa, plain_value, exit_cost_ns; /* a device register that guests poll: what a load of it gives; ipa 0: none */
  /* --- why the last run stopped ------------------------------------------------------------------------------------------ */
  uint32_t hypercall_is_smc, hypercall_immediate;
  int32_t engine_error;
  uint32_t stop_wanted;
  uint64_t fault_position, faults_here, fault_pc;
  /* --- statistics (no trace holds them) ----------------------------------------------------------------------------------- */
  uint64_t exceptions, external_aborts, tails, slow_blocks, cache_lines, wfe_sites, hints;
} State;

typedef struct {
  State s; /* first: the block hook's user pointer is the State */
  Api api;
  Ids id;
  Callbacks call;
  uc_engine *uc;
  uint8_t *ram;
  uc_context *context[TK_VCPUS_MAX], *scratch, *pristine;
  size_t context_size;
  int64_t syndrome_offset, exclusive_offset;
  /* exact stop: the first `tail` bytes of the block at tail_pc are still to be run */
  int64_t tail;
  uint64_t tail_pc, tail_size;
  bool tail_running, stopping, flush_wanted, interrupt_ready;
  uint32_t hypercall_pending;
  /* the external abort in flight */
  uint64_t abort_pa, abort_pc;
  uint32_t abort_is_write, abort_size;
  bool abort_seen, leaving; /* leaving: the block is being left from inside a store; see exceptions.c */
  /* MMIO: the value that the access in flight reads */
  uint64_t mmio_value, mmio_base, mmio_bytes_left;
  /* what one instruction's device accesses gave; again: it is being run again, alone, and is given them; see devices.c */
  uint64_t done_position, done_pc, done_value[TK_ACCESSES_MAX];
  uint32_t done_count, done_next;
  bool again, cutting, cut_wanted; /* cutting: the block is being left for that; cut_wanted: the same where instructions are counted */
  struct { void *engine; uint64_t base; } region[8];
  uint32_t region_count;
  /* capture */
  uint64_t code_va;
  const uint8_t *code_page; /* the running block's page, found before the block runs */
  bool code_is_stale;       /* translations may have changed since */
  struct { uint64_t row, va; } straddle[16];
  uint32_t straddle_count;
  uint64_t zva_position, zva_pc, cas_position, run_start_pc, run_next_pc, run_position, run_vtime;
  bool cas_failed, run_open;
  uint32_t run_vcpu;
  Columns *columns[3]; /* Python's: see tk_capture_into */
  /* WFE, see wfe.c */
  bool wfe_retires;       /* the running block ends in a WFE that has been reached; it stands in front of wfe_next_pc */
  uint64_t wfe_next_pc;
  uint64_t wfe_new, wfe_block, wfe_block_size; /* a WFE just translated in this block; size 0: none */
  uint64_t translations;
  struct { uint64_t va; size_t hook; } wfe_site[TK_WFE_SITES_MAX];
  /* WFE and YIELD, see hints.c */
  uint64_t hint_block, hint_size; /* a block just translated that ends in one; size 0: none */
  uint64_t hint_end;              /* its end once it is dropped, for the next start of the engine; 0: none */
  uint8_t *hint_word;             /* one that stands aside while its block is translated anew; NULL: none */
  uint32_t hint_saved;
} Engine;

/* decode.c: what an A64 load or store does */
typedef struct { bool known, is_write; int base, index, extend, shift; int64_t offset; uint32_t size; } Access;
Access tk_decode_access(uint32_t word);
bool tk_is_cas(uint32_t word), tk_is_casp(uint32_t word), tk_is_store_exclusive(uint32_t word), tk_is_dc_zva(uint32_t word);
bool tk_decode_msr_immediate(uint32_t word, uint32_t *esr);

/* clock.c; see also clock.h */
bool tk_timer_is_due(const Engine *e);
TK_EXPORT void tk_plan(Engine *e);

/* vcpus.c */
void tk_load_base(Engine *e, const uint8_t *base);

/* exceptions.c */
const uint8_t *tk_code_word(Engine *e, uint64_t pc);
bool tk_access_address(Engine *e, uint32_t word, uint64_t pc, uint64_t pa, uint64_t *va);
void tk_enter_exception(Engine *e, bool irq, uint64_t elr, uint32_t esr, bool has_far, uint64_t far);
void tk_external_abort(Engine *e, int error);
bool tk_leave_block(Engine *e);
void tk_hook_intr(uc_engine *, uint32_t number, void *user);
bool tk_hook_unmapped(uc_engine *, int type, uint64_t pa, int size, int64_t value, void *user);

/* blocks.c */
void tk_look_before_blocks(Engine *e);
void tk_stop(Engine *e);
void tk_hook_block(uc_engine *, uint64_t pc, uint32_t size, void *user);
void tk_hook_block_captured(uc_engine *, uint64_t pc, uint32_t size, void *user);
void tk_hook_block_counting(uc_engine *, uint64_t pc, uint32_t size, void *user);
void tk_hook_code(uc_engine *, uint64_t pc, uint32_t size, void *user);

/* sysregs.c */
uint32_t tk_hook_mrs(uc_engine *, int reg, const CpReg *r, void *user);
uint32_t tk_hook_msr(uc_engine *, int reg, const CpReg *r, void *user);

/* coherence.c */
TK_EXPORT void tk_flush_code(Engine *e);
uint32_t tk_hook_sys(uc_engine *, int reg, const CpReg *r, void *user);

/* noexit.c */
int tk_leave_out_checks(Engine *e);

/* devices.c */
void tk_cut_behind_access(Engine *e);

/* capture.c */
void tk_hook_write(uc_engine *, int type, uint64_t pa, int size, int64_t value, void *user);
void tk_hook_read(uc_engine *, int type, uint64_t pa, int size, int64_t value, void *user);
void tk_capture_enter(Engine *e, uint64_t pc);
void tk_capture_settle(Engine *e);
void tk_capture_block(Engine *e, uint64_t pc, uint64_t size);
void tk_capture_break(Engine *e, uint64_t pc);
void tk_capture_cut(Engine *e, uint64_t pc);
uint32_t tk_captured_word(Engine *e, uint64_t pc);

/* wfe.c */
int tk_wfe_install(Engine *e);
void tk_wfe_settle(Engine *e);
void tk_wfe_reached(Engine *e, uint64_t pc, uint32_t word);

/* hints.c */
void tk_hint_translated(Engine *e, uint64_t pc, uint64_t size, const uint8_t *code);
void tk_hint_settle(Engine *e);
void tk_hint_replace(Engine *e, uint64_t pc);
void tk_hint_restore(Engine *e);

#endif
