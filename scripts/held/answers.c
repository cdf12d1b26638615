/* Loaded before every other library of a process: it answers the cpuid instructions that scripts/held-to-avx2 replaced in the
 * libraries by 0F 04, which no processor knows. The answer is the processor's own without what is newer than AVX2. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
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

/* What the program does with SIGILL: it is kept here while the handler below stays in place. */
static struct sigaction others;

static int set_action(int number, const struct sigaction *wanted, struct sigaction *before) {
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sigaction");
    return real(number, wanted, before);
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    struct sigaction old = others;
    if (number != SIGILL)
        return set_action(number, wanted, before);
    if (wanted)
        others = *wanted;
    if (before)
        *before = old;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction wanted = {0}, before;
    wanted.sa_handler = handler;
    wanted.sa_flags = SA_RESTART;
    sigemptyset(&wanted.sa_mask);
    return sigaction(number, &wanted, &before) ? SIG_ERR : before.sa_handler;
}

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
    struct sigaction own = others;
    int sent = told->si_code <= 0; /* by kill or raise, not by an instruction */
    if (!sent && at[0] == 0x0f && at[1] == 0x04) {
        answer(registers);
    } else if (own.sa_handler != SIG_DFL && own.sa_handler != SIG_IGN) {
        if (own.sa_flags & SA_RESETHAND)
            others.sa_handler = SIG_DFL;
        own.sa_flags & SA_SIGINFO ? own.sa_sigaction(number, told, context) : own.sa_handler(number);
    } else if (!sent || own.sa_handler == SIG_DFL) {
        own.sa_handler = SIG_DFL;
        set_action(SIGILL, &own, NULL); /* the instruction runs again and ends the program */
        if (sent)
            raise(SIGILL);
    }
}

__attribute__((constructor)) static void start(void) {
    struct sigaction ours = {0};
    ours.sa_sigaction = on_illegal;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    set_action(SIGILL, &ours, &others);
}
