// A static init without a C library: one burner for each vCPU, /proc/stat at intervals with the counter beside it, power off.
//
//   STAT BEGIN <cntvct>      counter before reading
//   cpu ... / cpu0 ...       the lines of /proc/stat
//   STAT END <cntvct>        counter after reading, before printing
typedef unsigned long u64;
typedef long s64;
enum { SYS_MOUNT = 40, SYS_OPENAT = 56, SYS_CLOSE = 57, SYS_READ = 63, SYS_WRITE = 64, SYS_NANOSLEEP = 101,
       SYS_SETAFFINITY = 122, SYS_REBOOT = 142, SYS_CLONE = 220 };
#define READINGS 5
#define INTERVAL_NS 100000000l

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
static char text[8192], line[128];
static s64 read_stat(void) {
  s64 fd = call(SYS_OPENAT, -100, (s64) "/proc/stat", 0, 0, 0);
  s64 n = call(SYS_READ, fd, (s64)text, sizeof text - 1, 0, 0);
  call(SYS_CLOSE, fd, 0, 0, 0, 0);
  return n;
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
  s64 n = read_stat(), end;
  u64 after = counter();
  cpus_of(n, &end);
  text[end] = 0;
  mark("STAT BEGIN ", before);
  print(text);
  mark("STAT END ", after);
}
static void burn(void) {
  u64 x = 1;
  for (u64 i = 0;; i++) {
    x = x * 3 + i;
    __asm__ volatile("" : "+r"(x)); // the compiler must not leave it out
  }
}
static void nap(s64 ns) {
  s64 time[2] = {0, ns};
  call(SYS_NANOSLEEP, (s64)time, 0, 0, 0, 0);
}
void _start(void) {
  call(SYS_MOUNT, (s64) "proc", (s64) "/proc", (s64) "proc", 0, 0);
  call(SYS_MOUNT, (s64) "sysfs", (s64) "/sys", (s64) "sysfs", 0, 0);
  print("INIT: hello from user space\n");
  s64 end;
  int cpus = cpus_of(read_stat(), &end);
  for (int cpu = 0; cpu < cpus; cpu++) {
    if (call(SYS_CLONE, 17, 0, 0, 0, 0) == 0) {
      u64 mask[2] = {1ul << cpu, 0};
      call(SYS_SETAFFINITY, 0, sizeof mask, (s64)mask, 0, 0);
      burn();
    }
  }
  for (int i = 0; i < READINGS; i++) {
    show_stat();
    nap(INTERVAL_NS);
  }
  show_stat();
  print("INIT: power off\n");
  call(SYS_REBOOT, (s64)0xfee1dead, 672274793, 0x4321fedc, 0, 0);
  for (;;) {}
}
