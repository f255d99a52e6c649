"""Names for addresses of a guest: ELF symbols and lines, a kernel's own kallsyms, where a kernel was placed, call stacks. docs/symbols.md"""
