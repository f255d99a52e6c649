// An init that prints every 29th line of /proc/kallsyms, and powers off: what the kernel itself says of its addresses.
typedef long s64;
static s64 call(s64 n, s64 a, s64 b, s64 c, s64 d, s64 e) {
  register s64 x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d,
                  x4 __asm__("x4") = e;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return x0;
}
static char text[1 << 16], out[1 << 12];
void _start(void) {
  call(40, (s64) "proc", (s64) "/proc", (s64) "proc", 0, 0);
  s64 fd = call(56, -100, (s64) "/proc/kallsyms", 0, 0, 0), n, used = 0, line = 0;
  while ((n = call(63, fd, (s64)text, sizeof text, 0, 0)) > 0)
    for (s64 i = 0; i < n; i++) {
      if (line % 29 == 0 && used < (s64)sizeof out) out[used++] = text[i];
      if (text[i] != '\n') continue;
      if (used) call(64, 1, (s64)out, used, 0, 0);
      used = 0;
      line++;
    }
  call(64, 1, (s64) "END\n", 4, 0, 0);
  call(142, (s64)0xfee1dead, 672274793, 0x4321fedc, 0, 0);
  for (;;) {}
}
