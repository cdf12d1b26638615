/* Loaded before every other library of a process: it answers the cpuid instructions that scripts/held-to-avx2 replaced in the
 * libraries by 0F 04, which no processor knows. The answer is the processor's own without what is newer than AVX2. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stddef.h>
#include <ucontext.h>

#define BIT(number) (1u << (number))

/* The features of leaf 7 by the Intel Software Developer's Manual, volume 2, CPUID. */
static const unsigned NEWER_EBX = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31); /* AVX-512 */
static const unsigned NEWER_ECX = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14) /* AVX-512 */
                                  | BIT(8) | BIT(9) | BIT(10);                  /* GFNI, VAES, VPCLMULQDQ */
static const unsigned NEWER_EDX = BIT(2) | BIT(3) | BIT(8) | BIT(23) /* AVX-512 */ | BIT(22) | BIT(24) | BIT(25); /* AMX */
static const unsigned NEWER_STATE = BIT(5) | BIT(6) | BIT(7) /* AVX-512 */ | BIT(17) | BIT(18); /* AMX */

static struct sigaction others;

static void answer(greg_t *registers) {
    unsigned leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0) {
        b &= ~NEWER_EBX;
        c &= ~NEWER_ECX;
        d &= ~NEWER_EDX;
    } else if (leaf == 7) { /* AVX-VNNI, AVX512-BF16, AVX-IFMA, AMX-FP16, AVX10: all of it is newer */
        a = b = c = d = 0;
    } else if (leaf == 0xd && part == 0) {
        a &= ~NEWER_STATE;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

static void on_illegal(int number, siginfo_t *told, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)registers[REG_RIP];
    (void)number;
    (void)told;
    if (at[0] == 0x0f && at[1] == 0x04)
        answer(registers);
    else
        sigaction(SIGILL, &others, NULL); /* not ours: the instruction runs again and ends as it would have */
}

__attribute__((constructor)) static void start(void) {
    struct sigaction ours = {0};
    ours.sa_sigaction = on_illegal;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigaction(SIGILL, &ours, &others);
}
