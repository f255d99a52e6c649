// A static init without a C library: one burner for each vCPU, /proc/stat at intervals with the counter beside it, power off.
//
//   STAT BEGIN <cntvct>      counter before reading
//   cpu ... / cpu0 ...       the lines of /proc/stat
//   STAT END <cntvct>        counter after reading, before printing
//
// The kernel's command line (`tracekit record --append`) may say:
//   tracekit.readings=N      intervals between readings (5)
//   tracekit.interval=N      their length in ms (100)
//   tracekit.loops=N         before that, N times what a boot does much of: a process with pages of its own asks the kernel for things, and ends (0)
//   tracekit.mode=hotplug    afterwards each secondary CPU goes down and up through /sys, with readings before, between and after
typedef unsigned long u64;
typedef long s64;
enum { SYS_MOUNT = 40, SYS_OPENAT = 56, SYS_CLOSE = 57, SYS_READ = 63, SYS_WRITE = 64, SYS_NANOSLEEP = 101,
       SYS_EXIT = 93, SYS_SETAFFINITY = 122, SYS_REBOOT = 142, SYS_CLONE = 220, SYS_WAIT4 = 260 };
#define READINGS 5
#define INTERVAL_MS 100

static s64 call(s64 n, s64 a, s64 b, s64 c, s64 d, s64 e) {
  register s64 x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d,
                  x4 __asm__("x4") = e;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
static u64 counter(void) {
  u64 v;
  __asm__ volatile("isb\n mrs %0, cntvct_el0" : "=r"(v));
  return v;
}
static u64 length(const char *s) {
  u64 n = 0;
  while (s[n]) n++;
  return n;
}
static void print(const char *s) { call(SYS_WRITE, 1, (s64)s, (s64)length(s), 0, 0); }
static char *decimal(char *to, u64 value) {
  char digits[20];
  int n = 0;
  do digits[n++] = (char)('0' + value % 10); while (value /= 10);
  while (n) *to++ = digits[--n];
  return to;
}
static char text[8192], line[128], pages[64][4096];
static s64 read_file(const char *name) { // into text, which ends with 0
  s64 fd = call(SYS_OPENAT, -100, (s64)name, 0, 0, 0);
  s64 n = call(SYS_READ, fd, (s64)text, sizeof text - 1, 0, 0);
  call(SYS_CLOSE, fd, 0, 0, 0, 0);
  text[n < 0 ? 0 : n] = 0;
  return n;
}
static s64 write_file(const char *name, const char *content) { // the error is that of the write
  s64 fd = call(SYS_OPENAT, -100, (s64)name, 1, 0, 0);
  s64 n = call(SYS_WRITE, fd, (s64)content, (s64)length(content), 0, 0);
  call(SYS_CLOSE, fd, 0, 0, 0, 0);
  return n;
}
static const char *option(const char *name) { // behind `name` in text; 0 where it is not
  for (const char *at = text; *at; at++) {
    u64 n = 0;
    while (name[n] && at[n] == name[n]) n++;
    if (!name[n]) return at + n;
  }
  return 0;
}
static s64 number(const char *digits, s64 otherwise) {
  if (!digits || *digits < '0' || *digits > '9') return otherwise;
  s64 value = 0;
  while (*digits >= '0' && *digits <= '9' && value < 1000000) value = value * 10 + *digits++ - '0';
  return value;
}
static void mark(const char *what, u64 value) {
  char *p = line;
  while (*what) *p++ = *what++;
  p = decimal(p, value);
  *p++ = '\n';
  *p = 0;
  print(line);
}
static int cpus_of(s64 n, s64 *end) { // the lines that begin with "cpu"; *end: behind them
  int count = 0;
  s64 at = 0;
  while (at + 3 < n && text[at] == 'c' && text[at + 1] == 'p' && text[at + 2] == 'u') {
    count += text[at + 3] != ' ';
    while (at < n && text[at++] != '\n') {}
  }
  *end = at;
  return count;
}
static void show_stat(void) {
  u64 before = counter();
  s64 n = read_file("/proc/stat"), end;
  u64 after = counter();
  cpus_of(n, &end);
  text[end] = 0;
  mark("STAT BEGIN ", before);
  print(text);
  mark("STAT END ", after);
}
static void burn(int cpu, int returns) { // returns: goes back to its CPU when that is there again
  u64 mask[2] = {1ul << cpu, 0};
  u64 x = 1;
  for (u64 i = 0;; i++) {
    if (i == 0 || (returns && !(i & 0xfffff))) call(SYS_SETAFFINITY, 0, sizeof mask, (s64)mask, 0, 0);
    x = x * 3 + i;
    __asm__ volatile("" : "+r"(x)); // the compiler must not leave it out
  }
}
static void work(void) { // one loop
  s64 child = call(SYS_CLONE, 17, 0, 0, 0, 0);
  if (child == 0) {
    for (u64 i = 0; i < sizeof pages / sizeof *pages; i++) pages[i][i] = (char)i;
    read_file("/proc/stat");
    read_file("/proc/meminfo");
    read_file("/proc/self/maps");
    u64 x = 1;
    for (u64 i = 0; i < 150000; i++) { // tight loops are most of a boot
      x = x * 3 + i;
      __asm__ volatile("" : "+r"(x));
    }
    call(SYS_EXIT, 0, 0, 0, 0, 0);
  }
  call(SYS_WAIT4, child, 0, 0, 0, 0);
}
static void nap(s64 ms) {
  s64 time[2] = {ms / 1000, ms % 1000 * 1000000};
  call(SYS_NANOSLEEP, (s64)time, 0, 0, 0, 0);
}
static void switch_cpu(int cpu, const char *to) { // "0" or "1"
  char name[] = "/sys/devices/system/cpu/cpu0/online";
  name[27] = (char)('0' + cpu);
  s64 done = write_file(name, to);
  mark(*to == '0' ? "INIT: down: cpu" : "INIT: up: cpu", (u64)cpu);
  if (done < 0) mark("INIT: refused, errno ", (u64)-done);
}
void _start(void) {
  call(SYS_MOUNT, (s64) "proc", (s64) "/proc", (s64) "proc", 0, 0);
  call(SYS_MOUNT, (s64) "sysfs", (s64) "/sys", (s64) "sysfs", 0, 0);
  print("INIT: hello from user space\n");
  read_file("/proc/cmdline");
  s64 readings = number(option("tracekit.readings="), READINGS), interval = number(option("tracekit.interval="), INTERVAL_MS);
  int hotplug = option("tracekit.mode=hotplug") != 0;
  for (s64 loops = number(option("tracekit.loops="), 0); loops > 0; loops--) work();
  s64 end;
  int cpus = cpus_of(read_file("/proc/stat"), &end);
  for (int cpu = 0; cpu < cpus; cpu++)
    if (call(SYS_CLONE, 17, 0, 0, 0, 0) == 0) burn(cpu, hotplug);
  for (s64 i = 0; i < readings; i++) {
    show_stat();
    nap(interval);
  }
  show_stat();
  for (int cpu = 1; hotplug && cpu < cpus; cpu++) {
    switch_cpu(cpu, "0");
    show_stat();
    nap(interval);
    switch_cpu(cpu, "1");
    nap(interval);
    show_stat();
  }
  print("INIT: power off\n");
  call(SYS_REBOOT, (s64)0xfee1dead, 672274793, 0x4321fedc, 0, 0);
  for (;;) {}
}
