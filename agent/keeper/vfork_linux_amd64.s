#include "textflag.h"

// func vfork(clone *cloneArgs, size uintptr, calls *call, failed *uintptr) (pid int)
//
// The child runs on the stack of the thread that waits for it, so it touches
// nothing of it: it asks the kernel for one call after another, with their
// numbers and arguments from the list and everything it needs in registers that
// the kernel leaves alone. The last call is execve, which does not return.
TEXT ·vfork(SB), NOSPLIT, $0-40
	MOVQ clone+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ calls+16(FP), R12
	MOVQ failed+24(FP), R13
	MOVQ $435, AX             // clone3
	SYSCALL
	TESTQ AX, AX
	JZ child
	MOVQ AX, pid+32(FP)
	RET

child:
	MOVQ 0(R12), AX
	MOVQ 8(R12), DI
	MOVQ 16(R12), SI
	MOVQ 24(R12), DX
	MOVQ 32(R12), R10
	MOVQ 40(R12), R8
	SYSCALL
	CMPQ AX, $-4095           // -4095 to -1 are errors
	JCC wrong
	MOVQ 48(R12), BX
	TESTQ BX, BX
	JZ next
	CMPQ AX, BX
	JEQ next
	MOVQ $-3, AX              // ESRCH: not the answer that there must be
	JMP wrong

next:
	ADDQ $56, R12
	JMP child

wrong:
	NEGQ AX
	MOVQ AX, 0(R13)

end:
	MOVQ $127, DI
	MOVQ $231, AX             // exit_group
	SYSCALL
	JMP end
